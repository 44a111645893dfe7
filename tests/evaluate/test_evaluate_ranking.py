"""CMC and mAP against independent implementations, ties, singletons, block sizes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.ranking import (
    is_compatible,
    ranking_metrics,
    rankings,
    update_gain,
)
from understudy.evaluate.ranking_groups import cmc_gap, group_cmc, smallest_group


def plain_metrics(queries, gallery, ql, gl, own, metric, ks):
    """Straight from the definitions, one query and one item at a time."""

    def unit(v):
        n = math.sqrt(sum(x * x for x in v))
        return [x / n for x in v]

    if metric == "cosine":
        queries, gallery = [unit(q) for q in queries], [unit(g) for g in gallery]
    hits, aps, excluded = {k: [] for k in ks}, [], 0
    for i, q in enumerate(queries):
        items = [
            (sum((a - b) ** 2 for a, b in zip(q, g)), j)
            for j, g in enumerate(gallery)
            if own is None or j != own[i]
        ]
        relevant = [d for d, j in items if gl[j] == ql[i]]
        if not relevant:
            excluded += 1
            continue
        ranked = sorted(items)  # by distance, then by row
        for k in ks:
            hits[k].append(any(gl[j] == ql[i] for _, j in ranked[:k]))
        ap, seen = 0.0, 0
        for threshold in sorted(set(relevant)):
            inside = [j for d, j in items if d <= threshold]
            positives = sum(gl[j] == ql[i] for j in inside)
            ap += (positives - seen) / len(relevant) * positives / len(inside)
            seen = positives
        aps.append(ap)
    out = {f"cmc_{k}": sum(v) / len(v) for k, v in hits.items()}
    return {**out, "map": sum(aps) / len(aps), "queries": len(aps), "excluded": excluded}


def scikit_map(vectors, labels):
    from sklearn.metrics import average_precision_score

    found = []
    for i in range(len(vectors)):
        rest = np.arange(len(vectors)) != i
        relevant = labels[rest] == labels[i]
        if relevant.any():
            distance = ((vectors[rest] - vectors[i]) ** 2).sum(1)
            found.append(average_precision_score(relevant, -distance))
    return float(np.mean(found))


def smallest_gap(queries, gallery, metric):
    """Return the smallest difference of two distances of a query that are not the same."""
    queries, gallery = queries.astype(float), gallery.astype(float)
    if metric == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery = np.unique(gallery, axis=0)
    table = np.linalg.norm(queries[:, None] - gallery, axis=2)
    return np.diff(np.sort(table, axis=1), axis=1).min()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fifty_points_with_ties_and_singletons(data):
    n = data.draw(st.integers(3, 50))
    dim = data.draw(st.integers(1, 3))
    # few distinct coordinates: many ties; few points a class: singletons
    cells = st.lists(st.integers(-2, 2), min_size=dim, max_size=dim)
    vectors = np.array(data.draw(st.lists(cells, min_size=n, max_size=n)), float)
    labels = np.array(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)))
    if np.unique(labels, return_counts=True)[1].max() == 1:
        labels[:2] = 0
    block, query_block = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    own = np.arange(n)
    found = ranking_metrics(
        vectors, vectors, labels, labels, own=own, block=block, query_block=query_block
    )
    expected = plain_metrics(vectors.tolist(), vectors.tolist(), labels, labels, own, "l2", (1, 5))
    assert found == pytest.approx(expected, abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["map"] == pytest.approx(scikit_map(vectors, labels), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(["l2", "cosine"]),
    block=st.integers(1, 70),
    query_block=st.integers(1, 70),
)
def test_random_floats_in_any_blocks(seed, metric, block, query_block):
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((50, 7)).astype(np.float32)
    gallery[10:20] = gallery[rng.integers(0, 10, 10)]  # equal vectors are ties
    queries = rng.standard_normal((20, 7)).astype(np.float32) * 3
    ql, gl = rng.integers(0, 8, 20), rng.integers(0, 8, 50)
    own = rng.integers(-1, 50, 20)
    whole = rankings(queries, gallery, ql, gl, own=own, metric=metric)
    cut = rankings(
        queries, gallery, ql, gl, own=own, metric=metric, block=block, query_block=query_block
    )
    assert np.array_equal(whole.precision, cut.precision, equal_nan=True)
    assert np.array_equal(whole.first, cut.first)
    if smallest_gap(queries, gallery, metric) < 1e-5:
        return  # nearer to a tie than vectors are read; ties proper are in the test above
    found = ranking_metrics(queries, gallery, ql, gl, own=own, metric=metric, block=block)
    expected = plain_metrics(
        queries.astype(float).tolist(), gallery.astype(float).tolist(), ql, gl, own, metric, (1, 5)
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_perfect_and_random_embeddings():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    perfect = ranking_metrics(
        np.eye(5)[labels], np.eye(5)[labels], labels, labels, own=np.arange(200)
    )
    assert perfect["cmc_1"] == perfect["cmc_5"] == perfect["map"] == 1.0
    noise = rng.standard_normal((200, 16))
    chance = ranking_metrics(noise, noise, labels, labels, own=np.arange(200))
    assert chance["map"] == pytest.approx(39 / 199, abs=0.03)


def test_all_equal_vectors_score_the_class_share():
    labels = np.repeat([0, 1], 10)
    same = np.full((20, 4), 0.1, np.float32)
    found = ranking_metrics(same, same, labels, labels, own=np.arange(20), block=7)
    assert found["map"] == pytest.approx(9 / 19)


def test_orthogonal_copy_ranks_alike():
    rng = np.random.default_rng(1)
    x = rng.integers(-50, 50, (60, 6)).astype(float)
    labels = rng.integers(0, 6, 60)
    turn = np.eye(6)[rng.permutation(6)] * rng.choice([-1.0, 1.0], 6)
    a = rankings(x, x, labels, labels, own=np.arange(60))
    b = rankings(x @ turn, x @ turn, labels, labels, own=np.arange(60))
    assert np.array_equal(a.precision, b.precision)
    assert np.array_equal(a.first, b.first)


def test_step_does_not_depend_on_the_gallery():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((80, 8)).astype(np.float32)
    labels = rng.integers(0, 6, 80)
    alone = rankings(x, x, labels, labels)
    far = np.concatenate([x, 8 * x + 50])  # unlabelled and farther than everything
    more = rankings(x, far, labels, np.concatenate([labels, np.full(80, -1)]))
    assert np.array_equal(alone.precision, more.precision)


def test_self_match_is_left_out_and_singletons_are_counted():
    vectors = np.array([[0.0], [1.0], [5.0]])
    found = ranking_metrics(vectors, vectors, list("aab"), list("aab"), own=[0, 1, 2])
    assert found == {"cmc_1": 1.0, "cmc_5": 1.0, "map": 1.0, "queries": 2, "excluded": 1}
    kept = ranking_metrics(vectors, vectors, list("aab"), list("aab"))
    assert kept["queries"] == 3


def test_labels_of_any_kind_and_missing_ones():
    x = np.arange(6.0)[:, None]
    numbers = ranking_metrics(x, x, [0, 0, 1, 1, -1, -1], [0, 0, 1, 1, -1, -1], own=range(6))
    names = [*"aabb", None, None]
    assert numbers == ranking_metrics(x, x, names, names, own=range(6))
    assert numbers["excluded"] == 2


def test_of_equally_near_items_the_lower_row_is_first():
    gallery = np.zeros((3, 2))
    first = ranking_metrics(np.zeros((1, 2)), gallery, [1], [1, 0, 0], ks=(1,))
    later = ranking_metrics(np.zeros((1, 2)), gallery, [1], [0, 0, 1], ks=(1, 3), block=1)
    assert first["cmc_1"] == 1.0
    assert later["cmc_1"] == 0.0
    assert later["cmc_3"] == 1.0
    assert first["map"] == later["map"] == pytest.approx(1 / 3)


class _Disk:
    """Rows that only exist a slice at a time."""

    def __init__(self, array):
        self.array, self.largest = array, 0
        self.shape = array.shape

    def __getitem__(self, part):
        self.largest = max(self.largest, part.stop - part.start)
        return self.array[part]


def test_galleries_stream(tmp_path):
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((300, 5)).astype(np.float32), rng.integers(0, 30, 300)
    np.save(tmp_path / "x.npy", x)
    disk = _Disk(np.load(tmp_path / "x.npy", mmap_mode="r"))
    found = ranking_metrics(x[:50], disk, labels[:50], labels, own=np.arange(50), block=64)
    assert disk.largest == 64
    assert found == ranking_metrics(x[:50], x, labels[:50], labels, own=np.arange(50))


def test_cosine_uses_the_two_norm():
    # by the 1-norm, [3, 3] and [1, 1] would be as long as [6, 0] and [2, 0]
    queries, gallery = np.array([[1.0, 0.2]]), np.array([[1.0, 1.0], [10.0, 0.0]])
    assert ranking_metrics(queries, gallery, [1], [0, 1], metric="cosine")["cmc_1"] == 1.0
    assert ranking_metrics(queries, gallery, [1], [0, 1], metric="l2")["cmc_1"] == 0.0


def test_criterion_and_gain():
    assert is_compatible(0.5, 0.4)
    assert not is_compatible(0.4, 0.4)
    assert update_gain(0.618, 0.464, 0.684) == pytest.approx(0.154 / 0.22)
    with pytest.raises(DataError, match="not better than the old one"):
        update_gain(0.5, 0.6, 0.6)


def test_gap_between_groups():
    x = np.array([[0.0], [0.1], [5.0], [5.1], [0.05], [5.05]])
    labels = [0, 0, 1, 1, 2, 2]  # the last two are each other's and far apart
    groups = ["many", "many", "many", "many", "few", "few"]
    found = rankings(x, x, labels, labels, own=range(6))
    assert smallest_group(groups) == "few"
    by_group = group_cmc(found, groups, k=5)
    assert by_group == {"many": 1.0, "few": 1.0}
    assert cmc_gap(found, groups, "few") == group_cmc(found, groups)["many"] - 0.0
    with pytest.raises(DataError, match="no query of group 'nobody'"):
        cmc_gap(found, groups, "nobody")
    with pytest.raises(DataError, match="two or more groups"):
        smallest_group(["a", "a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.full((2, 3), np.nan)}, "queries: row 0 holds NaN"),
        ({"gallery": np.ones((4, 2))}, "gallery: 2 numbers a vector, the queries have 3"),
        ({"gallery_labels": [0, 0]}, "gallery: 4 vectors, but 2 labels"),
        ({"own": [0, 9]}, "query 1 names row 9"),
        ({"gallery": np.zeros((4, 3)), "metric": "cosine"}, "row 0 is all zeros"),
        ({"query_labels": [7, 7]}, "no query has an item of its label"),
        ({"queries": np.ones(3)}, r"queries: expected \[rows, dim\]"),
    ],
)
def test_bad_input(change, message):
    good = {
        "queries": np.ones((2, 3)),
        "gallery": np.ones((4, 3)),
        "query_labels": [0, 1],
        "gallery_labels": [0, 0, 1, 1],
    }
    with pytest.raises(DataError, match=message):
        ranking_metrics(**{**good, **change})


def test_bad_settings():
    x, labels = torch.ones(2, 3), [0, 0]
    with pytest.raises(ConfigError, match="blocks must be at least 1"):
        ranking_metrics(x, x, labels, labels, block=0)
    with pytest.raises(ConfigError, match="'l1' is not one of l2, cosine"):
        ranking_metrics(x, x, labels, labels, metric="l1")
    with pytest.raises(ConfigError, match="ks must be at least 1"):
        ranking_metrics(x, x, labels, labels, ks=(0,))
