"""Curves against an independent implementation, invariants of grid, ends and areas."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.ranking import ranking_metrics
from understudy.update.curve import backfill_curves
from understudy.update.curve_files import to_plain, write_curves
from understudy.update.curve_points import (
    auc,
    beta_reaching,
    curve_of,
    cutoffs,
    spearman,
    trapezoid,
)
from understudy.update.orders import distances, order_by_score


def world(seed, n=40, dim=6, classes=5, noise=1.0):
    """Return z, n and labels: clustered new vectors, mapped ones with errors of their own size."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:2] = 0
    new = (rng.standard_normal((classes, dim))[labels] * 1.5).astype(np.float32)
    new += rng.standard_normal((n, dim)).astype(np.float32) * 0.7
    error = rng.standard_normal((n, dim)) * rng.exponential(noise, (n, 1))
    return (new + error).astype(np.float32), new, labels


def plain_curve(z, n, labels, order, grid):
    """One gallery a point, one query at a time, ranked by a full sort."""
    out = {"cmc_1": [], "cmc_5": [], "map": []}
    rank = {int(item): r for r, item in enumerate(order)}
    for cutoff in grid:
        gallery = [n[i] if rank[i] < cutoff else z[i] for i in range(len(n))]
        hits = {1: [], 5: []}
        precisions = []
        for i, query in enumerate(n):
            items = [j for j in range(len(n)) if j != i]
            if not any(labels[j] == labels[i] for j in items):
                continue
            d = {j: float(((np.float64(query) - np.float64(gallery[j])) ** 2).sum()) for j in items}
            ranked = sorted(items, key=lambda j: (d[j], j))
            relevant = [labels[j] == labels[i] for j in ranked]
            for k in hits:
                hits[k].append(any(relevant[:k]))
            seen, terms = 0, []
            for place, yes in enumerate(relevant, start=1):
                seen += yes
                if yes:
                    terms.append(seen / place)
            precisions.append(sum(terms) / len(terms))
        out["cmc_1"].append(np.mean(hits[1]))
        out["cmc_5"].append(np.mean(hits[5]))
        out["map"].append(np.mean(precisions))
    return out


def test_all_720_orders_of_six_items():
    z, n, _ = world(3, n=6, dim=3)
    labels = [0, 0, 1, 1, 0, 1]
    orders = {"".join(map(str, o)): np.array(o) for o in itertools.permutations(range(6))}
    found = backfill_curves(z, n, labels, orders, points=4)
    assert found.cutoffs == [0, 2, 4, 6]
    assert len(found.orders) == 720
    for name, order in orders.items():
        expected = plain_curve(z, n, labels, order, found.cutoffs)
        curve = found.orders[name]
        for metric, values in expected.items():
            assert curve.metrics[metric] == pytest.approx(values, abs=1e-12)
            assert curve.auc[metric] == pytest.approx(np.mean(values), abs=1e-12)
    # The ends do not depend on the order, and the oracle's order need not be the best one.
    assert len({(c.metrics["map"][0], c.metrics["map"][-1]) for c in found.orders.values()}) == 1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    points=st.integers(2, 9),
    block=st.integers(1, 50),
    query_block=st.integers(1, 50),
    metric=st.sampled_from(["l2", "cosine"]),
)
def test_each_point_is_the_ranking_of_its_mixed_gallery(seed, points, block, query_block, metric):
    z, n, labels = world(seed)
    rng = np.random.default_rng(seed)
    orders = {"a": rng.permutation(40), "b": rng.permutation(40)}
    blocks = {"block": block, "query_block": query_block, "metric": metric}
    found = backfill_curves(z, n, labels, orders, points=points, **blocks)
    for name, order in orders.items():
        for i, cutoff in enumerate(found.cutoffs):
            gallery = z.copy()
            gallery[order[:cutoff]] = n[order[:cutoff]]
            own = ranking_metrics(n, gallery, labels, labels, own=np.arange(40), metric=metric)
            point = {m: v[i] for m, v in found.orders[name].metrics.items()}
            assert point == {m: own[m] for m in point}  # to the last bit


