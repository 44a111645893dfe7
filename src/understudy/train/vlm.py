"""Train a vision-language model in stages, each of them a run of the one loop.

    >>> from understudy.train.vlm import train_vlm
    >>> from understudy.train.vlm_config import two_stage
    >>> train_vlm(store, model, two_stage(256, 512), "runs/vlm")     # doctest: +SKIP

A finished stage is not run again: its weights are loaded and the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.data.loader import Loader
from understudy.data.samplers import ShuffledSampler
from understudy.models import io
from understudy.models.multimodal.vlm import VLM
from understudy.objectives.language import IGNORE, language_modelling
from understudy.train.config import TrainConfig
from understudy.train.distributed import join
from understudy.train.student_batches import train_rows
from understudy.train.vlm_batches import dialogues
from understudy.train.vlm_config import VLMStage, check_stages

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.train.result import RunResult

Evaluate = Callable[[VLM], Mapping[str, float]]


class VLMStep:
    """The next-token loss on what the assistant says, bound to a model's call."""

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch in which nothing is learned.

        Raises:
            DataError: every label is ignored, because texts were cut or have no answers.
        """
        if not any(bool((row[1:] != IGNORE).any()) for row in batch["labels"]):
            raise DataError(
                "a batch has no token to learn: its conversations have no answers, or they were "
                "cut off; shorten the texts or raise the context."
            )

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss` and `token_accuracy`."""
        out = model(batch["ids"], batch["pixels"], batch["labels"], batch["views"])
        return language_modelling(out, batch)


def set_trainable(model: VLM, what: str) -> None:
    """Let a stage train the projector alone, or everything.

    Args:
        model: changed in place.
        what: `"projector"` or `"all"`.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(what == "all" or name.startswith("projector."))


def stage_loader(
    store: Store, model: VLM, stage: VLMStage, *, seed: int = 0, workers: int = 1
) -> Loader:
    """Return the batches of a stage, at the model's present resolution.

    Raises:
        DataError: no rows, or no conversations in the store.
    """
    rows = train_rows(store, stage.rows)
    ranks = join("auto", "auto")
    share = stage.batch_size // (ranks.world * stage.accumulate)
    sampler = ShuffledSampler(rows, max(share, 1), seed, rank=ranks.rank, world=ranks.world)
    return Loader(store, sampler, [dialogues(model, stage.template)], seed=seed, workers=workers)


def train_stage(
    store: Store,
    model: VLM,
    stage: VLMStage,
    out: str | Path,
    *,
    seed: int = 0,
    base: TrainConfig | None = None,
    evaluate: Evaluate | None = None,
    workers: int = 1,
    resume: bool = True,
) -> RunResult:
    """Train one stage; the model has its weights and its resolution afterwards.

    Args:
        store: conversations with images.
        model: with its tokenizer; changed in place.
        stage: what is trained, how long and how fast.
        out: the run's folder.
        seed: of order and everything random inside a step.
        base: where logging, checkpoints and the device come from.
        evaluate: `evaluate(model) -> metrics`, at the end.
        workers: threads that make batches ahead.
        resume: go on from the newest checkpoint in `out`.

    Raises:
        ConfigError: a resolution that is no multiple of the stride, or sequences that do not fit.
        DataError: no rows, or none that can be learned from.
    """
    from understudy.train.loop import fit

    if stage.resolution:
        model.set_resolution(stage.resolution)
    loader = stage_loader(store, model, stage, seed=seed, workers=workers)
    set_trainable(model, stage.trainable)
    config = replace(
        stage.train_config(int(loader.sampler.count), base),  # type: ignore[attr-defined]
        seed=seed,
    )
    run = fit(
        model,
        VLMStep(),
        loader,
        config,
        out,
        evaluate=None if evaluate is None else lambda m, _: evaluate(m),  # type: ignore[arg-type]
        resume=resume,
        context={"stage": to_dict(stage), "store": str(store.path)},
    )
    if run.finished:
        # also where the stage was done before and only its weights are wanted
        io.load_weights(model, Path(out) / "model.safetensors")
    return run


def train_vlm(
    store: Store | Mapping[str, Store],
    model: VLM,
    stages: Sequence[VLMStage],
    out: str | Path,
    *,
    seed: int = 0,
    base: TrainConfig | None = None,
    evaluate: Evaluate | None = None,
    workers: int = 1,
    resume: bool = True,
) -> list[RunResult]:
    """Train all stages, one after the other, each in a folder of its name.

    Args:
        store: what all stages learn from; or a store a stage, by its name.
        model: with its tokenizer; changed in place, in eval mode afterwards.
        stages: in order, such as `two_stage(256, 1024)`.
        out: folder of the stages' runs.
        seed: see `train_stage`.
        base: see `train_stage`.
        evaluate: scores the model after each stage.
        workers: see `train_stage`.
        resume: go on where an earlier call was stopped.

    Raises:
        ConfigError: no stages, or a stage without a store.
    """
    check_stages(stages)
    done = []
    for stage in stages:
        if isinstance(store, Mapping):
            if stage.name not in store:
                raise DataError(f"stage '{stage.name}': no store; there are {', '.join(store)}.")
            mine = store[stage.name]
        else:
            mine = store
        run = train_stage(
            mine,
            model,
            stage,
            Path(out) / stage.name,
            seed=seed,
            base=base,
            evaluate=evaluate,
            workers=workers,
            resume=resume,
        )
        done.append(run)
        if not run.finished:
            break
    model.eval()
    return done
