"""Graphs of neighbours against brute force, and the inputs that break others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.solve.graph import (
    ExactSearch,
    Graph,
    KnnConfig,
    Neighbours,
    build_graph,
    estimate_graph_bytes,
    graph_of,
)
from understudy.solve.graph import memory as memory_module
from understudy.solve.graph.build import check_size, measured_recall
from understudy.solve.graph.descent import descend


def brute(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours by comparing every pair; of equals the lower number first."""
    x = x.astype(np.float64)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    np.fill_diagonal(d, np.inf)
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(d, order, axis=1)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 60), d=st.integers(1, 6), seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float64"]), block=st.sampled_from([1, 20_000, 1 << 27]),
)  # fmt: skip
def test_exact_neighbours_equal_brute_force(n, d, seed, dtype, block):
    draw = np.random.default_rng(seed)
    x = (draw.standard_normal((n, d)) + 100).astype(dtype)
    k = int(draw.integers(1, n))
    found = ExactSearch(x, block).neighbours(k)
    indices, distances = brute(x, k)
    np.testing.assert_allclose(
        found.distances, distances, atol=1e-4 if dtype == "float32" else 1e-9
    )
    # float32 may swap equals
    assert (found.indices == indices).mean() > (0.95 if dtype == "float32" else 0.999)


def test_sparse_features_give_the_neighbours_of_the_dense_ones():
    x = sp.random(120, 40, density=0.2, random_state=0, format="csr") + sp.eye(120, 40)
    x = sp.csr_matrix(x + sp.csr_matrix(np.eye(120, 1) + np.ones((120, 1))) @ sp.eye(1, 40))
    for metric in ("euclidean", "cosine"):
        x[0, 0] = 1.0
        dense = build_graph(x.toarray(), KnnConfig(k=5, metric=metric))
        lean = build_graph(x, KnnConfig(k=5, metric=metric))
        assert abs(dense.weights - lean.weights).max() < 1e-10


def test_cosine_is_the_angle():
    x = np.random.default_rng(0).standard_normal((50, 8)) * np.arange(1, 51)[:, None]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    from understudy.solve.graph.features import checked_features

    found = ExactSearch(checked_features(x, "cosine")).neighbours(4)
    np.testing.assert_array_equal(found.indices, np.argsort(-cosine, axis=1)[:, :4])
    np.testing.assert_allclose(
        found.distances**2, 2 - 2 * np.sort(cosine, axis=1)[:, :-5:-1], atol=1e-12
    )


def test_weights_are_the_formula_and_the_larger_direction():
    x = np.random.default_rng(1).standard_normal((40, 3))
    indices, distances = brute(x, 4)
    directed = np.zeros((40, 40))
    directed[np.arange(40)[:, None], indices] = np.exp(-(distances**2) / 0.7**2)
    graph = build_graph(x, KnnConfig(k=4, sigma=0.7))
    np.testing.assert_allclose(graph.weights.toarray(), np.maximum(directed, directed.T))
    assert graph.weights.diagonal().sum() == 0  # no self loops: k real neighbours
    looped = build_graph(x, KnnConfig(k=4, sigma=0.7, self_loops="add"))
    assert (looped.weights.diagonal() == 1).all()
    local = build_graph(x, KnnConfig(k=4, sigma="local"))
    scale = distances[:, 3]
    directed[np.arange(40)[:, None], indices] = np.exp(
        -(distances**2) / (scale[:, None] * scale[indices])
    )
    np.testing.assert_allclose(local.weights.toarray(), np.maximum(directed, directed.T))
    flat = build_graph(x, KnnConfig(k=4, kernel="connectivity"))
    assert set(flat.weights.data) == {1.0}


@pytest.mark.parametrize(("n", "d", "k"), [(3000, 12, 10), (1500, 2, 5), (40, 3, 30)])
def test_descent_finds_nearly_all_neighbours(n, d, k):
    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    exact = ExactSearch(x.astype(np.float64)).neighbours(k)
    found = descend(x, k, seed=3)
    hits = np.mean(
        [np.isin(a, b).mean() for a, b in zip(found.indices, exact.indices, strict=True)]
    )
    assert hits > 0.97
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.indices != np.arange(n)[:, None]).all()
    again = descend(x, k, seed=3)
    np.testing.assert_array_equal(found.indices, again.indices)
    at = found.indices[7]
    true = np.linalg.norm(x[at].astype(np.float64) - x[7], axis=1)
    np.testing.assert_allclose(found.distances[7], true, rtol=1e-5)


