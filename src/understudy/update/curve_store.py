"""Curves of a store's gallery: rows, labels, orders and baselines read from its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.data.knowledge import decode_embeddings
from understudy.data.spaces import space_of
from understudy.data.store import Store
from understudy.evaluate.ranking import is_compatible, ranking_metrics, update_gain
from understudy.evaluate.ranking_vectors import METRICS, Vectors, blocks
from understudy.update.columns import (
    ColumnVectors,
    mapped_column_of,
    scan_values,
    target_of,
    uncertainty_column,
)
from understudy.update.curve import Curves, backfill_curves
from understudy.update.curve_points import cutoffs, spearman
from understudy.update.orders import (
    POLICIES,
    class_mean_distances,
    distances,
    order_of,
    random_order,
)
from understudy.update.plan import Plan, check_plan
from understudy.update.plan_scores import uncertainties

PLAN = "plan"
_IN_MEMORY = 1 << 30  # bytes of float32 up to which a column is held, not streamed


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveConfig:
    """Which curves to draw.

    Attributes:
        new: column of the new model's own vectors, filled in all rows that are scored.
        labels: column of classes: items of one class are relevant to each other.
        mapped: column of mapped vectors; found by its name when empty.
        old: column of the old model's vectors, for the baseline old/old; empty leaves it out.
        where: SQL condition on the rows to score.
        points: of the grid, ends included.
        orders: policies; empty takes all that the store has what they need for.
        permutations: random orders that the curve `random` is the mean of.
        groups: column of groups, for a fairness curve.
        minority: group that it is about; the smallest when empty.
        metric: l2 or cosine.
        seed: of the first random order.

    Raises:
        ConfigError: a value outside of what is allowed.
    """

    new: str
    labels: str
    mapped: str = ""
    old: str = ""
    where: str = ""
    points: int = 11
    orders: tuple[str, ...] = ()
    permutations: int = 3
    groups: str = ""
    minority: str = ""
    metric: str = "l2"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.metric, METRICS, "curve: metric")
        for name in self.orders:
            check_choice(name, (PLAN, *POLICIES), "curve: orders")
        if self.permutations < 1:
            raise ConfigError(f"curve: permutations must be at least 1, got {self.permutations}.")
        cutoffs(1, self.points)


def store_curves(
    store: Store, config: CurveConfig, plan: Plan | None = None, *, where: str = "plan"
) -> tuple[Curves, dict[str, Any]]:
    """Return the curves of a labelled part of a store, and facts about them.

    Args:
        store: where the columns are.
        config: which curves.
        plan: draw its order too; items that it leaves out because they were encoded before count
            as encoded from the start.
        where: name of the plan, for messages.

    Returns:
        The curves, and `items`, columns, `spearman` (of uncertainty and error), and with an old
        column `old_old`, `compatible` and `update_gain` (mAP, at fraction 0).

    Raises:
        DataError: a scored row has no vector or no label, or the plan covers a part only.
    """
    mapped = config.mapped or mapped_column_of(store, config.new)
    target_of(store, mapped, config.new)
    if plan is not None:
        check_plan(plan, store, where)
    wanted, labels = _rows(store, config, mapped)
    rows = np.flatnonzero(wanted)
    z, n = (_vectors(store, column, rows) for column in (mapped, config.new))
    u = uncertainties(store, mapped, wanted) if store.has(uncertainty_column(mapped)) else None
    error = np.concatenate([distances(z[b], n[b]) for b in blocks(len(rows), 4096)])
    orders: dict[str, Any] = {}
    for name in config.orders or _available(plan, u):
        if name in ("uncertainty", "ascending") and u is None:
            uncertainties(store, mapped, wanted)  # says what is missing
        score = {"uncertainty": u, "ascending": u, "distance": error}.get(name)
        if name == "class-mean":
            score = class_mean_distances(z[0 : len(rows)], labels)
        orders[name] = _order(store, config, name, rows, score, plan, where)
    curves = backfill_curves(
        z,
        n,
        labels,
        orders,
        points=config.points,
        groups=None if not config.groups else _groups(store, config.groups, wanted),
        minority=config.minority or None,
        metric=config.metric,
    )
    facts: dict[str, Any] = {
        "items": len(rows),
        "columns": {"new": config.new, "mapped": mapped, "labels": config.labels},
        "where": config.where,
        "spaces": {"new": space_of(store, config.new).id, "mapped": space_of(store, mapped).id},
        "spearman": None if u is None else spearman(u, error),
        "plan": None if plan is None else {**plan.facts, "fingerprint": plan.fingerprint},
    }
    if config.old:
        facts |= _baseline(store, config, rows, labels, curves)
    return curves, facts


def curve_cost(store: Store, config: CurveConfig, plan: Plan | None = None) -> dict[str, Any]:
    """Return what curves would take: items, orders, distances computed and bytes read."""
    mapped = config.mapped or mapped_column_of(store, config.new)
    target_of(store, mapped, config.new)
    wanted, labels = _rows(store, config, mapped)
    has_u = np.zeros(1) if store.has(uncertainty_column(mapped)) else None
    names = list(config.orders) or _available(plan, has_u)
    count, width = len(labels), ColumnVectors(store, mapped, np.flatnonzero(wanted)).shape[1]
    orders = len(names) - names.count("random") + names.count("random") * config.permutations
    return {
        "items": count,
        "orders": orders,
        "galleries": 2 + orders * (config.points - 2),
        "distances": 2 * count**2,
        "flops": 4 * count**2 * width,
        "bytes_read": 8 * count * width,
    }


def _rows(store: Store, config: CurveConfig, mapped: str) -> tuple[np.ndarray, list[Any]]:
    """Return bool [num_rows] of the rows to score, and their labels."""
    wanted = store.filled(mapped).copy()
    if config.where:
        wanted &= np.isin(np.arange(store.num_rows), store.where(config.where))
    labels = scan_values(store, config.labels, wanted)
    labelled = labels.is_valid().to_numpy()
    wanted[np.flatnonzero(wanted)[~labelled]] = False
    if not wanted.any():
        raise DataError(
            f"{store.path}: no row has a vector in '{mapped}' and a '{config.labels}'"
            f"{' where ' + config.where if config.where else ''}, so there is nothing to score."
        )
    encoded = store.filled(config.new) if store.has(config.new) else np.zeros_like(wanted)
    missing = wanted & ~encoded
    if missing.any():
        (name,) = store.take(np.flatnonzero(missing)[:1], ["id"]).column(0).to_pylist()
        raise DataError(
            f"{int(missing.sum())} of {int(wanted.sum())} labelled items have no vector in "
            f"'{config.new}' (the first is '{name}'), but a curve ends where all are encoded. "
            "Score a split that is encoded wholly (--where \"split = 'test'\"), encode it "
            "('understudy update encode'), or finish the backfill."
        )
    return wanted, labels.drop_null().to_pylist()


def _vectors(store: Store, column: str, rows: np.ndarray) -> Vectors:
    found = ColumnVectors(store, column, rows)
    if 4 * found.shape[0] * found.shape[1] > _IN_MEMORY:
        return found
    return decode_embeddings(store.array(column, rows), found.config).reshape(found.shape)


def _members(
    plan: Plan | None, rows: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the positions that orders are of, and the plan's order of them."""
    if plan is None:
        return np.arange(len(rows)), None
    if plan.facts["planned"] < plan.facts["remaining"]:
        raise DataError(
            f"{where}: the plan's budget covers {plan.facts['planned']} of "
            f"{plan.facts['remaining']} items, so its curve would end early; plan with --budget "
            "1.0 for a curve (the first items are the same ones)."
        )
    rank = {int(row): i for i, row in enumerate(plan.rows)}
    ranks = np.array([rank.get(int(row), -1) for row in rows])
    members = np.flatnonzero(ranks >= 0)
    if not len(members):
        raise DataError(f"{where}: none of the scored rows is in the plan.")
    return members, members[np.argsort(ranks[members])]


