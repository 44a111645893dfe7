"""One step of a stream: train from the last weights or fresh ones, and patch where asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.data.sampler_replay import ReplayMix
from understudy.models import io
from understudy.models.multimodal.clip import CLIP
from understudy.train.result import plain
from understudy.update.continual_config import ContinualConfig
from understudy.update.continual_patch import choose_alpha, patched
from understudy.update.continual_start import trained_model
from understudy.update.continual_train import StepTask, step_loader, train_step

if TYPE_CHECKING:
    from understudy.data.store import Store

STEP = "step.json"
"""File of a finished step: its record, and what it must find unchanged."""


def step_facts(
    config: ContinualConfig,
    number: int,
    name: str,
    iterations: int,
    mix: ReplayMix,
    last: Path | None,
) -> dict[str, Any]:
    """Return what decides a step, as plain data."""
    whole = to_dict(config)
    student = whole.pop("student")
    for name in ("train", "workers"):  # the budget is apart; workers change nothing
        student.pop(name)
    return plain(
        {
            "method": whole,
            "student": student,
            "train": config.student.train.identity(),
            "step": {
                "number": number,
                "name": name,
                "iterations": iterations,
                "rows": mix.counts | {name: len(mix.current)},
                "last": None if last is None else last.name,
            },
        }
    )


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """A model after a step.

    Attributes:
        model: in eval mode.
        alpha: see `StepRecord`.
        alphas: see `StepRecord`.
    """

    model: CLIP
    alpha: float | None = None
    alphas: dict[str, float] = field(default_factory=dict)


def advance(
    store: Store,
    config: ContinualConfig,
    name: str,
    mix: ReplayMix,
    iterations: int,
    out: Path,
    last: Path | None,
    *,
    fresh: Callable[[], CLIP],
    choose: Callable[[CLIP], float],
) -> Advanced:
    """Train one step and leave its model in `out`, as the folder of a run.

    Args:
        store: holds the rows.
        config: the method.
        name: of the period.
        mix: what it learns from.
        iterations: its budget.
        out: the folder; killed and called again it goes on.
        last: the run that it begins from; None for fresh weights.
        fresh: makes these.
        choose: scores a model on held rows, for `patching`.
    """
    if last is None:
        model, train = fresh(), config.train(iterations, trained=False)
    else:
        model = trained_model(last, config.student)
        train = config.train(iterations, trained=True)
    before = None if last is None or not config.how.patch else trained_model(last)
    runs = out / "trained" if before is not None else out
    inner = last / "trained" if last is not None and (last / "trained").is_dir() else last
    task = StepTask(
        name=name,
        mix=mix,
        train=train,
        last=inner,
        teacher=trained_model(last) if last is not None and config.how.teacher else None,
    )
    train_step(store, model, config, task, runs)
    model = trained_model(runs).eval()
    if before is None:
        return Advanced(model=model)
    loader = step_loader(store, model, config, task)
    count = min(config.norm_batches, iterations)

    def make(alpha: float) -> CLIP:
        return patched(before, model, alpha, lambda: loader(0, count))

    alpha, scores = choose_alpha(make, choose, config.alphas)
    found = make(alpha)
    io.save(found, out / "model.safetensors", {"period": name, "alpha": alpha})
    write_json(out / "patch.json", {"alpha": alpha, "scores": scores, "trained": str(runs)})
    return Advanced(model=found, alpha=alpha, alphas=scores)
