"""Search in a gallery under update: exact against plain Python, indexes, spaces, filters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import serve_toys as toys
from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import Space, SpaceError
from understudy.update.gallery import Gallery
from understudy.update.search import (
    build_indexes,
    index_recall,
    search,
    search_index,
)
from understudy.update.search_scores import METRICS, Kernel, Ranking, candidates, squared_norms

ENCODED_ROWS = [1, 5, 17, 60, 95, 130, 131, 199]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows 0 and 1 have equal vectors in both columns, row 3 has none at all."""
    path = tmp_path_factory.mktemp("search") / "store"
    own, mapped = toys.vectors(200)
    mapped[40] = mapped[7] = mapped[2]
    own[60] = own[17] = mapped[2]
    store = toys.Store.create(path, [toys.batch(0, 200)], rows_per_fragment=90)
    toys.fill(store, toys.MAPPED_COLUMN, toys.MAPPED, mapped, np.delete(np.arange(200), 3))
    toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, ENCODED_ROWS)
    gallery = Gallery.open(store, new=toys.NEW_COLUMN, mapped=toys.MAPPED_COLUMN)
    stored = {i: own[i] if i in ENCODED_ROWS else mapped[i] for i in range(200) if i != 3}
    return gallery, stored


@pytest.mark.parametrize("metric", METRICS)
def test_exact_search_is_the_plain_ranking(made, metric):
    gallery, stored = made
    queries = np.random.default_rng(5).standard_normal((7, 16)).astype(np.float32)
    queries[0] = stored[2]  # four equal vectors, mapped and encoded: ranked by row
    hits = search(gallery, queries, 9, space=toys.NEW, metric=metric)
    for i, query in enumerate(queries):
        rows, scores = toys.brute(query, stored, 9, metric)
        assert hits.rows[i].tolist() == rows
        np.testing.assert_allclose(hits.scores[i], scores, rtol=2e-7, atol=1e-7)
        assert hits.encoded[i].tolist() == [row in ENCODED_ROWS for row in rows]
    if metric != "dot":
        assert hits.rows[0, :5].tolist() == [2, 7, 17, 40, 60]


def test_fewer_rows_than_k_end_in_minus_one(made):
    gallery, stored = made
    hits = search(gallery, stored[0], 250, space=toys.NEW, metric="l2")
    assert (hits.rows[0, :199] >= 0).all()
    assert hits.rows[0, 199:].tolist() == [-1] * 51
    assert np.isposinf(hits.scores[0, 199:]).all()


def test_filter_is_met_by_every_hit(made):
    gallery, stored = made
    few = {row: v for row, v in stored.items() if row % 5 == 2}
    hits = search(gallery, stored[8], 6, space=toys.NEW, filter="label = 2")
    assert hits.rows[0].tolist() == toys.brute(stored[8], few, 6, "cosine")[0]
    with pytest.raises(DataError, match="is not understood"):
        search(gallery, stored[8], 6, space=toys.NEW, filter="label = = 2")


def test_queries_of_another_space_are_refused(made):
    gallery, stored = made
    other = Space(model="v3", fingerprint="weights-v3", dim=16)
    for space in (other, toys.OLD, other.id):
        with pytest.raises(SpaceError) as caught:
            search(gallery, stored[0], space=space)
        message = str(caught.value)
        assert toys.NEW.id in message or gallery.space.id in message
        assert (space if isinstance(space, str) else space.id) in message
        assert "understudy update fit" in message
    with pytest.raises(SpaceError):
        search_index(gallery, stored[0], space=toys.OLD)
    assert search(gallery, stored[0], 1, space=toys.NEW.id).rows[0, 0] == 0


def test_bad_queries_are_refused(made):
    gallery, stored = made
    with pytest.raises(DataError, match="has 8 numbers, the gallery's vectors have 16"):
        search(gallery, stored[0][:8], space=toys.NEW)
    with pytest.raises(DataError, match="NaN or infinity"):
        search(gallery, np.full(16, np.nan), space=toys.NEW)
    with pytest.raises(DataError, match="k must be at least 1"):
        search(gallery, stored[0], 0, space=toys.NEW)
    with pytest.raises(ConfigError, match="metric"):
        search(gallery, stored[0], space=toys.NEW, metric="cosign")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    offset=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    metric=st.sampled_from(METRICS),
    k=st.integers(1, 12),
)
def test_rounding_never_loses_a_neighbour(seed, offset, metric, k):
    """Candidates by float32 products hold all of the float64 top k, for nearly equal vectors too"""
    rng = np.random.default_rng(seed)
    stored = (offset + rng.standard_normal((80, 24))).astype(np.float32)
    stored[rng.integers(0, 80, 20)] = stored[0]
    query = (offset + rng.standard_normal((2, 24))).astype(np.float32)
    kernel = Kernel(query, metric)
    squared = squared_norms(stored)
    keys, slack = kernel.keys(stored, squared), kernel.slack(float(squared.max()), 24)
    for q in range(2):
        exact = kernel.exact(q, stored)
        best = np.lexsort((np.arange(80), -exact))[:k]
        assert set(best) <= set(candidates(keys[q], k, float(slack[q])))


