"""Personalised PageRank: of a set of nodes, and to propagate predictions (APPNP).

References:
    Klicpera, Bojchevski, Guennemann, "Predict then propagate", ICLR 2019: Z = a (I - (1-a) A)^-1 H.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.scipy_parts import sparse
from understudy.solve.graph.spread import spreading_system
from understudy.solve.graph.system import GraphSolver, SolverConfig

NORMALISE = ("row", "symmetric")


def rank_solver(graph: Graph, teleport: float, solver: SolverConfig | None) -> tuple[Any, Any]:
    """Return a solver of D - (1-a) W, and D; a node without any weight stays where it is.

    Raises:
        ConfigError: teleport is not in (0, 1].
    """
    if not 0 < teleport <= 1:
        raise ConfigError(f"pagerank: teleport: expected a number in (0, 1], got {teleport}.")
    degrees, weights = graph.degrees.copy(), graph.weights
    alone = (degrees == 0).astype(np.float64)
    degrees += alone  # a self loop of weight 1
    matrix = sparse().diags(degrees - (1 - teleport) * alone) - (1 - teleport) * weights
    return GraphSolver(sparse().csr_matrix(matrix), config=solver), degrees


def checked_values(values: Any, n: int, what: str) -> np.ndarray:
    """Return values as float64 [n, r]; raise `DataError` for another length or NaN."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or len(array) != n:
        raise DataError(f"{what}: expected {n} rows, one a node, got the shape {array.shape}.")
    array = array[:, None] if array.ndim == 1 else array
    good = np.isfinite(array).all(axis=1)
    if not good.all():
        raise DataError(f"{what}: row {int(np.argmin(good))} holds NaN or infinity.")
    return array


def propagate(
    graph: Any,
    values: Any,
    *,
    teleport: float = 0.1,
    normalise: str = "row",
    solver: SolverConfig | None = None,
    report: dict[str, Any] | None = None,
) -> np.ndarray:
    """Propagate predictions: Z = a (I - (1-a) P)^-1 H, the limit of APPNP.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        values: H, [n] or [n, r].
        teleport: a in (0, 1], the chance of a walk to end at a step; 1 leaves H as it is.
        normalise: P = D^-1 W (`row`: rows of Z sum to what rows of H do), or D^-1/2 W D^-1/2.
        solver: method and accuracy.
        report: is filled with how the system was solved.

    Returns:
        Z, float64 of the shape of `values`.

    Raises:
        ConfigError: teleport is out of range.
        DataError: values do not fit.
    """
    check_choice(normalise, NORMALISE, "pagerank: normalise")
    graph = as_graph(graph)
    h = checked_values(values, graph.n, "pagerank: values")
    if normalise == "row":
        system, degrees = rank_solver(graph, teleport, solver)
        z = teleport * system.solve(degrees[:, None] * h)
    elif teleport == 1:
        system, z = None, h.copy()
    else:
        rank_solver(graph, teleport, solver)  # checks teleport
        matrix, near_null = spreading_system(graph, 1 - teleport)
        system = GraphSolver(matrix, phi=near_null, config=solver)
        z = teleport * system.solve(h)
    if report is not None and system is not None:
        report.update(system.report())
    return z[:, 0] if np.ndim(values) == 1 else z


def personalised_pagerank(
    graph: Any,
    seeds: Any,
    *,
    teleport: float = 0.1,
    solver: SolverConfig | None = None,
    report: dict[str, Any] | None = None,
) -> np.ndarray:
    """Return where walks end that start at seeds: float64 [n], or [n, r] for r sets of seeds.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        seeds: weights of the seeds, [n] or [n, r], not negative; each column is scaled to sum 1.
        teleport: chance to end at a step.
        solver: method and accuracy.
        report: is filled with how the system was solved.

    Returns:
        Probabilities; each column sums to 1.

    Raises:
        ConfigError: teleport is out of range.
        DataError: seeds are negative, or a column has none.
    """
    graph = as_graph(graph)
    start = checked_values(seeds, graph.n, "pagerank: seeds")
    if (start < 0).any():
        raise DataError(f"pagerank: node {int(np.argwhere(start < 0)[0, 0])} has a negative seed.")
    totals = start.sum(axis=0)
    if (totals == 0).any():
        raise DataError(f"pagerank: column {int(np.argmin(totals))} has no seed.")
    system, degrees = rank_solver(graph, teleport, solver)
    ends = teleport * degrees[:, None] * system.solve(start / totals)
    if report is not None:
        report.update(system.report())
    return ends[:, 0] if np.ndim(seeds) == 1 else ends
