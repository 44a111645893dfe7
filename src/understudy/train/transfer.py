"""Dense transfer of a pretrained tower: the same fine-tuning on nested label subsets.

    >>> from understudy.train.transfer import transfer
    >>> rows = transfer(store, clip, config, "runs/t", scorer, arm="clean")      # doctest: +SKIP

What makes arms comparable: same crop, augmentation, steps, batch, head and order (one seed), the
learning rate chosen for each arm on labelled rows of the training set that no subset uses, never on
the test set. How many rates were tried is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.hashing import hash_bytes, hash_data
from understudy.core.transfer_rows import LOWER_IS_BETTER, TransferRow, write_transfer
from understudy.data.dense import present_classes
from understudy.data.subsets import held_back, label_count, nested_subsets
from understudy.models.base import Model
from understudy.models.dense.model import DenseModel
from understudy.train.dense import FineTuned, fine_tune
from understudy.train.dense_config import FineTuneConfig, TransferConfig
from understudy.train.student_batches import train_rows

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["TransferConfig", "transfer"]

logger = logging.getLogger(__name__)
MakeScorer = Callable[["np.ndarray | None"], Callable[[DenseModel], Mapping[str, float]]]
"""Row numbers (None: the test set) to a function from a model to its metrics on them."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    store: Store
    source: Model
    config: TransferConfig
    out: Path
    scorer: MakeScorer
    arm: str
    samples_seen: int
    resume: bool


def transfer(
    store: Store,
    source: Model,
    config: TransferConfig,
    out: str | Path,
    scorer: MakeScorer,
    *,
    arm: str,
    samples_seen: int = -1,
    resume: bool = True,
) -> list[TransferRow]:
    """Fine-tune one pretrained tower on every label count and score each.

    Args:
        store: labelled pictures.
        source: the pretrained model, unfolded; it is not changed.
        config: head, label counts, learning rates to choose from.
        out: folder: a run's folder for each count and rate, `transfer_report.json`, `curves.csv`.
        scorer: makes the function that scores a model on some rows, or on the test set (None).
        arm: name of the pretraining.
        samples_seen: in pretraining, so that comparisons of unequal budgets can be refused; 0 for
            a tower that was not pretrained, -1 if unknown.
        resume: take finished runs that are there.

    Returns:
        one row for each count and metric.

    Raises:
        ConfigError: options that do not fit each other, the tower or the number of rows.
        DataError: labels that are missing, of other sizes, values or units.
        ModelError: a folded tower.
    """
    job = _Job(
        store=store,
        source=source,
        config=config,
        out=Path(out),
        scorer=scorer,
        arm=arm,
        samples_seen=samples_seen,
        resume=resume,
    )
    pool, validation = _split(job)
    subsets = nested_subsets(pool, config.labels, config.tune.seed)
    choice = _choose_rate(job, pool, validation, max(subsets))
    rows: list[TransferRow] = []
    facts = {
        "config": to_dict(config),
        "arm": arm,
        "store": store.path,
        "labelled_rows": len(pool),
        "validation_rows": len(validation),
        "lr": choice.rate,
        "tried": choice.tried,
    }
    shared: dict[str, Any] = {}
    for count, chosen in subsets.items():
        missing = _missing(job, chosen, count)
        tune, test = _with_rate(config.tune, choice.rate), scorer(None)
        if choice.run is not None and choice.run.facts["rows"] == count:
            # the same rows, rate, head and order: what was searched with is this very run
            run = replace(choice.run, metrics=dict(test(choice.run.model)))
        else:
            folder = job.out / f"labels-{count}"
            run = fine_tune(
                store, source, tune, folder, chosen, test, resume=resume, context={"arm": arm}
            )
        shared = shared or _shared(job, forward_flops(run.model, tune.size), choice)
        rows += _rows(job, run, shared, len(pool), missing)
        write_transfer(job.out, rows, facts)
    return rows


def _split(job: _Job) -> tuple[np.ndarray, np.ndarray]:
    rows = train_rows(job.store, job.config.rows)
    if not job.config.validation:
        return rows, rows[:0]
    return held_back(rows, job.config.validation, job.config.tune.seed)


def _with_rate(tune: FineTuneConfig, rate: float) -> FineTuneConfig:
    low = min(tune.train.min_lr, rate)
    return replace(tune, train=replace(tune.train, lr=rate, min_lr=low))


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """The learning rate of an arm, what each one reached, and the run that it won with."""

    rate: float
    tried: dict[str, float]
    run: FineTuned | None = None


