"""Labels, ranks, smoothing, embeddings and resistances against dense computations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.solve.graph import (
    Graph,
    GraphSolver,
    KnnConfig,
    SolverConfig,
    build_graph,
    entropies,
    harmonic_labels,
    inverse_diagonal,
    keep_confident,
    margins,
    personalised_pagerank,
    propagate,
    resistances,
    smooth,
    spectral_embedding,
    spread_labels,
)

FORCED = ("direct", "jacobi", "rs", "spand")


def blobs(n: int = 240, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 3, n)
    return draw.standard_normal((n, d)) + 1.5 * np.eye(3, d)[kind], kind


def few(kind: np.ndarray, each: int, seed: int = 0) -> np.ndarray:
    """Return labels of which only `each` a class are kept."""
    draw = np.random.default_rng(seed)
    out = np.full(len(kind), -1)
    for c in np.unique(kind):
        chosen = draw.choice(np.flatnonzero(kind == c), each, replace=False)
        out[chosen] = c
    return out


@pytest.fixture(scope="module")
def case():
    x, kind = blobs()
    graph = build_graph(x, KnnConfig(k=6))
    assert graph.num_components == 1
    return graph, kind


def dense_spread(graph: Graph, labels: np.ndarray, alpha: float, classes: int) -> np.ndarray:
    w = graph.weights.toarray()
    half = np.diag(1 / np.sqrt(w.sum(1)))
    y = (labels[:, None] == np.arange(classes)).astype(float)
    return (1 - alpha) * np.linalg.inv(np.eye(graph.n) - alpha * half @ w @ half) @ y


@pytest.mark.parametrize("method", ["auto", *FORCED])
@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_spreading_equals_the_dense_solution(case, method, alpha):
    graph, kind = case
    labels = few(kind, 3)
    found = spread_labels(graph, labels, alpha=alpha, solver=SolverConfig(method=method))
    dense = dense_spread(graph, labels, alpha, 3)
    shares = dense / dense.sum(1, keepdims=True)
    np.testing.assert_allclose(found.scores, shares, atol=1e-7)
    np.testing.assert_array_equal(found.labels, dense.argmax(1))
    ordered = np.sort(shares, 1)
    np.testing.assert_allclose(found.margin, ordered[:, -1] - ordered[:, -2], atol=1e-7)
    np.testing.assert_allclose(
        found.entropy, -(shares * np.log(shares)).sum(1) / np.log(3), atol=1e-6
    )
    assert found.report["method"] == ("direct" if method == "auto" else method)


@pytest.mark.parametrize("method", ["auto", *FORCED])
def test_harmonic_equals_the_dense_solution(case, method):
    graph, kind = case
    labels = few(kind, 3)
    found = harmonic_labels(graph, labels, solver=SolverConfig(method=method))
    w = graph.weights.toarray()
    u, known = labels < 0, labels >= 0
    laplacian = np.diag(w.sum(1)) - w
    y = np.eye(3)[labels[known]]
    inner = np.linalg.solve(laplacian[np.ix_(u, u)], w[np.ix_(u, known)] @ y)
    assert np.abs(found.scores[u] - inner).max() < 1e-8
    np.testing.assert_array_equal(found.labels[known], labels[known])
    # the definition itself: a mean of neighbours
    mean = (w @ found.scores / w.sum(1, keepdims=True))[u]
    np.testing.assert_allclose(found.scores[u], mean, atol=1e-8)


def test_class_mass_has_the_labels_shares(case):
    graph, kind = case
    labels = few(kind, 4)
    labels[np.flatnonzero(labels == 0)[1:]] = -1  # 1, 4 and 4 labels
    found = harmonic_labels(graph, labels, class_mass=True)
    plain = harmonic_labels(graph, labels)
    u = labels < 0
    h = plain.scores[u]
    q = np.array([1, 4, 4]) / 9
    scaled = q * h / h.sum(0)
    np.testing.assert_array_equal(found.labels[u], scaled.argmax(1))
    assert (found.labels != plain.labels).any()


def digits_graph() -> tuple[Graph, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    return build_graph(x, KnnConfig(k=10)), y


def test_digits_give_the_argmax_of_the_dense_solution_everywhere():
    graph, y = digits_graph()
    w = graph.weights.toarray()
    half = 1 / np.sqrt(w.sum(1))
    inverse = np.linalg.inv(np.eye(graph.n) - 0.99 * half[:, None] * w * half)
    laplacian = np.diag(w.sum(1)) - w
    system = GraphSolver(
        sp.identity(graph.n) - 0.99 * graph.normalised(),
        phi=np.sqrt(graph.degrees),
        config=SolverConfig(method="spand"),
    )
    for seed in range(5):
        labels = few(y, 5, seed)
        one_hot = (labels[:, None] == np.arange(10)).astype(float)
        dense = (inverse @ one_hot).argmax(1)
        np.testing.assert_array_equal(system.solve(one_hot).argmax(1), dense)
        found = spread_labels(graph, labels, alpha=0.99)
        np.testing.assert_array_equal(found.labels, dense)
        assert found.report["method"] == "jacobi"
        if seed == 0:
            assert (found.labels == y).mean() > 0.9
            u, known = labels < 0, labels >= 0
            inner = np.linalg.solve(
                laplacian[np.ix_(u, u)], w[np.ix_(u, known)] @ np.eye(10)[labels[known]]
            )
            assert np.abs(harmonic_labels(graph, labels).scores[u] - inner).max() < 1e-8


def islands() -> Graph:
    """Two paths of 4 and 3 nodes and a lone node, 7."""
    w = np.zeros((8, 8))
    for i in (0, 1, 2, 4, 5):
        w[i, i + 1] = w[i + 1, i] = 1
    return Graph.from_matrix(w)


def test_no_label_reached_is_minus_one():
    graph = islands()
    labels = np.array([0, -1, -1, 1, -1, -1, -1, -1])
    for find in (spread_labels, harmonic_labels):
        found = find(graph, labels)
        assert found.labels[4:].tolist() == [-1] * 4
        assert (found.scores[4:] == 0).all()
        assert not found.reached[4:].any()
        assert found.margin[4:].tolist() == [0] * 4
        assert found.entropy[4:].tolist() == [1] * 4
        assert found.labels[:4].tolist() == [0, 0, 1, 1]
        assert found.report["not_reached"] == 4
        assert np.isfinite(found.scores).all()
    harmonic = harmonic_labels(graph, labels)
    np.testing.assert_allclose(harmonic.scores[:4, 1], [0, 1 / 3, 2 / 3, 1])
    labels[7] = 1  # an isolated node keeps its own label
    for find in (spread_labels, harmonic_labels):
        assert find(graph, labels).labels[7] == 1


def test_far_nodes_below_the_accuracy_have_no_confidence():
    n = 600
    w = sp.diags([np.ones(n - 1)] * 2, [1, -1])
    labels = np.full(n, -1)
    labels[0], labels[1] = 0, 1
    found = spread_labels(Graph.from_matrix(w), labels, alpha=0.5)
    assert found.weak[-1]
    assert found.margin[-1] == 0
    assert found.entropy[-1] == 1
    assert not found.weak[:10].any()
    assert found.report["weak"] == found.weak.sum()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([-1] * 8, "all nodes are -1"),
        ([0, -2] + [-1] * 6, "node 1 has -2"),
        ([0] * 7, "expected 8, one a node"),
        ([0.5] * 8, "expected whole numbers"),
    ],
)
def test_bad_labels(labels, words):
    with pytest.raises(DataError) as caught:
        spread_labels(islands(), np.array(labels))
    assert words in str(caught.value)
    with pytest.raises(DataError, match="node 0 has class 3 of 2 classes"):
        harmonic_labels(islands(), np.array([3] + [-1] * 7), num_classes=2)
    with pytest.raises(ConfigError, match=r"alpha: expected a number in \(0, 1\), got 1"):
        spread_labels(islands(), np.zeros(8, int), alpha=1.0)


def test_pagerank_rows_sum_to_one(case):
    graph, _ = case
    h = np.random.default_rng(0).dirichlet([1, 1, 1], graph.n)
    w = graph.weights.toarray()
    step = w / w.sum(1, keepdims=True)
    for method in FORCED:
        z = propagate(graph, h, teleport=0.05, solver=SolverConfig(method=method))
        np.testing.assert_allclose(z.sum(1), 1, atol=1e-9)
        iterated = h.copy()
        for _ in range(600):  # the iteration of APPNP
            iterated = 0.95 * step @ iterated + 0.05 * h
        np.testing.assert_allclose(z, iterated, atol=1e-9)
    half = np.diag(1 / np.sqrt(w.sum(1)))
    dense = 0.05 * np.linalg.solve(np.eye(graph.n) - 0.95 * half @ w @ half, h)
    symmetric = propagate(graph, h, teleport=0.05, normalise="symmetric")
    np.testing.assert_allclose(symmetric, dense, atol=1e-9)
    for how in ("row", "symmetric"):
        np.testing.assert_allclose(propagate(graph, h[:, 0], teleport=1, normalise=how), h[:, 0])


def test_personalised_pagerank_is_where_walks_end(case):
    graph, _ = case
    seeds = np.zeros(graph.n)
    seeds[[3, 17]] = [3, 1]
    found = personalised_pagerank(graph, seeds, teleport=0.2)
    assert found.sum() == pytest.approx(1)
    w = graph.weights.toarray()
    step = w / w.sum(1, keepdims=True)
    walk = start = seeds / 4
    for _ in range(300):
        walk = 0.8 * walk @ step + 0.2 * start
    np.testing.assert_allclose(found, walk, atol=1e-10)
    lone = islands()
    h = np.random.default_rng(0).dirichlet([1, 1], 8)
    np.testing.assert_allclose(propagate(lone, h).sum(1), 1)
    np.testing.assert_allclose(propagate(lone, h)[7], h[7])
    assert personalised_pagerank(lone, np.eye(8)[7])[7] == pytest.approx(1)
    with pytest.raises(DataError, match="column 1 has no seed"):
        personalised_pagerank(lone, np.eye(8)[:, :2] * [1, 0])
    with pytest.raises(ConfigError, match=r"teleport: expected a number in \(0, 1\], got 0"):
        propagate(lone, h, teleport=0)


def test_smoothing_equals_the_dense_solution(case):
    graph, _ = case
    draw = np.random.default_rng(0)
    t, c = draw.standard_normal((graph.n, 5)), draw.random(graph.n)
    c[:20] = 0
    laplacian = graph.laplacian().toarray()
    dense = np.linalg.solve(np.diag(c) + 3.0 * laplacian, c[:, None] * t)
    t[:20] = np.nan  # what has no confidence is not looked at
    for method in FORCED:
        found = smooth(graph, t, strength=3.0, confidence=c, solver=SolverConfig(method=method))
        np.testing.assert_allclose(found.values, dense, atol=1e-7)
    t[30] = np.nan
    with pytest.raises(DataError, match="row 30 holds NaN"):
        smooth(graph, t, confidence=c)


@pytest.mark.filterwarnings("ignore:the system on the graph was solved to a residual")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), tau=st.floats(1e-6, 10))
def test_smoothing_minimises_its_objective_and_keeps_mass(seed, tau):
    draw = np.random.default_rng(seed)
    graph = Graph.from_matrix(sp.random(25, 25, 0.15, random_state=seed % 2**31), symmetrise="max")
    t = draw.standard_normal((25, 2))
    # L + tau D preserves the degree-weighted sum, also of each component
    z = smooth(graph, t, strength=1 / tau, confidence="degree").values
    d = np.where(graph.degrees > 0, graph.degrees, 1.0)
    for part in range(graph.num_components):
        at = graph.components == part
        np.testing.assert_allclose(d[at] @ z[at], d[at] @ t[at], atol=1e-7)
    c = draw.random(25) + 0.01

    def cost(v: np.ndarray) -> float:
        return float(
            (c[:, None] * (v - t) ** 2).sum() + np.trace(v.T @ graph.laplacian() @ v) / tau
        )

    best = smooth(graph, t, strength=1 / tau, confidence=c).values
    for _ in range(3):
        assert cost(best) <= cost(best + 1e-3 * draw.standard_normal(t.shape)) + 1e-12


def test_smoothing_without_any_confidence_in_a_component():
    graph = islands()
    c = np.array([1, 0, 0, 0, 0, 0, 0, 0.0])
    found = smooth(graph, np.arange(8.0) + 2, confidence=c, strength=5)
    assert found.reached.tolist() == [True] * 4 + [False] * 4
    np.testing.assert_allclose(found.values, [2, 2, 2, 2, 0, 0, 0, 0])
    with pytest.raises(DataError, match="all confidences are 0"):
        smooth(graph, np.ones(8), confidence=np.zeros(8))
    with pytest.raises(DataError, match="the confidence of node 1 is -1"):
        smooth(graph, np.ones(8), confidence=[1, -1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("method", ["dense", "eigsh", "lobpcg"])
@pytest.mark.parametrize("inner", ["auto", "spand"])
def test_spectral_embedding_equals_dense_eigenvectors(case, method, inner):
    graph, _ = case
    found = spectral_embedding(graph, 4, method=method, solver=SolverConfig(method=inner))
    s = np.eye(graph.n) - graph.normalised().toarray()
    values, vectors = np.linalg.eigh(s)
    np.testing.assert_allclose(found.values, values[1:5], atol=1e-7)
    assert found.residuals.max() < 1e-3
    u = found.vectors * np.sqrt(graph.degrees)[:, None]
    np.testing.assert_allclose(u.T @ u, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(np.abs(u.T @ vectors[:, 1:5]), np.eye(4), atol=1e-3)


@pytest.mark.parametrize("method", ["dense", "eigsh", "lobpcg"])
def test_spectral_embedding_of_a_disconnected_graph(method):
    x, _ = blobs(120)
    one = build_graph(x, KnnConfig(k=6)).weights
    graph = Graph.from_matrix(sp.block_diag([one, one[:80][:, :80], [[0.0]]]))
    with pytest.warns(UserWarning, match="components"):
        found = spectral_embedding(graph, 3, method=method)
    assert found.values.min() > 1e-6  # no null vector among them
    assert (found.vectors[-1] == 0).all()
    linked = graph.degrees > 0
    s = np.eye(200) - graph.normalised().toarray()[np.ix_(linked, linked)]
    values = np.linalg.eigvalsh(s)
    values = values[values > 1e-9]
    np.testing.assert_allclose(found.values, values[:3], atol=1e-6)


def test_spectral_embedding_of_a_path_is_known():
    n = 500
    graph = Graph.from_matrix(sp.diags([np.ones(n)] * 2, [1, -1], shape=(n, n)))
    found = spectral_embedding(graph, 3)
    assert found.report["eigensolver"] == "eigsh"
    # eigenvalues of the random walk on a path: 1 - cos(pi j / (n - 1))
    np.testing.assert_allclose(
        found.values, 1 - np.cos(np.pi * np.arange(1, 4) / (n - 1)), rtol=1e-5
    )
    with pytest.raises(ConfigError, match="k: expected 1 to 499 coordinates"):
        spectral_embedding(graph, 500)


def test_resistances_are_those_of_circuits():
    graph = Graph.from_matrix(sp.diags([[1.0, 2, 4, 0, 1, 1]] * 2, [1, -1]))  # 0-1-2-3  4-5-6
    pairs = [(0, 1), (0, 2), (0, 3), (3, 0), (4, 6), (2, 4), (5, 5)]
    found = resistances(graph, pairs)
    np.testing.assert_allclose(found, [1, 1.5, 1.75, 1.75, 2, np.inf, 0], atol=1e-12)


def test_resistances_meet_foster_and_the_pseudo_inverse(case):
    graph, _ = case
    upper = sp.triu(graph.weights, k=1).tocoo()
    pairs = np.column_stack([upper.row, upper.col])
    found = resistances(graph, pairs)
    assert (upper.data * found).sum() == pytest.approx(graph.n - 1)  # Foster 1949
    inverse = np.linalg.pinv(graph.laplacian().toarray())
    dense = np.array([inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in pairs])
    np.testing.assert_allclose(found, dense, rtol=1e-6)
    rough = resistances(graph, pairs, probes=800)
    assert np.abs(rough / dense - 1).mean() < 2 * np.sqrt(2 / 800)
    estimate, error = inverse_diagonal(graph, probes=400)
    true = np.diag(inverse)
    assert (np.abs(estimate - true) < 4.5 * error).mean() > 0.99
    assert error.mean() < 0.5 * true.mean()


def test_confidence_known_answers():
    scores = np.array([[0.5, 0.5, 0], [2, 1, 1], [0, 0, 0], [7, 0, 0]])
    np.testing.assert_allclose(margins(scores), [0, 0.25, 0, 1])
    np.testing.assert_allclose(
        entropies(scores), [np.log(2) / np.log(3), 1.5 * np.log(2) / np.log(3), 1, 0]
    )
    assert keep_confident(scores).tolist() == [True, True, False, True]
    assert keep_confident(scores, min_margin=0.2, max_entropy=0.5).tolist() == [False] * 3 + [True]
    with pytest.raises(ConfigError, match="min_margin"):
        keep_confident(scores, min_margin=2)
    with pytest.raises(DataError, match="row 1 is negative"):
        margins(np.array([[1.0, 0], [-1, 0]]))


def test_auto_leaves_the_diagonal_where_it_does_not_get_there():
    n = 3000
    path = Graph.from_matrix(sp.diags([np.ones(n)] * 2, [1, -1], shape=(n, n)))
    labels = np.full(n, -1)
    labels[0], labels[-1] = 0, 1
    found = harmonic_labels(path, labels)
    assert found.report["method"] == "direct"
    np.testing.assert_allclose(found.scores[:, 1], np.arange(n) / (n - 1), atol=1e-8)


def test_many_columns_in_blocks_equal_single_ones(case):
    graph, _ = case
    matrix = graph.laplacian() + sp.identity(graph.n)
    b = np.random.default_rng(0).standard_normal((graph.n, 7))
    blocks = GraphSolver(matrix, config=SolverConfig(method="jacobi", block=3)).solve(b)
    single = GraphSolver(matrix, config=SolverConfig(method="jacobi"))
    for i in range(7):
        np.testing.assert_allclose(blocks[:, i], single.solve(b[:, i]), atol=1e-8)
    with pytest.warns(UserWarning, match="was solved to a residual of"):
        GraphSolver(matrix, config=SolverConfig(method="jacobi", max_iterations=2)).solve(b)
    with pytest.raises(ConfigError, match="is not one of auto, direct"):
        SolverConfig(method="magic")
