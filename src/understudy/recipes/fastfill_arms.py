"""The arms of the fastfill claim: one trained map, several orders of encoding a gallery again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.seeds import rng
from understudy.evaluate.claims import Context

if TYPE_CHECKING:
    from understudy.update.curve import Curves
    from understudy.update.maps import CompatibleMap
    from understudy.update.sample import Sample

FULL = "l2+disc+unc"
POINTS = 11
RANDOM = 3
"""Permutations that stand for the random order."""
MINORITY, KEPT, AFTER = 1, 0.1, 0.2
"""The fairness variant: a digit of which the old model saw a tenth; the gap is read after a fifth
of the gallery was encoded."""
ARMS: dict[str, str] = {
    "fct": "map of loss l2, random order: the main baseline",
    "fct-disc": "map of loss l2+disc, random order",
    "random": "map of loss l2+disc+unc, random order, mean of three permutations",
    "uncertainty": "the same map, most uncertain first",
    "reversed": "control: the same map, least uncertain first",
    "oracle": "the same map, largest true error first: needs what backfilling would give",
    "index": "control: the same map, by item number",
    "wrong-labels": "control: the same map, most uncertain first by a map trained on wrong labels",
    "fair-random": "an old model that saw a tenth of one digit, random order",
    "fair-uncertainty": "the same, most uncertain first",
    "hot-refresh": "no map: a gallery of old vectors refreshed by a compatible model, random order",
}
LOSSES = {"fct": "l2", "fct-disc": "l2+disc"}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Train models and maps of the seed; write the vectors, mapped ones included."""
    from understudy.update.small_update import SmallUpdate

    folder, settings = context.seed_dir, context.settings
    update = SmallUpdate(folder, seed, settings)
    models = update.train()
    fair = {**models, "old": update.train(keep=KEPT, minority=MINORITY)["old"]}
    files = {"main": update.write(models), "fair": update.write(fair, "-fair")}
    maps = {}
    for name, (which, loss) in {
        "fct": ("main", "l2"),
        "fct-disc": ("main", "l2+disc"),
        "full": ("main", FULL),
        "wrong-labels": ("main", FULL),
        "fair": ("fair", FULL),
    }.items():
        maps[name] = str(_fit(files[which], loss, seed, context, name))
    return {"files": files, "maps": maps}


def _fit(files: dict[str, str], loss: str, seed: int, context: Context, name: str) -> Path:
    """Learn one map with the new model's frozen classifier."""
    from understudy.update.classifier import load_head
    from understudy.update.fit import fit_map
    from understudy.update.small_update import map_config, read_samples

    train, _ = read_samples(files)
    if name == "wrong-labels":
        shuffled = rng("wrong labels", seed).permutation(len(train))
        train = replace(train, labels=train.labels[shuffled])
    head = load_head(files["head"]) if "disc" in loss else None
    config = map_config(context.settings, seed, loss)
    out = context.seed_dir / "maps" / name
    return fit_map(train.pairs(), config, out, head=head).path


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Backfill the gallery in the arm's order and integrate the curve."""
    from understudy.update.maps import load_map
    from understudy.update.small_update import read_samples

    files, maps = context.prepared["files"], context.prepared["maps"]
    fair = arm.startswith("fair")
    _, test = read_samples(files["fair" if fair else "main"])
    if arm == "hot-refresh":
        return _hot_refresh(test, seed, context)
    made = load_map(maps[arm if arm in LOSSES else "fair" if fair else "full"])
    mapped, u = made.transform(test.old)
    other = load_map(maps["wrong-labels"]) if arm == "wrong-labels" else None
    orders = _orders(arm.removeprefix("fair-"), test, mapped, u, other, seed)
    groups = (test.labels == MINORITY).astype(np.int64) if fair else None
    found = _numbers(_curves(mapped, test, orders, groups))
    if u is not None:
        from understudy.update.curve_points import spearman
        from understudy.update.orders import distances

        found["spearman"] = spearman(u, distances(mapped, test.new))
    return found


def _orders(
    kind: str,
    test: Sample,
    mapped: np.ndarray,
    u: np.ndarray | None,
    other: CompatibleMap | None,
    seed: int,
) -> list[np.ndarray]:
    """Return the order of an arm, or several permutations for a random one."""
    from understudy.update.orders import distances, order_of

    ids = [str(name) for name in test.ids]
    if kind == "index":
        return [np.arange(len(test))]
    if other is not None:
        return [order_of("uncertainty", ids, scores=other.transform(test.old)[1])]
    if kind == "oracle":
        return [order_of("distance", ids, scores=distances(mapped, test.new))]
    if kind in ("uncertainty", "reversed"):
        policy = "uncertainty" if kind == "uncertainty" else "ascending"
        return [order_of(policy, ids, scores=u)]
    return [order_of("random", ids, seed=RANDOM * seed + k) for k in range(RANDOM)]


def _curves(
    mapped: np.ndarray, test: Sample, orders: list[np.ndarray], groups: np.ndarray | None = None
) -> Curves:
    from understudy.update.curve import backfill_curves

    minority = None if groups is None else 1
    return backfill_curves(
        mapped,
        test.new,
        test.labels,
        {"arm": orders},
        points=POINTS,
        groups=groups,
        minority=minority,
    )


def _numbers(curves: Curves) -> dict[str, float]:
    """Return the areas, the ends and the fall of the gap of one order."""
    curve = curves.orders["arm"]
    found = {f"auc_{name}": value for name, value in curve.auc.items()}
    found |= {"at_0": curve.metrics["map"][0], "at_1": curve.metrics["map"][-1]}
    found |= {"beta_95": curve.beta_95["map"], "violations": float(curve.violations["map"])}
    if curve.gap:
        place = curves.fractions.index(AFTER)
        found |= {"gap_at_0": curve.gap[0], "gap_fall": curve.gap[0] - curve.gap[place]}
    return found


def _hot_refresh(test: Sample, seed: int, context: Context) -> dict[str, float]:
    """Refresh a gallery of old vectors item by item with those of a compatible model."""
    from understudy.update.small_update import SmallUpdate
    from understudy.update.trained import embed, space_of_model

    update = SmallUpdate(context.seed_dir, seed, context.settings)
    model = update.compatible(context.arm_dir / "model", refresh=1.0)
    own = embed(model, update.store, update.store.where("split = 'test'"))
    sample = replace(
        test,
        vectors={"old": test.old, "new": own},
        spaces={"old": test.spaces["old"], "new": space_of_model(model)},
    )
    orders = _orders("random", sample, sample.old, None, None, seed)
    return _numbers(_curves(sample.old, sample, orders))