def test_ends_do_not_depend_on_the_order_and_the_last_is_new_on_new():
    z, n, labels = world(0)
    z *= 40  # longer vectors than the queries'
    orders = {s: np.random.default_rng(s).permutation(40) for s in range(5)}
    found = backfill_curves(z, n, labels, {str(s): o for s, o in orders.items()}, points=3)
    new_new = ranking_metrics(n, n, labels, labels, own=np.arange(40))
    for curve in found.orders.values():
        assert curve.metrics["map"][-1] == new_new["map"]
        assert curve.metrics["cmc_1"][-1] == new_new["cmc_1"]
    assert len({c.metrics["map"][0] for c in found.orders.values()}) == 1
    assert found.queries == new_new["queries"]


def test_flat_when_the_map_is_perfect():
    _, n, labels = world(1)
    orders = {str(s): np.random.default_rng(s).permutation(40) for s in range(3)}
    found = backfill_curves(n, n, labels, orders, points=7)
    new_new = ranking_metrics(n, n, labels, labels, own=np.arange(40))
    for curve in found.orders.values():
        assert set(curve.metrics["map"]) == {new_new["map"]}
        assert curve.auc["map"] == pytest.approx(new_new["map"], abs=1e-15)
        assert curve.beta_95["map"] == 0.0
        assert curve.violations["map"] == 0


def test_grid_and_areas():
    assert cutoffs(10, 5) == [0, 2, 5, 7, 10]  # n = 10, B = 3
    assert cutoffs(719, 11)[1] == 71
    line = [0.3 + 0.4 * i / 10 for i in range(11)]
    assert auc(line) == pytest.approx(0.5)
    assert trapezoid(line) == pytest.approx(0.5)
    bent = [0.0, 1.0, 1.0]
    assert auc(bent) == pytest.approx(2 / 3)
    assert trapezoid(bent) == pytest.approx(0.75)
    with pytest.raises(ConfigError, match="points must be at least 2"):
        cutoffs(10, 1)


def test_beta_95_and_falls():
    fractions = [0.0, 0.25, 0.5, 0.75, 1.0]
    curve = curve_of({"map": [0.5, 0.96, 0.9, 1.1, 1.0]}, fractions)
    assert curve.beta_95["map"] == 0.25
    assert curve.violations["map"] == 2
    assert curve.largest_fall["map"] == pytest.approx(0.1)
    assert beta_reaching(fractions, [0.0, 0.0, 0.0, 0.0, 1.0]) == 1.0


def test_random_is_the_mean_of_its_permutations():
    z, n, labels = world(4)
    three = [np.random.default_rng(s).permutation(40) for s in range(3)]
    mean = backfill_curves(z, n, labels, {"random": three}, points=6).orders["random"]
    each = backfill_curves(z, n, labels, {str(i): o for i, o in enumerate(three)}, points=6)
    assert mean.permutations == 3
    aucs = [c.auc["map"] for c in each.orders.values()]
    assert mean.auc["map"] == pytest.approx(np.mean(aucs))
    assert mean.each["map"] == pytest.approx(aucs)


def test_oracle_beats_random_beats_reversed():
    z, n, labels = world(5, n=200)
    ids = [f"i{i:03d}" for i in range(200)]
    error = distances(z, n)
    orders = {
        "oracle": order_by_score(error, ids),
        "reversed": order_by_score(error, ids, ascending=True),
        "random": [np.random.default_rng(s).permutation(200) for s in range(3)],
    }
    found = {k: c.auc["map"] for k, c in backfill_curves(z, n, labels, orders).orders.items()}
    assert found["reversed"] < found["random"] < found["oracle"]


