"""Semi-supervised classifiers in scikit-learn's style: label spreading, harmonic functions.

    model = LabelSpreading(alpha=0.99).fit(X, y)        # y: -1 where there is no label
    model.transduction_, model.margin_                  # -1 where no label reached
    model.predict(more), model.predict_proba(more)

X may be dense or sparse features, or (`affinity="precomputed"`) a sparse affinity matrix or a
`Graph`. Nothing of size n^2 is ever held.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from understudy.solve.graph.estimators_base import GraphEstimator
from understudy.solve.graph.graph import Graph
from understudy.solve.graph.harmonic import harmonic_labels
from understudy.solve.graph.labels import UNLABELLED, LabelResult, encoded
from understudy.solve.graph.spread import spread_labels


class _Classifier(GraphEstimator):
    _estimator_type = "classifier"

    def fit(self, X: Any, y: Any) -> Self:
        """Build the graph and spread the labels.

        Args:
            X: [n, d] features, dense or sparse; with `affinity="precomputed"` an affinity matrix
                [n, n] or a `Graph`.
            y: [n], -1 where there is no label; text labels: an empty string or None.

        Raises:
            ConfigError: a parameter is out of range.
            DataError: X or y does not fit, or no label is given.
        """
        graph = self._fit_graph(X)
        codes, self.classes_ = encoded(y, graph.n)
        result = self._labels(graph, codes)
        self.result_ = result
        self.label_distributions_ = result.scores
        self.margin_, self.entropy_ = result.margin, result.entropy
        self.transduction_ = self._named(result.labels)
        self.n_iter_ = int(result.report.get("iterations", 0))
        return self

    def _labels(self, graph: Graph, codes: np.ndarray) -> LabelResult:
        raise AssertionError("a classifier says how labels are found")

    def _named(self, codes: np.ndarray) -> np.ndarray:
        if self.classes_.dtype.kind in "iu":
            kind = np.promote_types(self.classes_.dtype, np.int8)
            none: Any = kind.type(UNLABELLED)
        else:
            kind, none = self.classes_.dtype, "" if self.classes_.dtype.kind in "UO" else -1
        out = np.full(len(codes), none, kind)
        out[codes >= 0] = self.classes_[codes[codes >= 0]]
        return out

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class shares [m, C] of new points: the weighted mean of the nodes near them.

        Rows sum to 1, or are zero where no node near a point has been reached by a label.

        Args:
            X: [m, d] features; with a precomputed affinity, weights to the n nodes [m, n].
        """
        weights = self._weights_to(X)
        raw = np.asarray(weights @ self.label_distributions_)
        totals = raw.sum(axis=1, keepdims=True)
        return np.divide(raw, totals, out=np.zeros_like(raw), where=totals > 0)

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of new points [m]; -1 (text: empty) where no label reaches."""
        shares = self.predict_proba(X)
        return self._named(np.where(shares.sum(axis=1) > 0, shares.argmax(axis=1), UNLABELLED))

    def score(self, X: Any, y: Any) -> float:
        """Return the share of new points whose class is right."""
        return float(np.mean(self.predict(X) == np.asarray(y)))


class LabelSpreading(_Classifier):
    """Label spreading (Zhou et al. 2003), solved as one linear system.

    Args:
        alpha: share that comes from neighbours, in (0, 1).
        affinity: `knn` of features, or `precomputed`.
        n_neighbors: neighbours of each point; the point itself is not one of them.
        metric: `euclidean` or `cosine`.
        kernel: `rbf` or `connectivity`.
        sigma: width of `rbf`: `median`, `local` or a number.
        search: `auto`, `exact` or `approximate` neighbours.
        solver: `auto` or a method of `SolverConfig`.
        tol: relative residual of the solve.
        max_iter: iterations of conjugate gradients.
        random_state: seed of the approximate search.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.99,
        affinity: str = "knn",
        n_neighbors: int = 10,
        metric: str = "euclidean",
        kernel: str = "rbf",
        sigma: str | float = "median",
        search: str = "auto",
        solver: str = "auto",
        tol: float = 1e-10,
        max_iter: int = 5000,
        random_state: int = 0,
    ) -> None:
        self.alpha, self.affinity, self.n_neighbors = alpha, affinity, n_neighbors
        self.metric, self.kernel, self.sigma, self.search = metric, kernel, sigma, search
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.random_state = random_state

    def _labels(self, graph: Graph, codes: np.ndarray) -> LabelResult:
        return spread_labels(
            graph, codes, alpha=self.alpha, num_classes=len(self.classes_),
            solver=self._solver_config(),
        )  # fmt: skip


class HarmonicClassifier(_Classifier):
    """Harmonic functions (Zhu et al. 2003): labels are kept, the others are means of neighbours.

    Args:
        class_mass: scale classes to their shares among the labels.
        affinity: `knn` of features, or `precomputed`.
        n_neighbors: neighbours of each point; the point itself is not one of them.
        metric: `euclidean` or `cosine`.
        kernel: `rbf` or `connectivity`.
        sigma: width of `rbf`: `median`, `local` or a number.
        search: `auto`, `exact` or `approximate` neighbours.
        solver: `auto` or a method of `SolverConfig`.
        tol: relative residual of the solve.
        max_iter: iterations of conjugate gradients.
        random_state: seed of the approximate search.
    """

    def __init__(
        self,
        *,
        class_mass: bool = False,
        affinity: str = "knn",
        n_neighbors: int = 10,
        metric: str = "euclidean",
        kernel: str = "rbf",
        sigma: str | float = "median",
        search: str = "auto",
        solver: str = "auto",
        tol: float = 1e-10,
        max_iter: int = 5000,
        random_state: int = 0,
    ) -> None:
        self.class_mass, self.affinity, self.n_neighbors = class_mass, affinity, n_neighbors
        self.metric, self.kernel, self.sigma, self.search = metric, kernel, sigma, search
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.random_state = random_state

    def _labels(self, graph: Graph, codes: np.ndarray) -> LabelResult:
        return harmonic_labels(
            graph, codes, num_classes=len(self.classes_), class_mass=self.class_mass,
            solver=self._solver_config(),
        )  # fmt: skip
