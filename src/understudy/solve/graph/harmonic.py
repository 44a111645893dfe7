"""Harmonic functions: unlabelled nodes are the weighted mean of their neighbours.

References:
    Zhu, Ghahramani, Lafferty, "Semi-supervised learning using Gaussian fields and harmonic
    functions", ICML 2003: L_uu F_u = W_ul Y_l; class mass normalisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.solve.graph.graph import as_graph
from understudy.solve.graph.labels import LabelResult, checked_labels, one_hot, result_of
from understudy.solve.graph.system import GraphSolver, SolverConfig


def harmonic_labels(
    graph: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    class_mass: bool = False,
    solver: SolverConfig | None = None,
) -> LabelResult:
    """Extend labels over a graph; labelled nodes keep theirs.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        labels: whole numbers [n], -1 for none.
        num_classes: classes; the largest label + 1 when absent.
        class_mass: scale the classes so that their mass over unlabelled nodes is their share among
            the labels.
        solver: method and accuracy.

    Returns:
        Scores (chances that a random walk from a node meets each class first), and -1 for nodes
        from which no label can be reached.

    Raises:
        DataError: labels do not fit, or none is given.
    """
    graph, solver = as_graph(graph), solver or SolverConfig()
    known, count = checked_labels(labels, graph.n, num_classes)
    given = one_hot(known, count)
    reached = graph.touched(known >= 0)
    inner = np.flatnonzero((known < 0) & reached)
    raw = given.copy()
    report: dict[str, Any] = {"method": "none", "reason": "every node has a label"}
    if inner.size:
        outer = np.flatnonzero(known >= 0)
        rows = graph.weights[inner]
        system = GraphSolver(graph.laplacian()[inner][:, inner], config=solver)
        raw[inner] = system.solve(rows[:, outer] @ given[outer])
        report = system.report()
    if class_mass and inner.size:
        raw[inner] = np.maximum(raw[inner], 0.0) * _class_factors(raw[inner], given)
    return result_of(raw, reached, solver.rtol, report)


def _class_factors(inner: np.ndarray, given: np.ndarray) -> np.ndarray:
    prior = given.sum(axis=0) / given.sum()
    mass = np.maximum(inner, 0.0).sum(axis=0)
    return np.divide(prior, mass, out=np.zeros_like(prior), where=mass > 0)