def _available(plan: Plan | None, u: np.ndarray | None) -> list[str]:
    found = [PLAN] if plan is not None else []
    found += ["uncertainty", "ascending"] if u is not None else []
    return [*found, "random", "distance"]


def _order(
    store: Store,
    config: CurveConfig,
    policy: str,
    rows: np.ndarray,
    scores: np.ndarray | None,
    plan: Plan | None,
    where: str,
) -> np.ndarray | list[np.ndarray]:
    """Return the positions of a policy's order, or of several random ones."""
    members, planned = _members(plan, rows, where)
    if policy == PLAN:
        if planned is None:
            raise ConfigError("curve: order 'plan' needs a plan (--plan FILE).")
        return planned
    if policy == "random":
        seeds = range(config.seed, config.seed + config.permutations)
        return [members[random_order(len(members), seed)] for seed in seeds]
    wanted = np.zeros(store.num_rows, bool)
    wanted[rows[members]] = True
    ids = scan_values(store, "id", wanted)
    own = None if scores is None else scores[members]
    return members[order_of(policy, ids, scores=own)]


def _groups(store: Store, column: str, wanted: np.ndarray) -> list[str]:
    return [str(value) for value in scan_values(store, column, wanted).to_pylist()]


def _baseline(
    store: Store, config: CurveConfig, rows: np.ndarray, labels: list[Any], curves: Curves
) -> dict[str, Any]:
    """Return the old model's own scores and what the map alone gains over them."""
    old = _vectors(store, config.old, rows)
    own = np.arange(len(rows))
    found = ranking_metrics(old, old, labels, labels, own=own, metric=config.metric)
    curve = next(iter(curves.orders.values())).metrics["map"]
    better = curve[-1] > found["map"]
    return {
        "old_old": found,
        "compatible": is_compatible(curve[0], found["map"]),
        "update_gain": update_gain(curve[0], found["map"], curve[-1]) if better else None,
    }
