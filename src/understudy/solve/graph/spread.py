"""Label spreading: one symmetric positive definite system, a right-hand side a class.

References:
    Zhou, Bousquet, Lal, Weston, Schoelkopf, "Learning with local and global consistency",
    NeurIPS 2003: F = (1 - alpha) (I - alpha S)^-1 Y.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.labels import LabelResult, checked_labels, one_hot, result_of
from understudy.solve.graph.scipy_parts import sparse
from understudy.solve.graph.system import GraphSolver, SolverConfig


def spreading_system(graph: Graph, alpha: float) -> tuple[Any, np.ndarray]:
    """Return I - alpha S and its near-null vector D^1/2 1, for alpha in (0, 1).

    Raises:
        ConfigError: alpha is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"label spreading: alpha: expected a number in (0, 1), got {alpha}.")
    matrix = sparse().identity(graph.n, format="csr") - alpha * graph.normalised()
    near_null = np.sqrt(np.where(graph.degrees > 0, graph.degrees, 1.0))
    return sparse().csr_matrix(matrix), near_null


def spread_labels(
    graph: Any,
    labels: Any,
    *,
    alpha: float = 0.99,
    num_classes: int | None = None,
    solver: SolverConfig | None = None,
) -> LabelResult:
    """Spread labels over a graph; labelled nodes may change theirs.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        labels: whole numbers [n], -1 for none.
        alpha: share that comes from neighbours, in (0, 1).
        num_classes: classes; the largest label + 1 when absent.
        solver: method and accuracy.

    Returns:
        Scores, and -1 for nodes in components without any label.

    Raises:
        ConfigError: alpha is out of range.
        DataError: labels do not fit, or none is given.
    """
    graph, solver = as_graph(graph), solver or SolverConfig()
    known, count = checked_labels(labels, graph.n, num_classes)
    matrix, near_null = spreading_system(graph, alpha)
    system = GraphSolver(matrix, phi=near_null, config=solver)
    raw = (1.0 - alpha) * system.solve(one_hot(known, count))
    reached = graph.touched(known >= 0)
    return result_of(raw, reached, solver.rtol, system.report())
