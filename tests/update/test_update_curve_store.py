"""Curves of a store: rows, orders, plan and baselines from its columns."""

from __future__ import annotations

import numpy as np
import pytest
from backfill_world import (
    MAPPED_COLUMN,
    NEW,
    NEW_COLUMN,
    OLD,
    ToyEncoder,
    make_world,
    write_column,
)

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.ranking import ranking_metrics
from understudy.update.backfill import BackfillConfig, backfill
from understudy.update.curve import backfill_curves
from understudy.update.curve_points import spearman
from understudy.update.curve_store import CurveConfig, curve_cost, store_curves
from understudy.update.orders import distances, order_by_score, random_order
from understudy.update.plan import PlanConfig, make_plan


def config(**options):
    return CurveConfig(**{"new": NEW_COLUMN, "labels": "label", "points": 5, **options})


@pytest.fixture
def world(tmp_path):
    store, z, n, u = make_world(tmp_path / "s", rows=90)
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    write_column(store, NEW_COLUMN, NEW, n, np.arange(90))
    return store, z, n, u, plan


def test_orders_of_the_store(world):
    store, z, n, u, plan = world
    curves, facts = store_curves(store, config(), plan)
    assert list(curves.orders) == ["plan", "uncertainty", "ascending", "random", "distance"]
    ids, labels = store.array("id").tolist(), store.array("label")
    orders = {
        "plan": plan.rows,
        "uncertainty": order_by_score(u, ids),
        "ascending": order_by_score(u, ids, ascending=True),
        "random": [random_order(90, seed) for seed in range(3)],
        "distance": order_by_score(distances(z, n), ids),
    }
    assert curves == backfill_curves(z, n, labels, orders, points=5)
    assert curves.orders["plan"] == curves.orders["uncertainty"]
    assert curves.orders["random"].permutations == 3
    assert facts["spearman"] == pytest.approx(spearman(u, distances(z, n)))
    assert facts["plan"]["fingerprint"] == plan.fingerprint
    assert facts["items"] == 90


def test_streamed_and_held_columns_give_the_same(world, monkeypatch):
    store, *_, plan = world
    held = store_curves(store, config(), plan)
    monkeypatch.setattr("understudy.update.curve_store._IN_MEMORY", 0)
    assert store_curves(store, config(), plan) == held


def test_items_encoded_before_the_plan_start_encoded(tmp_path):
    store, z, n, _ = make_world(tmp_path / "s", encoded=range(20))
    plan = make_plan(store, PlanConfig(new=NEW_COLUMN))
    backfill(store, plan, ToyEncoder(), BackfillConfig(input="text"))
    curves, _ = store_curves(store, config(orders=("plan", "random")), plan)
    assert curves.cutoffs[-1] == 40
    labels, gallery = store.array("label"), z.copy()
    gallery[:20] = n[:20]
    first = ranking_metrics(n, gallery, labels, labels, own=np.arange(60))
    assert curves.orders["plan"].metrics["map"][0] == first["map"]


def test_a_condition_chooses_the_rows(world):
    store, z, n, u, _ = world
    curves, facts = store_curves(store, config(where="label < 3", orders=("uncertainty",)))
    rows = np.flatnonzero(store.array("label") < 3)
    ids = [store.array("id")[i] for i in rows]
    order = order_by_score(u[rows], ids)
    labels = store.array("label")[rows]
    assert facts["items"] == len(rows)
    assert curves == backfill_curves(z[rows], n[rows], labels, {"uncertainty": order}, points=5)


def test_baseline_and_groups(world):
    store, *_ = world
    old = np.random.default_rng(0).standard_normal((90, OLD.dim)).astype(np.float32)
    write_column(store, "embed.old", OLD, old, np.arange(90))
    curves, facts = store_curves(store, config(old="embed.old", groups="brand"))
    labels = store.array("label")
    own = ranking_metrics(old, old, labels, labels, own=np.arange(90))
    ends = curves.orders["random"].metrics["map"]
    assert facts["old_old"] == own
    assert facts["compatible"] == (ends[0] > own["map"])
    gain = (ends[0] - own["map"]) / (ends[-1] - own["map"])
    assert facts["update_gain"] == pytest.approx(gain)
    assert curves.minority in ("b0", "b1")
    assert len(curves.orders["random"].gap) == 5


def test_what_cannot_be_drawn(world, tmp_path):
    store, _, n, _, plan = world
    part, *_ = make_world(tmp_path / "part", encoded=range(10), uncertainty=False)
    with pytest.raises(DataError, match="50 of 60 labelled items have no vector in 'embed.new'"):
        store_curves(part, config())
    write_column(part, "embed.full", NEW, n[:60], np.arange(60))
    full = config(new="embed.full", mapped=MAPPED_COLUMN, orders=("uncertainty",))
    with pytest.raises(DataError, match="no uncertainty head"):
        store_curves(part, full)
    short = make_plan(make_world(tmp_path / "o")[0], PlanConfig(new=NEW_COLUMN, budget="0.2"))
    with pytest.raises(DataError, match="made for another store"):
        store_curves(store, config(), short)
    budgeted = type(plan)(plan.rows[:10], plan.ids[:10], plan.u[:10], {**plan.facts, "planned": 10})
    with pytest.raises(DataError, match="covers 10 of 90 items.*--budget 1.0"):
        store_curves(store, config(), budgeted)
    with pytest.raises(ConfigError, match="order 'plan' needs a plan"):
        store_curves(store, config(orders=("plan",)))
    with pytest.raises(DataError, match="no row has a vector"):
        store_curves(store, config(where="label > 99"))
    with pytest.raises(ConfigError, match="points must be at least 2"):
        config(points=1)
    with pytest.raises(ConfigError, match="'oracle' is not one of"):
        config(orders=("oracle",))


def test_cost(world):
    store, *_, plan = world
    cost = curve_cost(store, config(), plan)
    assert cost["items"] == 90
    assert cost["orders"] == 7
    assert cost["galleries"] == 2 + 7 * 3
    assert cost["distances"] == 2 * 90**2
