"""The estimators: scikit-learn's conventions, and its open questions answered."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from understudy.core.errors import ConfigError, DataError
from understudy.solve.graph import (
    Graph,
    HarmonicClassifier,
    KnnConfig,
    LabelSpreading,
    SpectralEmbedding,
    build_graph,
    spectral_embedding,
    spread_labels,
)


def blobs(n: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 3, n)
    return draw.standard_normal((n, 5)) + 4 * np.eye(3, 5)[kind], kind


def partly(kind: np.ndarray) -> np.ndarray:
    y = np.full(len(kind), -1)
    for c in range(3):
        y[np.flatnonzero(kind == c)[:4]] = c
    return y


@pytest.mark.parametrize("cls", [LabelSpreading, HarmonicClassifier])
def test_dense_sparse_and_precomputed_agree(cls):
    x, kind = blobs()
    y = partly(kind)
    dense = cls(n_neighbors=6).fit(x, y)
    lean = cls(n_neighbors=6).fit(sp.csr_matrix(x), y)
    graph = build_graph(x, KnnConfig(k=6))
    ready = cls(affinity="precomputed").fit(graph.weights, y)
    given = cls().fit(graph, y)
    for other in (lean, ready, given):
        np.testing.assert_allclose(
            other.label_distributions_, dense.label_distributions_, atol=1e-8
        )
    np.testing.assert_allclose(dense.label_distributions_.sum(1), 1)
    assert (dense.transduction_ == kind).mean() > 0.95
    assert dense.classes_.tolist() == [0, 1, 2]
    assert dense.n_features_in_ == 5
    more, truth = blobs(60, seed=1)
    shares = dense.predict_proba(more)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(lean.predict_proba(sp.csr_matrix(more)), shares, atol=1e-8)
    assert dense.score(more, truth) > 0.9
    # the definition: a weighted mean over the neighbours of each new point
    d2 = ((more[:, None] - x[None]) ** 2).sum(-1)
    near = np.argsort(d2, axis=1)[:, :6]
    w = np.exp(-np.take_along_axis(d2, near, 1) / dense._scale**2)
    mean = np.einsum("mk,mkc->mc", w, dense.label_distributions_[near])
    np.testing.assert_allclose(shares, mean / mean.sum(1, keepdims=True), atol=1e-8)
    weights = np.zeros((60, 150))
    np.put_along_axis(weights, near, w, 1)
    np.testing.assert_allclose(ready.predict_proba(weights), shares, atol=1e-8)
    with pytest.raises(DataError, match=r"affinities of new points to the 150 training points"):
        ready.predict(np.ones((2, 5)))


@pytest.mark.parametrize("cls", [LabelSpreading, HarmonicClassifier])
def test_no_label_reached_is_minus_one_not_the_first_class(cls):
    x = np.vstack([blobs(40)[0], blobs(40)[0] + 1e3])
    y = np.full(80, -1)
    y[:4] = [3, 5, 3, 5]
    model = cls(n_neighbors=5).fit(x, y)
    assert set(model.transduction_[:40]) == {3, 5}
    assert (model.transduction_[40:] == -1).all()
    assert (model.predict(x[40:50]) == -1).all()
    assert np.isfinite(model.label_distributions_).all()
    assert (model.predict_proba(x[40:50]) == 0).all()


def test_unsigned_and_text_labels():
    x, kind = blobs()
    names = np.array(["cat", "dog", "eel"])[kind].astype(object)
    y = np.array(["", None, "-1", *names[3:]], object)
    model = LabelSpreading(n_neighbors=6).fit(x, y)
    assert model.classes_.tolist() == ["cat", "dog", "eel"]
    assert (model.predict(x) == names).mean() > 0.9
    y = partly(kind).astype(float)
    y[y < 0] = np.nan
    assert set(LabelSpreading(n_neighbors=6).fit(x, y).transduction_) == {0, 1, 2}
    with pytest.raises(DataError, match="no label is given"):
        LabelSpreading().fit(x, np.full(150, -1))
    with pytest.raises(DataError, match="whole numbers or text"):
        LabelSpreading().fit(x, np.full(150, 0.5))


def test_the_graph_has_no_self_loops_and_k_real_neighbours():
    x, kind = blobs()
    model = LabelSpreading(n_neighbors=4, kernel="connectivity").fit(x, partly(kind))
    assert model.graph_.weights.diagonal().sum() == 0
    assert np.diff(model.graph_.weights.indptr).min() >= 4
    direct = spread_labels(model.graph_, partly(kind))
    np.testing.assert_array_equal(model.transduction_, direct.labels)


def test_nothing_of_size_n_squared_is_held():
    import tracemalloc

    draw = np.random.default_rng(0)
    x = sp.random(6000, 200, density=0.02, random_state=0, format="csr")
    y = np.full(6000, -1)
    y[:50] = draw.integers(0, 3, 50)
    tracemalloc.start()
    LabelSpreading(n_neighbors=5).fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 * 8 * 0.4  # the search's block is 32 MiB whatever n


def test_spectral_embedding_and_new_points():
    x, _ = blobs(300)
    x = x * 0.3  # connected
    model = SpectralEmbedding(n_components=3, n_neighbors=12)
    found = model.fit_transform(x)
    direct = spectral_embedding(build_graph(x, KnnConfig(k=12)), 3)
    np.testing.assert_allclose(found, direct.vectors, atol=1e-6)
    moved = model.transform(x + 1e-3)
    for i in range(3):
        assert np.corrcoef(moved[:, i], found[:, i])[0, 1] > 0.95
    # on the rows of the graph itself Nystroem's formula is the eigenvalue equation
    ready = SpectralEmbedding(n_components=3, affinity="precomputed").fit(model.graph_)
    np.testing.assert_allclose(ready.transform(model.graph_.weights), ready.embedding_, atol=1e-6)


def test_parameters_follow_the_convention():
    model = LabelSpreading(alpha=0.5, n_neighbors=3)
    assert model.get_params()["alpha"] == 0.5
    assert model.set_params(alpha=0.7) is model
    assert repr(model) == "LabelSpreading(alpha=0.7, n_neighbors=3)"
    with pytest.raises(ConfigError, match="'alfa' is not one of .* Did you mean 'alpha'"):
        model.set_params(alfa=1)
    with pytest.raises(ConfigError, match="call fit first"):
        model.predict(np.ones((1, 2)))
    with pytest.raises(ConfigError, match="affinity"):
        LabelSpreading(affinity="rbf").fit(np.ones((4, 2)), np.array([0, -1, -1, -1]))


def test_scikit_learn_takes_them():
    base = pytest.importorskip("sklearn.base")
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, kind = blobs()
    copy = base.clone(LabelSpreading(alpha=0.5))
    assert copy.alpha == 0.5
    assert base.is_classifier(copy)
    assert not base.is_classifier(SpectralEmbedding())
    pipeline = make_pipeline(StandardScaler(), HarmonicClassifier(n_neighbors=5))
    assert pipeline.fit(x, partly(kind)).score(x, kind) > 0.9
    search = GridSearchCV(LabelSpreading(), {"n_neighbors": [3, 6]}, cv=2).fit(x, kind)
    assert search.best_score_ > 0.8
    chain = make_pipeline(StandardScaler(), SpectralEmbedding(n_components=2))
    assert chain.fit_transform(x).shape == (150, 2)


def test_precomputed_matrices_are_symmetrised_by_the_larger_direction():
    w = np.array([[5.0, 2, 0], [1, 0, 0], [0, 3, 0]])
    model = LabelSpreading(affinity="precomputed").fit(w, np.array([0, -1, 1]))
    expected = np.array([[0, 2.0, 0], [2, 0, 3], [0, 3, 0]])
    np.testing.assert_array_equal(model.graph_.weights.toarray(), expected)
    assert isinstance(model.graph_, Graph)
