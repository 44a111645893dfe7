"""What the estimators share: scikit-learn's conventions, without needing scikit-learn.

`get_params`/`set_params` and learned attributes that end in `_` let them be cloned, searched over
and put into pipelines; scikit-learn itself is imported only when it asks for its tags.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import require
from understudy.solve.graph.affinity import graph_of, scale_of, weights_to
from understudy.solve.graph.build import KnnConfig, find_neighbours
from understudy.solve.graph.features import checked_features
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.neighbours import ExactSearch
from understudy.solve.graph.scipy_parts import is_sparse, sparse
from understudy.solve.graph.system import SolverConfig

AFFINITIES = ("knn", "precomputed")


class GraphEstimator:
    """Parameters, the graph of the training points, and weights of new points to them."""

    affinity: str
    n_neighbors: int
    metric: str
    kernel: str
    sigma: str | float
    search: str
    solver: str
    tol: float
    max_iter: int
    random_state: int

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return the estimator.

        Raises:
            ConfigError: no such parameter.
        """
        for name, value in params.items():
            check_choice(name, self._names(), f"{type(self).__name__}: parameter")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = {
            name: value
            for name, value in self.get_params().items()
            if value != defaults[name].default
        }
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of the estimator."""
        utils: Any = require("sklearn.utils", "scenes", "scikit-learn's tags")
        kind = getattr(self, "_estimator_type", None)
        return utils.Tags(
            estimator_type=kind,
            target_tags=utils.TargetTags(required=kind == "classifier"),
            classifier_tags=utils.ClassifierTags() if kind == "classifier" else None,
            transformer_tags=utils.TransformerTags() if hasattr(self, "transform") else None,
            input_tags=utils.InputTags(sparse=True, pairwise=self.affinity == "precomputed"),
        )

    def _solver_config(self) -> SolverConfig:
        return SolverConfig(method=self.solver, rtol=self.tol, max_iterations=self.max_iter)

    def _fit_graph(self, X: Any) -> Graph:
        check_choice(self.affinity, AFFINITIES, f"{type(self).__name__}: affinity")
        if isinstance(X, Graph) or self.affinity == "precomputed":
            self._search = None
            self.graph_ = as_graph(X)
            self.n_features_in_ = self.graph_.n
            return self.graph_
        config = KnnConfig(
            k=self.n_neighbors, metric=self.metric, search=self.search, kernel=self.kernel,
            sigma=self.sigma, seed=self.random_state,
        )  # fmt: skip
        points = checked_features(X, self.metric)
        found = find_neighbours(points, config)
        self.graph_ = graph_of(found, kernel=self.kernel, sigma=self.sigma)
        self._scale = scale_of(found, self.sigma)
        self._search = ExactSearch(points, config.block_mb << 20)
        self.n_features_in_ = int(points.shape[1])
        return self.graph_

    def _weights_to(self, X: Any) -> Any:
        """Return affinities CSR [m, n] of new points to the training points."""
        if not hasattr(self, "graph_"):
            raise ConfigError(f"{type(self).__name__}: call fit first.")
        n = self.graph_.n
        if self._search is None:
            given = sparse().csr_matrix(X, dtype=np.float64)
            if given.shape[1] != n:
                raise DataError(
                    f"expected affinities of new points to the {n} training points, [m, {n}], got "
                    f"the shape {given.shape}."
                )
            return given
        values = checked_features(X, self.metric)
        if is_sparse(values) != self._search.sparse and not is_sparse(values):
            values = sparse().csr_matrix(values)
        elif is_sparse(values) and not self._search.sparse:
            values = values.toarray()
        k = min(self.n_neighbors, n)
        cap = self.graph_.facts["duplicate_cap"]
        return weights_to(self._search.query(values, k), self._scale, self.kernel, cap, n)
