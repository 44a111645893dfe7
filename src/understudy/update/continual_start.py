"""Where a step begins: fresh weights, or those of the last step, with or without its optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError
from understudy.core.files import read_json, write_json
from understudy.models.multimodal.clip import CLIP
from understudy.models.runs import load_run, names_weights, weights_path
from understudy.train import checkpoint
from understudy.train.logs import Window
from understudy.train.result import RECORD
from understudy.train.state import learned
from understudy.train.student_config import StudentConfig
from understudy.train.student_lookup import make_tokenizer

if TYPE_CHECKING:
    from understudy.data.store import Store

RESET = "the optimiser's moments, the gradient scaler and the step counter"
START = "start.json"


def fresh_model(store: Store, student: StudentConfig, rows: np.ndarray) -> CLIP:
    """Return a student with fresh weights.

    Args:
        store: holds the captions.
        student: which model.
        rows: whose captions an own tokenizer is trained on: those of the first step, so that no
            later text decides anything.

    Raises:
        ConfigError: the name stands for trained weights, or for no CLIP.
    """
    from understudy import models

    if names_weights(student.model):
        raise ConfigError(
            f"student.model: {student.model} holds weights; give the name of a model here, and the "
            "weights to begin with as start."
        )
    changes: dict[str, Any] = dict(student.changes)
    if student.loss == "sigmoid":
        changes["sigmoid"] = True
    tokenizer = make_tokenizer(store, student, rows)
    model = models.create(student.model, seed=student.seed, tokenizer=tokenizer, **changes)
    return _clip(model, student.model)


def trained_model(run: str | Path, student: StudentConfig | None = None) -> CLIP:
    """Return the model of a finished run, in training form.

    Args:
        run: a run's folder or a weights file.
        student: names the architecture that is expected, unless it names weights itself.

    Raises:
        ModelError: another architecture; the first tensor that differs is named.
        DataError: no finished weights there.
    """
    from understudy import models

    path = weights_path(run, "final") if Path(run).is_dir() else Path(run)
    model = _clip(load_run(path, folded=False), str(run))
    if student is not None and not names_weights(student.model):
        changes: dict[str, Any] = dict(student.changes)
        if student.loss == "sigmoid":
            changes["sigmoid"] = True
        wanted = models.create(student.model, tokenizer=model.tokenizer, **changes)
        check_architecture(wanted, model.state_dict(), str(path))
    return model


def _clip(model: Any, where: str) -> CLIP:
    if not isinstance(model, CLIP):
        raise ConfigError(
            f"{where}: {model.config.name} is no CLIP; continual training takes image-text models."
        )
    return model


def check_architecture(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights of another architecture.

    Raises:
        ModelError: the first tensor that one side lacks or that has another shape, and both
            shapes.
    """
    own = model.state_dict()
    for name in [*own, *(key for key in state if key not in own)]:
        shapes = [list(side[name].shape) if name in side else "none" for side in (own, state)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{where}: a checkpoint of another architecture; the first mismatch is '{name}': "
                f"{shapes[1]} in the checkpoint, {shapes[0]} in the model."
            )


def check_start(out: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with a step that began otherwise, and note how this one begins.

    Args:
        out: the step's folder.
        facts: `new_run`, and `weights`, a hash of the weights that it begins with.

    Raises:
        ConfigError: the folder holds a step that began with other weights, or with `new_run` the
            other way round; what would be reset is named.
    """
    known = out / START
    if known.exists():
        found = read_json(known)
        if found == dict(facts):
            return
        if (out / "checkpoints").exists() or (out / RECORD).exists():
            raise ConfigError(_other(out, found, facts))
    write_json(known, dict(facts))


def _other(out: Path, found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if found.get("new_run") != facts.get("new_run"):
        was, now = found.get("new_run"), facts.get("new_run")
        fate = "kept" if was else "reset"
        return (
            f"{out}: this step began with new_run={was}; with new_run={now} {RESET} would be "
            f"{fate} instead. Give new_run={was} to go on, or another output folder to begin anew."
        )
    return (
        f"{out}: this step began with other weights ({found.get('weights')}, now "
        f"{facts.get('weights')}); going on would keep their training, and beginning anew would "
        f"reset {RESET}. Give the same run to go on, or another output folder."
    )


def carry_optimizer(last: Path, out: Path, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Let a step begin with the optimiser's moments of the last one (`new_run=False`).

    Writes a checkpoint of step 0, which `understudy.train.loop.fit` resumes; nothing where the step
    has checkpoints already.

    Args:
        last: folder of the last step's training.
        out: folder of this one's.
        model: holds the weights that it begins with.
        facts: what identifies this step's run.

    Raises:
        ConfigError: the last step kept no optimiser state.
    """
    root = out / "checkpoints"
    if checkpoint.steps(root) or (out / RECORD).exists():
        return
    known = checkpoint.steps(last / "checkpoints")
    if not known:
        raise ConfigError(
            f"new_run=False: {last} kept no optimiser state (train.checkpoint_every was 0). With "
            f"new_run=True the step begins with its weights, and {RESET} are reset."
        )
    tensors, state = checkpoint.read(checkpoint.step_folder(last / "checkpoints", known[-1]))
    weights = {k: v.detach().cpu().contiguous() for k, v in learned(model).items()}
    kept = {**tensors, "model": weights}
    checkpoint.write(
        checkpoint.step_folder(root, 0),
        kept,
        {
            "step": 0,
            "run": dict(facts),
            "scaler": state["scaler"],
            "window": Window().state(),
            "seconds": {},
            "evaluation": {},
            "best": None,
        },
    )
