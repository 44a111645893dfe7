"""Spectral embedding in scikit-learn's style, with coordinates for new points."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from understudy.solve.graph.estimators_base import GraphEstimator
from understudy.solve.graph.spectral import spectral_embedding


class SpectralEmbedding(GraphEstimator):
    """Coordinates from the slowest eigenvectors of a graph's normalised Laplacian.

    Args:
        n_components: coordinates; trivial ones are not counted.
        eigen_solver: `auto`, `eigsh`, `lobpcg` or `dense`.
        affinity: `knn` of features, or `precomputed`.
        n_neighbors: neighbours of each point; the point itself is not one of them.
        metric: `euclidean` or `cosine`.
        kernel: `rbf` or `connectivity`.
        sigma: width of `rbf`: `median`, `local` or a number.
        search: `auto`, `exact` or `approximate` neighbours.
        solver: `auto` or a method of `SolverConfig`, for the inner systems.
        tol: accuracy of the eigenvalues.
        max_iter: iterations of conjugate gradients.
        random_state: seed of the start and of the approximate search.
    """

    def __init__(
        self,
        *,
        n_components: int = 2,
        eigen_solver: str = "auto",
        affinity: str = "knn",
        n_neighbors: int = 10,
        metric: str = "euclidean",
        kernel: str = "rbf",
        sigma: str | float = "median",
        search: str = "auto",
        solver: str = "auto",
        tol: float = 1e-8,
        max_iter: int = 5000,
        random_state: int = 0,
    ) -> None:
        self.n_components, self.eigen_solver = n_components, eigen_solver
        self.affinity, self.n_neighbors = affinity, n_neighbors
        self.metric, self.kernel, self.sigma, self.search = metric, kernel, sigma, search
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Build the graph of X and find its coordinates `embedding_` [n, n_components]."""
        graph = self._fit_graph(X)
        found = spectral_embedding(
            graph, self.n_components, method=self.eigen_solver, seed=self.random_state,
            rtol=self.tol, solver=self._solver_config(),
        )  # fmt: skip
        self.embedding_, self.eigenvalues_ = found.vectors, found.values
        self.spectrum_ = found
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Return the coordinates of X, [n, n_components]."""
        return self.fit(X, y).embedding_

    def transform(self, X: Any) -> np.ndarray:
        """Return coordinates of new points [m, n_components], by Nystroem's formula.

        The weighted mean of the nodes near a point, over 1 - eigenvalue; 0 where there is none.

        Args:
            X: [m, d] features; with a precomputed affinity, weights to the n nodes [m, n].
        """
        weights = self._weights_to(X)
        totals = np.asarray(weights.sum(axis=1)).ravel()
        mean = np.asarray(weights @ self.embedding_) / np.where(totals > 0, totals, 1.0)[:, None]
        slow = 1.0 - self.eigenvalues_
        return mean / np.where(np.abs(slow) > 1e-6, slow, 1.0)