def test_auto_is_exact_where_that_is_quick():
    config = KnnConfig()
    assert config.chosen(100_000, 16) == "exact"
    assert config.chosen(100_000, 512) == "approximate"
    assert config.chosen(10**6, 512, sparse=True) == "exact"


def test_recall_of_the_approximate_search_is_measured():
    x = np.random.default_rng(0).standard_normal((800, 6))
    graph = build_graph(x, KnnConfig(k=5, search="approximate"))
    assert graph.facts["search"] == "approximate"
    assert 0.97 < graph.facts["recall"] <= 1
    assert "recall" not in build_graph(x, KnnConfig(k=5)).facts
    noise = Neighbours(
        indices=np.zeros((800, 5), np.int32), distances=np.full((800, 5), 1e9)
    )  # the measure can fail
    assert measured_recall(x, noise) == 0


def test_descent_survives_many_duplicates():
    x = np.repeat(np.random.default_rng(0).standard_normal((60, 4)), 20, axis=0)
    found = descend(x.astype(np.float32), 5, seed=0)
    assert found.indices.min() >= 0
    assert (found.distances == 0).all()


def test_duplicates_are_listed_and_capped():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((60, 3))
    x[7], x[31] = x[2], x[2]
    graph = build_graph(x, KnnConfig(k=4, sigma=0.2))  # narrow: distinct points weigh little
    assert graph.duplicates.tolist() == [2, 7, 31]
    pairs = graph.weights[[2, 2, 7], [7, 31, 31]]
    _, distances = brute(x, 4)
    largest = np.exp(-(distances[distances > 0].min() ** 2) / 0.2**2)
    np.testing.assert_allclose(np.asarray(pairs).ravel(), largest)
    assert graph.weights.max() == pytest.approx(largest)
    assert largest < 1


def test_all_points_equal():
    graph = build_graph(np.ones((12, 2)), KnnConfig(k=3))
    assert len(graph.duplicates) == 12
    assert (graph.weights.data == 1).all()


def test_isolated_nodes_are_listed():
    x = np.vstack([np.random.default_rng(0).standard_normal((30, 2)), [[1e6, 1e6]]])
    graph = build_graph(x, KnnConfig(k=3, sigma=1.0))
    assert graph.isolated.tolist() == [30]  # its weights are zero in double precision
    assert graph.num_components >= 2
    assert graph.summary()["isolated"] == 1
    assert np.isfinite(graph.normalised().data).all()


@pytest.mark.parametrize(
    ("x", "config", "words"),
    [
        (np.ones((5, 2)), {"k": 5}, "expected 1 to 4 neighbours among 5 points, got 5"),
        (np.ones((5, 2)), {"k": 0}, "k: expected at least 1, got 0"),
        (np.array([[1.0], [np.nan], [2.0]]), {"k": 1}, "row 1 holds NaN or infinity"),
        (sp.csr_matrix([[1.0], [0], [np.inf]]), {"k": 1}, "row 2 holds NaN or infinity"),
        (np.array([[1.0], [0], [2.0]]), {"k": 1, "metric": "cosine"}, "row 1 is zero and has no"),
        (np.array([[1.0], [1e200], [2.0]]), {"k": 1}, "the largest value is 1e+200"),
        (np.ones(4), {"k": 1}, "expected an array [n, d], got the shape (4,)"),
        (np.ones((5, 2)), {"metric": "manhatten"}, "'manhatten' is not one of euclidean, cosine"),
        (np.ones((5, 2)), {"sigma": -1.0}, "sigma: expected a positive number"),
        (sp.identity(9), {"k": 1, "search": "approximate"}, "sparse features are searched exactly"),
    ],
)
def test_bad_features(x, config, words):
    with pytest.raises((ConfigError, DataError)) as caught:
        build_graph(x, KnnConfig(**config))
    assert words in str(caught.value)