def _choose_rate(job: _Job, pool: np.ndarray, validation: np.ndarray, largest: int) -> _Choice:
    """Return the best learning rate on held-back labelled rows."""
    config = job.config
    if len(config.lrs) == 1:
        return _Choice(rate=config.lrs[0], tried={f"{config.lrs[0]:g}": float("nan")})
    count = label_count(config.search_labels, len(pool)) if config.search_labels else largest
    chosen = nested_subsets(pool, [count / len(pool)], config.tune.seed)
    found: dict[str, float] = {}
    runs: dict[float, FineTuned] = {}
    for rate in config.lrs:
        runs[rate] = fine_tune(
            job.store,
            job.source,
            _with_rate(config.tune, rate),
            job.out / f"search-{rate:g}",
            next(iter(chosen.values())),
            job.scorer(validation),
            resume=job.resume,
            context={"arm": job.arm, "search": rate},
        )
        found[f"{rate:g}"] = float(runs[rate].metrics[config.watched])
    sign = -1.0 if config.watched in LOWER_IS_BETTER else 1.0
    # NaN never wins; of equals the smaller rate does
    best = max(sorted(config.lrs), key=lambda r: np.nan_to_num(sign * found[f"{r:g}"], nan=-np.inf))
    return _Choice(rate=best, tried=found, run=runs[best])


def _missing(job: _Job, rows: np.ndarray, count: int) -> list[str]:
    """Return the names of classes without a pixel in a subset, after a warning."""
    spec = job.config.tune.masks
    if spec is None or job.config.tune.head.task == "depth":
        return []
    pixels = present_classes(job.store, spec, rows)
    names = [name for name, n in zip(spec.classes, pixels.tolist(), strict=True) if n == 0]
    if names:
        logger.warning(
            "%d labelled rows have no pixel of: %s; these classes cannot be learned from them.",
            count,
            ", ".join(names),
        )
    return names


def protocol(store: Store, config: TransferConfig) -> str:
    """Return a hash of all that must be equal for two arms to be compared.

    The learning rate, which is each arm's own, and what only says where to run are not part of it.
    """
    tune = to_dict(config.tune)
    tune["train"] = {k: v for k, v in config.tune.train.identity().items() if k not in _OWN}
    tune = {k: v for k, v in tune.items() if k not in ("workers", "seed", "mean", "std")}
    rows = train_rows(store, config.rows)
    ids = store.take(rows, ["id"]).column(0).to_pylist()
    data = hash_bytes(*(str(name).encode() for name in ids))
    others = {"lrs": list(config.lrs), "data": data}
    return hash_data(_plain({**others, "validation": config.validation, "tune": tune}))


_OWN = ("lr", "min_lr", "seed")


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(k): _plain(v) for k, v in data.items()}
    return [_plain(v) for v in data] if isinstance(data, list | tuple) else data


def tower_name(source: Model) -> str:
    """Return a name of a tower's architecture: equal for towers of equal sizes."""
    config = source.config.image
    return f"{config.kind}-{hash_data(_plain(to_dict(config)))[:8]}"


def _shared(job: _Job, flops: int, choice: _Choice) -> dict[str, Any]:
    """Return what all rows of an arm have in common."""
    head = job.config.tune.head
    return {
        "arm": job.arm,
        "tower": tower_name(job.source),
        "task": head.task,
        "head": f"{head.kind}-{head.width}",
        "protocol": protocol(job.store, job.config),
        "seed": job.config.tune.seed,
        "samples_seen": job.samples_seen,
        "flops": flops,
        "lr": choice.rate,
        "lrs_tried": len(choice.tried),
    }


def _rows(
    job: _Job, run: FineTuned, shared: dict[str, Any], total: int, missing: list[str]
) -> list[TransferRow]:
    """Return a row for each metric, the watched one first."""
    watched, count = job.config.watched, run.facts["rows"]
    return [
        TransferRow(
            fraction=count / total,
            labels=count,
            metric=metric,
            value=float(run.metrics[metric]),
            steps=run.steps,
            params=run.facts["parameters"],
            seconds=round(sum(run.seconds.values()), 3),
            missing_classes=missing,
            **shared,
        )
        for metric in (watched, *(m for m in run.metrics if m != watched))
    ]


def forward_flops(model: DenseModel, size: int) -> int:
    """Return the floating point operations of one picture's forward pass (2 a multiply-accumulate).

    Args:
        model: a seg or depth model; detection depends on the picture, and counts 0.
        size: side of the picture in pixels.
    """
    if model.config.head.task == "det":
        return 0
    import torch

    from understudy.models.count import macs

    with torch.device("meta"):
        skeleton = DenseModel(model.config).eval()
    return 2 * macs(skeleton, torch.empty(1, 3, size, size, device="meta"))
