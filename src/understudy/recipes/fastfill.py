r"""FastFill: move a gallery at once, then encode it again, most uncertain items first.

"FastFill: Efficient Compatible Model Update" (ICLR 2023, arXiv 2303.04766). The map of FCT also
learns from the new model's own frozen classifier and predicts how wrong it is on each item; items
are re-encoded in that order as compute allows, and retrieval rises sooner than at random.

    understudy run fastfill STORE --old efficientnet-lite0 --new efficientnet-lite2 --out runs/fill
    understudy verify fastfill --jobs 2
    understudy plan fastfill --scale paper

`STORE` is that of fct. Expect the area under the curve above random order's (the paper, ImageNet-1k
without side information, mean mAP: FCT at random 40.5, FastFill 44.8, all new 45.3). The claim (11
arms, 5 seeds) takes a quarter of an hour on two cores. To backfill a store for good, use
`understudy update plan`, `backfill` and `serve`.

The algorithm, as `run` goes through it:

1. vectors as in fct; the classifier is the new model's, or class means of its vectors;
2. one map for each loss: `l2`, `l2+disc`, `l2+disc+unc`;
3. orders: random (several permutations), by true error (needs what backfilling would give: a
   bound), by distance to the class mean, and by uncertainty, descending and ascending, where the
   map has it;
4. retrieval at each fraction of the gallery that holds new vectors; its mean over fractions (AUC);
5. with `groups`: the gap between the smallest group and the others at each fraction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError
from understudy.core.files import write_json
from understudy.recipes.fastfill_claim import CLAIM
from understudy.recipes.fastfill_plan import plan as PLAN
from understudy.recipes.fastfill_plan import preview
from understudy.update.source_config import SourceConfig

if TYPE_CHECKING:
    from understudy.update.classifier import FrozenHead
    from understudy.update.maps import CompatibleMap
    from understudy.update.source import Source

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(SourceConfig):
    """Say what is updated; see `understudy.update.source_config.SourceConfig` for the items.

    Attributes:
        out: folder of the maps, the curves and of `result.json`.
        losses: of the maps that are compared.
        classifier: safetensors file of the new model's classification layer, as FILE or
            FILE:PREFIX; empty takes that of a new model that is trained here, or class means.
        with_side: give side information to the maps, where there is some.
        points: of each curve, both ends included.
        permutations: that stand for the random order.
        groups: column of groups of the test items, for the gap of the smallest one.
        minority: the group it is about instead.
    """

    out: Path = Path("runs/fastfill")
    losses: tuple[str, ...] = ("l2", "l2+disc", "l2+disc+unc")
    classifier: str = ""
    with_side: bool = True
    points: int = 11
    permutations: int = 3
    groups: str = ""
    minority: str = ""

    def __post_init__(self) -> None:
        from understudy.objectives.compatible import LOSSES

        SourceConfig.__post_init__(self)
        for loss in self.losses:
            check_choice(loss, LOSSES, "losses")
        if not self.losses or len(set(self.losses)) < len(self.losses):
            raise ConfigError(f"losses: expected different ones, got {list(self.losses)}.")
        if self.points < 2 or self.permutations < 1:
            raise ConfigError(
                f"points, permutations: expected at least 2 and 1, got {self.points} and "
                f"{self.permutations}."
            )
        if self.minority and not self.groups:
            raise ConfigError("minority: a group of which column? Name it (groups).")


def run(config: Config) -> Path:
    """Embed, fit a map for each loss, draw the curves of each order.

    Returns:
        the folder, with maps, curves and `result.json`.

    Raises:
        ConfigError: options that do not fit each other.
        DataError: rows, labels, a classifier or vectors that cannot be used.
    """
    from understudy.update.sample import cross_metrics
    from understudy.update.source import open_source

    extra = (config.groups,) if config.groups else ()
    source = open_source(config, config.out / "models", extra=extra)
    head = _head(config, source)
    test = source.test
    ends = {
        "old/old": cross_metrics(test.old, test.old, test.labels, config.metric),
        "new/new": cross_metrics(test.new, test.new, test.labels, config.metric),
    }
    found = {loss: _filled(config, source, loss, head) for loss in config.losses}
    result = {
        "recipe": "fastfill",
        "config": to_dict(config),
        "rows": {"train": len(source.train), "test": len(test)},
        "spaces": {part: str(space) for part, space in test.spaces.items()},
        "classifier": "class means" if head is None else head.origin,
        "updates": ends,
        "curves": {loss: curves for loss, (curves, _) in found.items()},
        "maps": {loss: facts for loss, (_, facts) in found.items()},
    }
    write_json(config.out / "result.json", result)
    return config.out


def _head(config: Config, source: Source) -> FrozenHead | None:
    """Return the new model's classifier, if one is at hand."""
    from understudy.update.classifier import FrozenHead, load_head

    if config.classifier:
        return load_head(config.classifier)
    model = source.models.get("new")
    if model is None:
        return None
    import torch

    layer: Any = model.image.head
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return FrozenHead(weight=layer.weight.float(), bias=bias.float(), origin="the new model's own")


def _filled(
    config: Config, source: Source, loss: str, head: FrozenHead | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit one map and return the curves of its orders, and what the map is."""
    from understudy.update.curve import backfill_curves
    from understudy.update.curve_files import to_plain, write_curves
    from understudy.update.curve_points import spearman
    from understudy.update.fit import fit_map
    from understudy.update.orders import distances

    test, side = source.test, config.with_side and source.test.side is not None
    fit = replace(config.fit, kind="transform", loss=loss, seed=config.seed)  # type: ignore[arg-type]
    out = config.out / "maps" / loss
    made = fit_map(source.train.pairs(side=side), fit, out, head=head if "disc" in loss else None)
    assert made.map is not None
    mapped, u = made.map.transform(test.old, test.side if side else None)
    groups = source.extra.get(config.groups)
    curves = backfill_curves(
        mapped,
        test.new,
        test.labels,
        _orders(config, source, mapped, u),
        points=config.points,
        groups=None if groups is None else groups.astype(str),
        minority=config.minority or None,
        metric=config.metric,
    )
    write_curves(curves, config.out / "curves" / loss)
    error = distances(mapped, test.new)
    facts = _facts(made.map, made.path, made.warnings)
    facts["spearman"] = None if u is None else spearman(u, error)
    return to_plain(curves), facts


def _facts(made: CompatibleMap, path: Path, odd: list[str]) -> dict[str, Any]:
    return {
        "map": str(path),
        "parameters": made.num_parameters,
        "flop_per_item": made.flops_per_item,
        "warnings": odd,
    }


def _orders(
    config: Config, source: Source, mapped: np.ndarray, u: np.ndarray | None
) -> dict[str, Any]:
    """Return positions by order; several permutations under `random`."""
    from understudy.update.orders import class_mean_distances, distances, order_of

    test = source.test
    ids = [str(name) for name in test.ids]
    seeds = range(config.permutations)
    first = config.permutations * config.seed
    orders: dict[str, Any] = {
        "random": [order_of("random", ids, seed=first + k) for k in seeds],
        "distance": order_of("distance", ids, scores=distances(mapped, test.new)),
        "class-mean": order_of("class-mean", ids, scores=class_mean_distances(mapped, test.labels)),
    }
    if u is not None:
        for policy in ("uncertainty", "ascending"):
            orders[policy] = order_of(policy, ids, scores=u)
    return orders