def test_memory_is_estimated_before_the_start(monkeypatch):
    wide = np.broadcast_to(np.float32(0), (200_000_000, 4))
    with pytest.raises(DataError, match=r"more than 32-bit indices count .* lower k to 5"):
        check_size(wide, KnnConfig(k=10, search="exact"))
    monkeypatch.setattr(memory_module, "available_bytes", lambda: 10**6)
    with pytest.raises(DataError, match=r"k = 10 neighbours takes about 0\.\d GB .* 0\.0 GB are"):
        check_size(np.zeros((50_000, 4)), KnnConfig(k=10))
    assert estimate_graph_bytes(700_000, 10) < 1.2e9  # not 700,000^2 x 8 = 3.9 TB


def test_estimate_bounds_what_is_used():
    import tracemalloc

    x = np.random.default_rng(0).standard_normal((3000, 8))
    config = KnnConfig(k=8, block_mb=4)
    needed = check_size(x, config)
    tracemalloc.start()
    build_graph(x, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < needed
    assert needed < 3000 * 3000 * 8


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((2, 3)), "expected a square affinity matrix, got the shape (2, 3)"),
        (np.array([[0, np.nan], [1, 0]]), "the weight at (0, 1) is not finite"),
        (np.array([[0, 1.0], [-1, 0]]), "the weight at (1, 0) is negative"),
        (np.array([[0, 1.0], [2, 0]]), "max |W - W^T| = 1 at (0, 1); pass symmetrise='max'"),
    ],
)
def test_bad_matrices(matrix, words):
    with pytest.raises(DataError) as caught:
        Graph.from_matrix(matrix)
    assert words in str(caught.value)


def test_graph_identities():
    w = sp.random(30, 30, density=0.1, random_state=1)
    graph = Graph.from_matrix(w, symmetrise="mean")
    dense = graph.weights.toarray()
    np.testing.assert_allclose(dense, dense.T)
    laplacian = graph.laplacian().toarray()
    np.testing.assert_allclose(laplacian, np.diag(dense.sum(1)) - dense, atol=1e-15)
    np.testing.assert_allclose(laplacian.sum(1), 0, atol=1e-14)
    assert np.linalg.eigvalsh(laplacian).min() > -1e-12
    linked = graph.degrees > 0
    s = graph.normalised().toarray()
    root = np.sqrt(graph.degrees)
    np.testing.assert_allclose((s @ root)[linked], root[linked])
    assert graph.num_edges == np.count_nonzero(np.triu(dense, 1))


def test_file_round_trip_and_damage(tmp_path):
    x = np.random.default_rng(0).standard_normal((50, 3))
    made = build_graph(x, KnnConfig(k=3))
    graph = Graph(weights=made.weights, rows=np.arange(50) * 2, facts={"k": 3})
    path = graph.save(tmp_path / "g.npz")
    again = Graph.load(path)
    assert again.fingerprint == graph.fingerprint != made.fingerprint
    assert again.facts == {"k": 3}
    np.testing.assert_array_equal(again.rows, graph.rows)
    arrays = dict(np.load(path))
    arrays["data"][0] += 1
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match="is damaged"):
        Graph.load(tmp_path / "bad.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(DataError, match="not a saved graph"):
        Graph.load(tmp_path / "text.npz")
    with pytest.raises(DataError, match="no such graph; make one with 'understudy graph knn'"):
        Graph.load(tmp_path / "none.npz")


def test_neighbours_and_queries_check_their_shapes():
    with pytest.raises(DataError, match=r"expected indices and distances \[n, k\]"):
        Neighbours(indices=np.zeros((3, 2), np.int32), distances=np.zeros((3, 1)))
    search = ExactSearch(np.random.default_rng(0).standard_normal((9, 3)))
    with pytest.raises(DataError, match="expected dense rows of 3 numbers, got 2"):
        search.query(np.ones((1, 2)), 1)
    found = search.query(np.asarray(search.points + search.centre), 1)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(9))
    graph = graph_of(search.neighbours(2))
    assert graph.n == 9
