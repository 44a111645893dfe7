"""Learn a map from stored vectors alone: no image or text is read again.

    pairs = pairs_of_store(store, "embed.old", "embed.new", labels="label")
    result = fit_map(pairs, FitConfig(loss="l2+disc+unc"), "runs/map", head=load_head("head.pt"))
    result.map.transform(vectors)

References:
    FCT, arXiv 2112.02805; FastFill, arXiv 2303.04766; hyper-parameters of the published
    configurations (Adam, weight decay 2^-15, 80 epochs, batch 1024).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_json
from understudy.models.embedding.chain import MapModule
from understudy.models.embedding.compatible import CompatibleTransform, TransformConfig
from understudy.models.io import assign
from understudy.objectives.compatible import uses_labels
from understudy.train.distributed import join
from understudy.train.loop import fit
from understudy.update.classifier import FrozenHead, check_head, check_labels, prototypes
from understudy.update.fit_config import FitConfig
from understudy.update.fit_score import (
    MapScore,
    check_pairs,
    judge,
    overlap,
    score,
    split_items,
)
from understudy.update.fit_step import MapBatches, MapStep
from understudy.update.linear import fit_linear
from understudy.update.map_manifest import manifest_of
from understudy.update.maps import CompatibleMap
from understudy.update.pairs import PART_ROWS

if TYPE_CHECKING:
    from understudy.update.pairs import Pairs

MAP_FILE = "map.safetensors"


class FitWarning(UserWarning):
    """A map that was learned but may not be good, or not as good as its score says."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What `fit_map` gave.

    Attributes:
        path: the map's file.
        map: the map; None if the time limit ended the run before its last step.
        held_out: its score on pairs that it did not learn from; None if there are none.
        learned: pairs that it learned from.
        seconds: wall seconds by part.
        warnings: sentences on what is odd; also issued as `FitWarning`.
    """

    path: Path
    map: CompatibleMap | None
    held_out: MapScore | None
    learned: int
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the map is done; if not, call again to go on."""
        return self.map is not None


def choose_head(
    pairs: Pairs, items: np.ndarray, config: FitConfig, head: FrozenHead | None
) -> FrozenHead | None:
    """Return the frozen classifier of a fit: the given one, or prototypes; None without `disc`.

    Args:
        pairs: with labels.
        items: those to learn from; labels of others are not looked at.
        config: says whether there is a classifier in the loss.
        head: the new model's own, if it is at hand.

    Raises:
        ConfigError: a classifier for a loss without one.
        DataError: no labels, or labels or widths that do not fit it.
    """
    if not uses_labels(config.loss):
        if head is not None:
            raise ConfigError(
                f"loss '{config.loss}' uses no classifier; leave it out, or take 'l2+disc+unc'."
            )
        return None
    if pairs.labels is None:
        raise DataError(
            f"{pairs.source}: the loss '{config.loss}' needs labels; name their column, or use the "
            "loss 'l2' or 'l2+unc'."
        )
    labels = pairs.labels[items]
    if head is None:
        known = pairs.labels

        def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(items), PART_ROWS):
                some = items[start : start + PART_ROWS]
                yield pairs.new.take(some), known[some]

        return prototypes(read, np.unique(labels), config.smoothing)
    check_head(head, pairs.new.dim, pairs.num_classes)
    check_labels(labels, head.num_classes, lambda i: pairs.name(int(items[i])))
    return head


