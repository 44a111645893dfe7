"""What training a CLIP student and training a classifier share: rows, images, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.files import write_json
from understudy.data.loader import Images
from understudy.data.samplers import ShuffledSampler
from understudy.data.view_config import ViewConfig
from understudy.models.preprocess import Preprocess
from understudy.train.config import TrainConfig
from understudy.train.distributed import join

if TYPE_CHECKING:
    from understudy.data.loader import Loader
    from understudy.data.store import Store
    from understudy.models.base import Model
    from understudy.train.loop import RunResult

Evaluate = Callable[[Any], Mapping[str, float]]
"""What a caller gives to score a student: `evaluate(model) -> metrics`."""

WEIGHTS = {
    "final": "model.safetensors",
    "ema": "model-ema.safetensors",
    "best": "model-best.safetensors",
}


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """What training a student gave.

    Attributes:
        path: the run's folder.
        steps: optimiser steps done.
        weights: metrics of the evaluation by weights: `final`, `ema` (if averaged) and `best` (if
            an evaluation metric was watched); empty without an evaluation.
        train: means over the last logged steps.
        seconds: wall seconds by part, see `RunResult`.
        finished: False if the time limit ended it.
        facts: samples seen, passes over the data, texts that were cut, parameters.
    """

    path: Path
    steps: int
    weights: dict[str, dict[str, float]]
    train: dict[str, float]
    seconds: dict[str, float]
    finished: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


def train_rows(store: Store, where: str = "") -> np.ndarray:
    """Return the row numbers to train on.

    Args:
        store: where they are.
        where: SQL filter; empty takes `split = 'train'` where there is such a split, else all rows.

    Raises:
        DataError: no row is left.
    """
    if where:
        rows = store.where(where)
    else:
        rows = store.where("split = 'train'") if store.has("split") else np.arange(0)
        if not len(rows):
            rows = np.arange(store.num_rows)
    if not len(rows):
        raise DataError(f"{store.path}: no row to train on (rows = {where!r}).")
    return np.asarray(rows, np.int64)


def check_normalisation(
    preprocess: Preprocess,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    name: str,
) -> None:
    """Refuse a normalisation that is not the model's own.

    Raises:
        ConfigError: `mean` or `std` is given and differs from the model's.
    """
    for what, given, own in (("mean", mean, preprocess.mean), ("std", std, preprocess.std)):
        if given is None:
            continue
        if len(given) != 3 or any(abs(a - b) > 1e-6 for a, b in zip(given, own, strict=True)):
            raise ConfigError(
                f"{what}: {name} takes images normalised with {what} {list(own)}, got "
                f"{list(given)}; leave it out, or change the model (changes: preprocess.{what})."
            )


def view_config(transforms: Mapping[str, Any], size: int) -> ViewConfig | None:
    """Return the augmentation that `transforms` describe; None for none."""
    if not transforms:
        return None
    return ViewConfig(size=size, transforms={k: dict(v or {}) for k, v in transforms.items()})


def image_field(
    preprocess: Preprocess,
    *,
    column: str,
    view_set: str,
    augment: Mapping[str, Any],
    rescale: bool,
    replay: str,
) -> Images:
    """Return the loader's field of images for a student.

    Args:
        preprocess: the student's.
        column: payload column of encoded images.
        view_set: stored views to replay; empty for none.
        augment: transforms of images that replay nothing; empty for none.
        rescale: allow a size other than the stored one.
        replay: `"stored"`, or `"fresh"` for the control.
    """
    return Images(
        column=column,
        size=preprocess.size,
        view_set=view_set or None,
        mean=preprocess.mean,
        std=preprocess.std,
        plain=view_config(augment, preprocess.size),
        rescale=rescale,
        replay=replay,  # type: ignore[arg-type]
    )


def view_count(store: Store, view_set: str) -> int:
    """Return how many views of a set are stored; 0 for no set.

    Raises:
        CardError: there are none; the sets that exist are named.
    """
    from understudy.data.view_verify import view_columns

    if not view_set:
        return 0
    known = sorted({c.split(".")[1] for c in store.columns if c.startswith("view.")})
    if view_set not in known:
        raise CardError(
            f"{store.path}: there is no view set '{view_set}' (it has {', '.join(known) or 'none'})"
            ": reinforce the store first, or leave view_set empty to train on plain images."
        )
    return len(view_columns(store, view_set))


def sampler_of(
    rows: np.ndarray,
    config: TrainConfig,
    *,
    seed: int,
    num_views: int = 0,
    view_order: str = "epoch",
) -> ShuffledSampler:
    """Return the sampler of this process's micro-batches.

    Raises:
        ConfigError: no batch size, or one that ranks and micro-batches do not share evenly.
    """
    ranks = join(config.device, config.strategy)
    parts = ranks.world * config.accumulate
    if config.batch_size < 1 or config.batch_size % parts:
        raise ConfigError(
            f"train.batch_size: {config.batch_size} samples cannot be shared by {ranks.world} "
            f"ranks x {config.accumulate} micro-batches; give a multiple of {parts}."
        )
    return ShuffledSampler(
        rows,
        config.batch_size // parts,
        seed,
        num_views=num_views,
        rank=ranks.rank,
        world=ranks.world,
        view_order=view_order,  # type: ignore[arg-type]
    )


def bare(model: nn.Module) -> nn.Module:
    """Return the model that a training wrapper surrounds, or the model itself."""
    return getattr(model, "saved", model)


def during(evaluate: Evaluate | None) -> Callable[[nn.Module, int], Mapping[str, float]] | None:
    """Return what `fit` calls to evaluate; None for no evaluation."""
    if evaluate is None:
        return None
    return lambda model, step: evaluate(bare(model))


def finish(
    run: RunResult,
    model: Model,
    loader: Loader,
    rows: np.ndarray,
    config: TrainConfig,
    evaluate: Evaluate | None,
) -> StudentResult:
    """Collect final, averaged and best weights' metrics and write `student.json`."""
    from understudy.models.count import parameters

    weights: dict[str, dict[str, float]] = {}
    scores = {k: v for k, v in run.metrics.items() if not k.startswith("train/")}
    if evaluate is not None and run.finished:
        weights["final"] = {k: v for k, v in scores.items() if not k.startswith("ema_")}
        averaged = {k.removeprefix("ema_"): v for k, v in scores.items() if k.startswith("ema_")}
        if averaged:
            weights["ema"] = averaged
        best = run.path / WEIGHTS["best"]
        if config.best is not None and best.is_file():
            from understudy.models import load

            found = evaluate(load(best).to(next(model.parameters()).device))
            weights["best"] = {k: float(v) for k, v in found.items()}
    result = StudentResult(
        path=run.path,
        steps=run.steps,
        weights=weights,
        train={k.removeprefix("train/"): v for k, v in run.metrics.items() if k not in scores},
        seconds=run.seconds,
        finished=run.finished,
        facts={
            "samples_seen": run.steps * config.batch_size,
            "rows": len(rows),
            "passes": round(run.steps * config.batch_size / len(rows), 3),
            "truncated_texts": dict(loader.stats.truncated),
            "parameters": parameters(model),
        },
    )
    if run.finished:
        names = ("steps", "weights", "train", "seconds", "facts")
        write_json(run.path / "student.json", {name: getattr(result, name) for name in names})
    return result