def test_items_outside_of_the_order_are_encoded_from_the_start():
    z, n, labels = world(6)
    order = np.random.default_rng(0).permutation(40)[:25]
    found = backfill_curves(z, n, labels, {"a": order}, points=6)
    assert found.cutoffs == [0, 5, 10, 15, 20, 25]
    gallery = n.copy()
    gallery[order] = z[order]
    first = ranking_metrics(n, gallery, labels, labels, own=np.arange(40))
    assert found.orders["a"].metrics["map"][0] == first["map"]


def test_queries_of_their_own():
    z, n, labels = world(7)
    queries = n[:10] + 0.1
    found = backfill_curves(
        z, n, labels, {"a": np.arange(40)}, queries=queries, query_labels=labels[:10]
    )
    expected = ranking_metrics(queries, n, labels[:10], labels)
    assert found.orders["a"].metrics["map"][-1] == expected["map"]


def test_fairness_curve():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 30 + [1] * 30 + [2] * 10)
    new = np.eye(3)[labels] * 4 + rng.standard_normal((70, 3)) * 0.3
    z = new.copy()
    z[60:] = new[:10]  # the map takes the small class for the first one
    groups = np.where(labels == 2, "few", "many")
    badly = np.concatenate([np.arange(60, 70), np.arange(60)])
    orders = {"few first": badly, "few last": badly[::-1].copy()}
    found = backfill_curves(z, new, labels, orders, points=8, groups=groups)
    first, last = found.orders["few first"], found.orders["few last"]
    assert found.minority == "few"
    assert first.gap[0] == last.gap[0] > 0.3
    assert first.gap[-1] == last.gap[-1] == pytest.approx(0.0, abs=0.05)
    assert first.gap[1] == pytest.approx(0.0, abs=0.05)
    assert first.gap_auc < last.gap_auc - 0.2
    assert first.gap_auc == pytest.approx(np.mean(first.gap))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_spearman_against_scipy(pairs):
    from scipy.stats import spearmanr

    a, b = np.array(pairs, float).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(spearman(a, b))
        return
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_files(tmp_path):
    from PIL import Image

    z, n, labels = world(8)
    found = backfill_curves(
        z, n, labels, {"a": np.arange(40), "b": np.arange(40)[::-1].copy()}, groups=labels % 2
    )
    paths = write_curves(found, tmp_path, {"policy": "a"})
    data = json.loads(paths[0].read_text())
    assert data["kind"] == "backfilling curves"
    assert data["policy"] == "a"
    assert data["orders"] == to_plain(found)["orders"]
    lines = paths[1].read_text().splitlines()
    assert lines[0] == "order,point,fraction,items,cmc_1,cmc_5,map,gap"
    assert len(lines) == 1 + 2 * 11
    assert float(lines[11].split(",")[6]) == found.orders["a"].metrics["map"][10]
    with Image.open(paths[2]) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(100_000)}
    assert {(0x25, 0x63, 0xEB), (0xB4, 0x23, 0x18)} <= colours  # two lines were drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orders": {"a": np.array([0, 1, 1, 2])}}, "order 'a' is not a permutation"),
        ({"orders": {"a": np.array([0, 9])}}, "order 'a' is not a permutation"),
        ({"orders": {"a": np.arange(4), "b": np.arange(3)}}, "order 'b' names other items"),
        ({"orders": {}}, "name at least one order"),
        ({"mapped": np.ones((4, 3))}, r"mapped \[4, 3\] and encoded \[4, 2\] differ"),
        ({"labels": [0, 0, 1]}, "3 query labels for 4 vectors"),
        ({"queries": np.ones((2, 2))}, "queries of their own need query_labels"),
        ({"labels": [0, 1, 2, 3]}, "no query has an item of its label"),
    ],
)
def test_bad_input(change, message):
    good = {
        "mapped": np.eye(2)[[0, 1, 0, 1]],
        "encoded": np.eye(2)[[0, 1, 0, 1]],
        "labels": [0, 0, 1, 1],
        "orders": {"a": np.arange(4)},
    }
    with pytest.raises(DataError, match=message):
        backfill_curves(**{**good, **change})
