"""Effective resistance: how far apart two nodes are over all paths, and the diagonal of L^+.

References:
    Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990.
    Spielman, Srivastava, "Graph sparsification by effective resistances", STOC 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.scipy_parts import sparse
from understudy.solve.graph.system import GraphSolver, SolverConfig


class PseudoInverse:
    """Applies L^+, component by component.

    One node of each component, that with the largest degree, is held at 0; what is left is
    positive definite. Then the mean of each component is taken off.

    Args:
        graph: a graph.
        solver: method and accuracy.
    """

    def __init__(self, graph: Graph, solver: SolverConfig | None = None) -> None:
        self.graph = graph
        order = np.lexsort((-graph.degrees, graph.components))
        label = graph.components[order]
        first = order[np.concatenate(([True], label[1:] != label[:-1]))]
        keep = np.ones(graph.n, bool)
        keep[first] = False
        self._keep = np.flatnonzero(keep)
        self._sizes = np.bincount(graph.components)
        self.system: GraphSolver | None = None
        if self._keep.size:
            part = graph.laplacian()[self._keep][:, self._keep]
            self.system = GraphSolver(part, config=solver)

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Return values [n, r] with mean zero on every component."""
        sums = np.zeros((len(self._sizes), values.shape[1]))
        np.add.at(sums, self.graph.components, values)
        return values - (sums / self._sizes[:, None])[self.graph.components]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return L^+ of values [n, r]."""
        b = self.centred(values)
        x = np.zeros_like(b)
        if self.system is not None:
            x[self._keep] = self.system.solve(b[self._keep])
        return self.centred(x)


def inverse_diagonal(
    graph: Any, *, probes: int = 64, seed: int = 0, solver: SolverConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the diagonal of L^+ (large: a node that is hard to reach) by Hutchinson's probes.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        probes: random signs, each of which costs one solve; the error falls with their root.
        seed: of the probes.
        solver: method and accuracy; None takes a residual of 1e-6, far below the probes' error.

    Returns:
        Estimates float64 [n] and their standard errors float64 [n].

    Raises:
        ConfigError: fewer than 2 probes.
    """
    if probes < 2:
        raise ConfigError(f"resistance: probes: expected at least 2, got {probes}.")
    graph = as_graph(graph)
    inverse = PseudoInverse(graph, solver or SolverConfig(rtol=1e-6))
    total, squares = np.zeros(graph.n), np.zeros(graph.n)
    draw = rng("hutchinson", seed)
    step = inverse.system.config.block if inverse.system is not None else probes
    for at in range(0, probes, step):
        signs = draw.choice([-1.0, 1.0], size=(graph.n, min(step, probes - at)))
        found = signs * inverse(signs)
        total += found.sum(axis=1)
        squares += (found**2).sum(axis=1)
    mean = total / probes
    variance = np.maximum(squares / probes - mean**2, 0.0) * probes / (probes - 1)
    return mean, np.sqrt(variance / probes)


def resistances(
    graph: Any,
    pairs: Any,
    *,
    probes: int | None = None,
    seed: int = 0,
    solver: SolverConfig | None = None,
) -> np.ndarray:
    """Return the effective resistance between pairs of nodes; infinite between components.

    Args:
        graph: a `Graph` or an affinity matrix [n, n]; weights are conductances.
        pairs: int [m, 2].
        probes: None solves exactly, once for each distinct pair; a number projects all pairs on so
            many random directions and solves only as often (relative error about
            sqrt(2 / probes)).
        seed: of the projection.
        solver: method and accuracy.

    Raises:
        ConfigError: fewer than 1 probe.
        DataError: a node that does not exist.
    """
    graph = as_graph(graph)
    ends = np.asarray(pairs, np.int64).reshape(-1, 2)
    if ends.size and (ends.min() < 0 or ends.max() >= graph.n):
        raise DataError(f"resistance: pairs name nodes outside of 0 to {graph.n - 1}.")
    if probes is not None and probes < 1:
        raise ConfigError(f"resistance: probes: expected at least 1, got {probes}.")
    inverse = PseudoInverse(graph, solver)
    if probes is None:
        found = _exactly(inverse, ends)
    else:
        found = _projected(inverse, ends, probes, seed)
    apart = graph.components[ends[:, 0]] != graph.components[ends[:, 1]]
    return np.where(apart, np.inf, found)


def _exactly(inverse: PseudoInverse, ends: np.ndarray, block: int = 64) -> np.ndarray:
    found = np.zeros(len(ends))
    for at in range(0, len(ends), block):
        part = ends[at : at + block]
        column = np.arange(len(part))
        b = np.zeros((inverse.graph.n, len(part)))
        np.add.at(b, (part[:, 0], column), 1.0)
        np.add.at(b, (part[:, 1], column), -1.0)
        x = inverse(b)
        found[at : at + block] = x[part[:, 0], column] - x[part[:, 1], column]
    return found


def _projected(inverse: PseudoInverse, ends: np.ndarray, probes: int, seed: int) -> np.ndarray:
    """Return |Q W^1/2 B L^+ (e_i - e_j)|^2 for random signs Q, B the incidence matrix."""
    upper = sparse().triu(inverse.graph.weights, k=1).tocoo()
    root = np.sqrt(upper.data)
    draw = rng("resistance", seed)
    found = np.zeros(len(ends))
    for at in range(0, probes, 64):
        count = min(64, probes - at)
        signs = draw.choice([-1.0, 1.0], size=(len(root), count)) * root[:, None]
        b = np.zeros((inverse.graph.n, count))
        np.add.at(b, upper.row, signs)
        np.add.at(b, upper.col, -signs)
        x = inverse(b)
        found += ((x[ends[:, 0]] - x[ends[:, 1]]) ** 2).sum(axis=1)
    return found / probes