def fit_map(
    pairs: Pairs,
    config: FitConfig,
    out: str | Path,
    *,
    head: FrozenHead | None = None,
    eval_pairs: Pairs | None = None,
    seconds_limit_s: float = 0.0,
    resume: bool = True,
) -> FitResult:
    """Learn a map and write it to `out/map.safetensors`.

    Args:
        pairs: what to learn from.
        config: how.
        out: folder of the run: the map, `fit.json`, and what `train.loop.fit` writes.
        head: the new model's classifier; class means of new vectors stand in for it where the loss
            needs one.
        eval_pairs: pairs to score instead of held-out ones.
        seconds_limit_s: stop with a checkpoint after this many seconds; 0 never.
        resume: go on where an earlier call stopped.

    Raises:
        ConfigError: options that exclude each other, or a folder with another run.
        DataError: vectors, labels or a classifier that cannot be used; items are named.
    """
    out = Path(out)
    norms, odd = check_pairs(pairs)
    share = 0.0 if eval_pairs is not None else config.held_out
    items, scored = split_items(pairs, share, config.seed)
    if len(items) < 2:
        raise DataError(f"{pairs.source}: {len(items)} pairs to learn from; two are the least.")
    if eval_pairs is not None:
        odd += overlap(pairs, items, eval_pairs)
    chosen = choose_head(pairs, items, config, head)
    judged = (pairs, scored)
    if eval_pairs is not None:
        judged = (eval_pairs, np.arange(len(eval_pairs)))
    seconds: dict[str, float] = {}
    if config.kind == "transform":
        run = _train(pairs, items, judged, config, out, chosen, seconds_limit_s, resume)
        module, seconds = run
        if module is None:
            return FitResult(
                path=out / MAP_FILE,
                map=None,
                held_out=None,
                learned=len(items),
                seconds=seconds,
                warnings=odd,
            )
    else:
        module = fit_linear(pairs, config.kind, items)
    found = _score(module, *judged) if len(judged[1]) else None
    odd += judge(found, len(items), pairs.new.dim)
    for sentence in odd:
        warnings.warn(sentence, FitWarning, stacklevel=2)
    manifest = manifest_of(pairs, config, module, chosen, found, items, norms, odd)
    tensors = {"weight": chosen.weight, "bias": chosen.bias} if chosen else None
    made = CompatibleMap(module.cpu(), manifest, tensors)
    made.save(out / MAP_FILE)
    write_json(out / "fit.json", {"map": MAP_FILE, "fingerprint": made.fingerprint, **manifest})
    return FitResult(
        path=out / MAP_FILE,
        map=made,
        held_out=found,
        learned=len(items),
        seconds=seconds,
        warnings=odd,
    )


def transform_config(pairs: Pairs, config: FitConfig) -> TransformConfig:
    """Return the network of a fit."""
    return TransformConfig(
        old_dim=pairs.old.dim,
        new_dim=pairs.new.dim,
        side_dim=pairs.side.dim if pairs.side is not None else 0,
        inner=config.inner,
        uncertainty=config.uncertainty,
    )


def _score(module: nn.Module, pairs: Pairs, items: np.ndarray) -> MapScore:
    device = next(module.parameters()).device

    def transform(old: np.ndarray, side: np.ndarray | None) -> np.ndarray:
        given = [None if x is None else torch.from_numpy(x).to(device) for x in (old, side)]
        with torch.inference_mode():
            z, _ = module.parts(*given)  # type: ignore[operator]
        return z.float().cpu().numpy()

    return score(transform, pairs, items)


def _train(
    pairs: Pairs,
    items: np.ndarray,
    judged: tuple[Pairs, np.ndarray],
    config: FitConfig,
    out: Path,
    head: FrozenHead | None,
    seconds_limit_s: float,
    resume: bool,
) -> tuple[MapModule | None, dict[str, float]]:
    """Return the trained network (None if the time was up) and seconds by part."""
    from dataclasses import replace

    from safetensors.torch import load_file

    ranks = join(config.device, "auto")
    batches = MapBatches(
        pairs, items, config.batch_size, config.seed, rank=ranks.rank, world=ranks.world
    )
    per_epoch = batches.steps_per_epoch
    model = CompatibleTransform(transform_config(pairs, config), seed=config.seed)
    learned_epochs = config.epochs - config.frozen_epochs
    step = MapStep(config=config, freeze_at=learned_epochs * per_epoch, head=head)
    learned = {k: v for k, v in to_dict(config).items() if k not in ("device", "checkpoints")}

    def evaluate(module: nn.Module, _: int) -> Mapping[str, float]:
        found = _score(module, *judged)
        return {"mse": found.mse, "r2": found.r2}

    result = fit(
        model,
        step,
        batches,
        replace(
            config.train_config(per_epoch, batches.batch_size), seconds_limit_s=seconds_limit_s
        ),
        out,
        evaluate=evaluate if len(judged[1]) else None,
        resume=resume,
        context={"pairs": pairs.source, "kind": "map"},
        data={
            "fit": learned,
            "batches": batches.describe(),
            "classifier": head.fingerprint if head else "",
        },
    )
    if not result.finished:
        return None, result.seconds
    assign(model, load_file(out / "model.safetensors"), str(out))
    return model.eval(), result.seconds
