"""Plan a backfill: which items of a gallery the new model is to encode, and in which order.

    from understudy.update.plan import PlanConfig, make_plan, write_plan
    plan = make_plan(store, PlanConfig(new="embed.new", policy="uncertainty", budget="0.2"))
    write_plan(plan, "plan.parquet")

Planned are the items that have a mapped vector and no vector of the new model's own. Items that
came after the update are encoded at once, so they are outside of the order. Every item counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy import __version__
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.data.exporters.common import store_uid
from understudy.data.spaces import space_of
from understudy.data.store import Store
from understudy.update.budget import parse_budget
from understudy.update.columns import mapped_column_of, scan_values, target_of
from understudy.update.orders import POLICIES, order_of
from understudy.update.plan_file import Plan, read_plan, write_plan
from understudy.update.plan_scores import policy_scores

__all__ = ["Plan", "PlanConfig", "check_plan", "make_plan", "read_plan", "write_plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What to plan.

    Attributes:
        new: column of the new model's own vectors, such as `embed.new`; need not be there yet.
        mapped: column of vectors mapped to that model; found by its name when empty.
        policy: uncertainty, ascending, random, distance or class-mean.
        budget: fraction of what is left (0.2), percentage (20%) or count (5000items).
        seed: of policy random.
        labels: column of classes, for class-mean.
        oracle: column with the new model's vectors of all items, for distance.

    Raises:
        ConfigError: an unknown policy, a wrong budget, no column.
    """

    new: str
    mapped: str = ""
    policy: str = "uncertainty"
    budget: str = "1.0"
    seed: int = 0
    labels: str = ""
    oracle: str = ""

    def __post_init__(self) -> None:
        if not self.new:
            raise ConfigError("plan: name the new model's column (such as embed.new).")
        check_choice(self.policy, POLICIES, "policy")
        if self.seed < 0:
            raise ConfigError(f"plan: seed must not be negative, got {self.seed}.")
        parse_budget(self.budget)


def make_plan(store: Store, config: PlanConfig) -> Plan:
    """Order the items that are left and cut the order at the budget.

    Args:
        store: with a mapped column.
        config: what to plan.

    Raises:
        DataError: no mapped column, or the policy lacks what it orders by.
        SpaceError: the two columns are of two models.
    """
    mapped = config.mapped or mapped_column_of(store, config.new)
    facts = _facts(store, config, mapped)
    there = store.filled(mapped)
    own = store.filled(config.new) if store.has(config.new) else np.zeros(store.num_rows, bool)
    wanted = there & ~own
    ids = scan_values(store, "id", wanted)
    scores = policy_scores(
        store, config.policy, mapped, wanted, labels=config.labels, oracle=config.oracle
    )
    order = order_of(config.policy, ids, scores=scores, seed=config.seed)
    planned, unspent = parse_budget(config.budget).of(len(order))
    order = order[:planned]
    chosen = ids.take(pa.array(order)).combine_chunks() if len(order) else pa.array([], pa.string())
    use_u = config.policy in ("uncertainty", "ascending") and scores is not None
    facts |= {
        "budget": config.budget,
        "rows": store.num_rows,
        "remaining": len(ids),
        "planned": planned,
        "unspent": unspent,
        "encoded": int(own.sum()),
        "absent": int((~there & ~own).sum()),
        "code_version": __version__,
    }
    return Plan(
        np.flatnonzero(wanted)[order].astype(np.int64),
        chosen,
        scores[order].astype(np.float32) if use_u and scores is not None else None,
        facts,
    )


def _facts(store: Store, config: PlanConfig, mapped: str) -> dict[str, Any]:
    target = target_of(store, mapped, config.new)
    space = space_of(store, mapped)
    return {
        "uid": store_uid(store),
        "new": config.new,
        "mapped": mapped,
        "new_space": target,
        "mapped_space": space.id,
        "map": space.fingerprint,
        "policy": config.policy,
        "seed": config.seed,
    }


_WHAT = {
    "uid": "another store",
    "new_space": "another new model (space)",
    "mapped_space": "vectors mapped from another space",
    "map": "another map",
}


def check_plan(plan: Plan, store: Store, where: str) -> None:
    """Refuse a plan that was made for something else than this store, space and map.

    Args:
        plan: what was planned.
        store: what is about to be backfilled.
        where: name of the plan, for the message.

    Raises:
        DataError: the message says what differs.
    """
    facts = plan.facts
    config = PlanConfig(new=facts["new"], policy=facts["policy"], seed=facts["seed"])
    if facts["uid"] != store_uid(store):
        found: dict[str, Any] = {"uid": store_uid(store)}
    elif not store.has(facts["mapped"]):
        raise DataError(
            f"{where}: was made for column '{facts['mapped']}', which {store.path} does not have "
            "(any more); plan again."
        )
    else:
        found = _facts(store, config, facts["mapped"])
    for name, what in _WHAT.items():
        if name in found and found[name] != facts[name]:
            raise DataError(
                f"{where}: the plan was made for {what} ({facts[name]}, here it is {found[name]}); "
                "plan again with 'understudy update plan'."
            )
    bad = (plan.rows < 0) | (plan.rows >= store.num_rows)
    if bad.any():
        row = int(plan.rows[np.argmax(bad)])
        raise DataError(f"{where}: row {row} does not exist; the store has {store.num_rows} rows.")
    _check_ids(plan, store, where)


def _check_ids(plan: Plan, store: Store, where: str) -> None:
    wanted = np.zeros(store.num_rows, bool)
    wanted[plan.rows] = True
    stored = scan_values(store, "id", wanted)
    planned = plan.ids.take(pa.array(np.argsort(plan.rows)))
    found, expected = stored.to_pylist(), planned.to_pylist()
    if found == expected:
        return
    i = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    raise DataError(
        f"{where}: row {int(np.sort(plan.rows)[i])} is '{found[i]}' in the store, but "
        f"'{expected[i]}' in the plan; plan again."
    )
