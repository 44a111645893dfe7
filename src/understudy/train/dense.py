"""Fine-tune an image tower with a dense head on a store's masks or depth maps.

    >>> from understudy.train.dense import FineTuneConfig, fine_tune
    >>> run = fine_tune(store, clip, config, "runs/seg", rows)          # doctest: +SKIP
    >>> run.metrics["miou"]                                             # doctest: +SKIP

Learns end to end, or the head alone (`frozen`). The same configuration and seed give every
pretrained tower the same head, the same crops and the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.dense import check_unit
from understudy.data.loader import Loader
from understudy.data.loader_dense import DenseSamples
from understudy.data.sampler_stream import StreamSampler
from understudy.models.base import Model
from understudy.models.dense.io import save_dense
from understudy.models.dense.model import DenseModel, dense_model
from understudy.objectives import dense as losses
from understudy.train.dense_config import FineTuneConfig
from understudy.train.distributed import join
from understudy.train.loop import fit
from understudy.train.optim import LR_SCALE

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["DenseStep", "FineTuneConfig", "FineTuned", "fine_tune"]

WEIGHTS = "dense.safetensors"
Scorer = Callable[[DenseModel], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class DenseStep:
    """Minimise the loss of a dense task.

    Attributes:
        task: seg, depth or det.
        ignore: label of pixels that do not count.
        aux_weight: of an auxiliary head.
        alpha: of the scale-invariant loss.
    """

    task: str
    ignore: int = losses.IGNORE
    aux_weight: float = 0.4
    alpha: float = 0.5

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the model and return the losses."""
        if self.task == "seg":
            outputs = model(batch["images"])
            return losses.segmentation(
                outputs, batch, ignore=self.ignore, aux_weight=self.aux_weight
            )
        if self.task == "depth":
            return losses.depth(model(batch["images"]), batch, alpha=self.alpha)
        targets = {key: batch[key] for key in ("boxes", "labels", "instances")}
        parts = model(batch["images"], targets)["losses"]
        total = torch.stack(list(parts.values())).sum()
        return {"loss": total, **{k: v.detach() for k, v in parts.items()}}


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What a fine-tuning gave.

    Attributes:
        path: the run's folder; `dense.safetensors` is there.
        model: with its final weights, in eval mode.
        metrics: of the scorer; empty without one.
        seconds: wall seconds by part, see `RunResult`.
        steps: optimiser steps done.
        facts: parameters, those that learned, labelled rows.
    """

    path: Path
    model: DenseModel
    metrics: dict[str, float]
    seconds: dict[str, float]
    steps: int
    facts: dict[str, Any] = field(default_factory=dict)


def check_normalisation(source: Model, config: FineTuneConfig) -> None:
    """Refuse a normalisation that is not the tower's own.

    Raises:
        ConfigError: `mean` or `std` is given and differs.
    """
    own = source.preprocess
    for what, given, known in (("mean", config.mean, own.mean), ("std", config.std, own.std)):
        if given is not None and any(abs(a - b) > 1e-6 for a, b in zip(given, known, strict=True)):
            raise ConfigError(
                f"{what}: {source.config.name} was pretrained on images normalised with {what} "
                f"{list(known)}, got {list(given)}; leave it out to use the tower's own."
            )


def build_model(source: Model, config: FineTuneConfig) -> DenseModel:
    """Return the model that a fine-tuning starts from.

    Raises:
        ConfigError: the normalisation is not the tower's own.
        ModelError: the source is folded, or gives no maps.
    """
    check_normalisation(source, config)
    drop_path = config.drop_path if config.drop_path >= 0 else None
    model = dense_model(source, config.head, config.seed, drop_path=drop_path)
    if config.frozen:
        model.freeze_tower()
    if config.layer_decay < 1:
        parameters = dict(model.named_parameters())
        for name, factor in model.layer_scales(config.layer_decay).items():
            setattr(parameters[name], LR_SCALE, factor)
    return model


def dense_loader(store: Store, source: Model, config: FineTuneConfig, rows: np.ndarray) -> Loader:
    """Return the batches of a fine-tuning.

    Raises:
        DataError: columns are missing, or depths are not in metres.
        ConfigError: a batch that ranks and micro-batches do not share evenly.
    """
    train, task = config.train, config.head.task
    ranks = join(train.device, train.strategy)
    parts = ranks.world * train.accumulate
    if train.batch_size < 1 or train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} samples cannot be shared by {ranks.world} "
            f"ranks x {train.accumulate} micro-batches; give a multiple of {parts}."
        )
    samples = DenseSamples(
        task=task,
        size=config.size,
        column=config.image_column,
        mean=source.preprocess.mean,
        std=source.preprocess.std,
        masks=None if task == "depth" else config.masks,
        depth=config.depth if task == "depth" else None,
        augment=config.augment,
    )
    sampler = StreamSampler(
        rows,
        train.batch_size // parts,
        config.seed,
        rank=ranks.rank,
        world=ranks.world,
    )
    loader = Loader(store, sampler, [samples], seed=config.seed, workers=config.workers)
    if task == "depth":
        assert config.depth is not None
        check_unit(store, config.depth, np.asarray(rows, np.int64))
    return loader


def fine_tune(
    store: Store,
    source: Model,
    config: FineTuneConfig,
    out: str | Path,
    rows: np.ndarray,
    scorer: Scorer | None = None,
    *,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> FineTuned:
    """Fine-tune a tower with a fresh head.

    Args:
        store: pictures with masks or depth maps.
        source: a CLIP or classifier, unfolded; it is not changed.
        config: head, labels, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`. `dense.safetensors` is added.
        rows: labelled rows to learn from.
        scorer: `scorer(model) -> metrics`, called at `train.eval_every` and at the end.
        resume: go on from the newest checkpoint in `out`, or take what is finished there.
        context: facts for the run's record.

    Raises:
        ConfigError: options that do not fit each other or the tower.
        DataError: labels that are missing, of other sizes, values or units.
        ModelError: a folded tower.
    """
    config = replace(config, train=config.train.seeded(config.seed))
    model = build_model(source, config)
    loader = dense_loader(store, source, config, rows)
    ignore = config.masks.ignore if config.masks is not None else losses.IGNORE
    step = DenseStep(
        task=config.head.task, ignore=ignore, aux_weight=config.aux_weight, alpha=config.alpha
    )

    def during(found: nn.Module, _: int) -> Mapping[str, float]:
        assert scorer is not None
        return scorer(found)  # type: ignore[arg-type]

    run = fit(
        model,
        step,
        loader,
        config.train,
        out,
        evaluate=None if scorer is None else during,
        resume=resume,
        context={"fine_tune": to_dict(config), "store": store.path, **(context or {})},
        data={
            "loader": loader.describe(),
            "objective": to_dict(step),
            "model": to_dict(model.config),
            "tower": _tower_hash(source),
            "layer_decay": config.layer_decay,
        },
    )
    if run.finished:
        from safetensors.torch import load_file

        # a run that was finished before returns at once, with the weights still in its folder
        model.load_state_dict(load_file(run.path / "model.safetensors"))
        save_dense(model, run.path / WEIGHTS, {"steps": run.steps, **run.metrics})
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "rows": len(rows),
    }
    metrics = {k: v for k, v in run.metrics.items() if not k.startswith("train/")}
    return FineTuned(
        path=run.path,
        model=model.eval(),
        metrics=metrics,
        seconds=run.seconds,
        steps=run.steps,
        facts=facts,
    )


def _tower_hash(source: Model) -> str:
    from understudy.models.io import weights_hash

    return weights_hash(source.image)  # type: ignore[arg-type]