def test_a_row_has_one_score_wherever_it_lies():
    rng = np.random.default_rng(0)
    stored = rng.standard_normal((1000, 33)).astype(np.float32)
    kernel = Kernel(rng.standard_normal((1, 33)).astype(np.float32), "cosine")
    whole = kernel.exact(0, stored)
    for i in (0, 1, 17, 999):
        assert kernel.exact(0, stored[i : i + 1])[0] == whole[i]
        assert kernel.exact(0, stored[i // 2 :])[i - i // 2] == whole[i]


def test_ranking_does_not_depend_on_the_order_of_offers():
    rng = np.random.default_rng(1)
    stored = np.repeat(rng.standard_normal((10, 8)), 4, 0).astype(np.float32)
    rows = rng.permutation(40)
    found = []
    for parts in (1, 3, 7):
        ranking = Ranking(Kernel(stored[:1], "l2"), 11)
        for part in np.array_split(rows, parts):
            ranking.offer(0, part, stored[part], part % 2 == 0)
        found.append(ranking.hits())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].rows, other.rows)
        np.testing.assert_array_equal(found[0].encoded, other.rows % 2 == 0)


# through Lance's indexes


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    path = tmp_path_factory.mktemp("indexed") / "store"
    store, own, mapped = toys.make_store(path, 600, fragment=300)
    gallery = Gallery.open(store, mapped=toys.MAPPED_COLUMN)
    assert build_indexes(gallery, metric="l2", kind="IVF_FLAT", num_partitions=4) == [
        toys.MAPPED_COLUMN
    ]
    order = np.random.default_rng(3).permutation(600)
    toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, order[:150])
    return store, own, mapped, order


def _gallery(store):
    return Gallery.open(store.pinned(), new=toys.NEW_COLUMN, mapped=toys.MAPPED_COLUMN)


def test_index_search_is_the_union_of_both_spaces(indexed):
    store, own, _, order = indexed
    gallery = _gallery(store)
    queries = own[:20]
    options = {"space": toys.NEW, "nprobes": 4}
    hits = search_index(gallery, queries, 8, **options)
    exact = search(gallery, queries, 8, space=toys.NEW, metric="l2")
    np.testing.assert_array_equal(hits.rows, exact.rows)  # all partitions of a flat index
    np.testing.assert_array_equal(hits.scores, exact.scores)
    np.testing.assert_array_equal(hits.encoded, np.isin(hits.rows, order[:150]))
    assert index_recall(gallery, queries, 8, **options) == 1.0
    few = search_index(gallery, queries, 8, space=toys.NEW, nprobes=1)
    shares = [np.isin(e, f).mean() for e, f in zip(exact.rows, few.rows, strict=True)]
    recall = index_recall(gallery, queries, 8, space=toys.NEW, nprobes=1)
    assert recall == pytest.approx(np.mean(shares))
    assert 0.3 < recall < 1.0


def test_index_search_with_a_filter(indexed):
    store, own, _, _ = indexed
    gallery = _gallery(store)
    hits = search_index(gallery, own[:5], 6, space=toys.NEW, nprobes=4, filter="label = 1")
    exact = search(gallery, own[:5], 6, space=toys.NEW, metric="l2", filter="label = 1")
    np.testing.assert_array_equal(hits.rows, exact.rows)


def test_encoded_rows_do_not_crowd_out_mapped_ones(tmp_path):
    """Every near row of the mapped index is served from the other column, where it lies far"""
    own, mapped = toys.vectors(300)
    query = np.ones(16, np.float32)
    mapped[:290] = query + 1e-3 * mapped[:290]
    own[:290] = -query + 1e-3 * own[:290]
    store = toys.Store.create(tmp_path / "s", [toys.batch(0, 300)])
    toys.fill(store, toys.MAPPED_COLUMN, toys.MAPPED, mapped)
    gallery = Gallery.open(store, mapped=toys.MAPPED_COLUMN)
    build_indexes(gallery, kind="IVF_FLAT", num_partitions=1)
    toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, np.arange(290))
    gallery = _gallery(store)
    hits = search_index(gallery, query, 5, space=toys.NEW, nprobes=1, refine=1)
    exact = search(gallery, query, 5, space=toys.NEW)
    np.testing.assert_array_equal(hits.rows, exact.rows)
    assert (hits.rows >= 290).all()


def test_one_index_on_a_materialised_mix(tmp_path):
    store, own, _ = toys.make_store(tmp_path / "s", 300, encoded_rows=range(0, 300, 3))
    Gallery.open(store, new=toys.NEW_COLUMN, mapped=toys.MAPPED_COLUMN).materialise("embed.mix")
    gallery = Gallery.open(store, new="embed.mix")
    assert build_indexes(gallery, kind="IVF_FLAT", num_partitions=2) == ["embed.mix"]
    gallery = Gallery.open(store, new="embed.mix")
    hits = search_index(gallery, own[:9], 5, space=toys.NEW, nprobes=2)
    exact = search(_gallery(store), own[:9], 5, space=toys.NEW)
    np.testing.assert_array_equal(hits.rows, exact.rows)
    np.testing.assert_array_equal(hits.encoded, hits.rows % 3 == 0)


@pytest.mark.parametrize("kind", ["", "IVF_PQ"])
def test_default_options_of_indexes(tmp_path, kind):
    store, own, _ = toys.make_store(tmp_path / "s", 400, encoded_rows=range(0, 400, 2))
    columns = [toys.MAPPED_COLUMN, toys.NEW_COLUMN]
    if kind:  # what quantises needs 256 vectors to learn from
        columns = columns[:1]
        store.drop(toys.NEW_COLUMN)
    gallery = Gallery.open(store, **dict(zip(("mapped", "new"), columns, strict=False)))
    assert build_indexes(gallery, kind=kind) == columns
    gallery = Gallery.open(store, **dict(zip(("mapped", "new"), columns, strict=False)))
    assert build_indexes(gallery) == []
    assert index_recall(gallery, own[:30], 5, space=toys.NEW) > 0.9


def test_without_an_index_the_message_says_how_to_get_one(made):
    gallery, stored = made
    with pytest.raises(DataError, match="no column has an index.*build_indexes"):
        search_index(gallery, stored[0], space=toys.NEW)
