"""Smoothing of stored teacher outputs over a graph, each row trusted as far as it deserves.

min over Z of sum_i c_i |Z_i - T_i|^2 + g tr(Z^T L Z), that is (C + g L) Z = C T: the mean of a
Gaussian Markov field with precision C + g L. With c = degrees it is diffusion, and the sum of
degree-weighted values is what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.pagerank import checked_values
from understudy.solve.graph.scipy_parts import sparse
from understudy.solve.graph.system import GraphSolver, SolverConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Smoothed:
    """Smoothed values.

    Attributes:
        values: float64 of the shape of what was given; 0 where nothing is known.
        reached: bool [n], nodes in a component with any confidence.
        report: how the system was solved.
    """

    values: np.ndarray
    reached: np.ndarray
    report: dict[str, Any]


def checked_confidence(confidence: Any, graph: Graph) -> np.ndarray:
    """Return confidences float64 [n]; None is 1 for all, `"degree"` the degrees.

    Raises:
        DataError: another length, negative, not finite, or all 0.
    """
    if confidence is None:
        return np.ones(graph.n)
    if isinstance(confidence, str):
        if confidence != "degree":
            raise ConfigError(
                f"smooth: confidence: expected numbers, None or 'degree', got '{confidence}'."
            )
        return np.where(graph.degrees > 0, graph.degrees, 1.0)
    values = np.asarray(confidence, np.float64)
    if values.shape != (graph.n,):
        raise DataError(
            f"smooth: expected {graph.n} confidences, one a node, got the shape {values.shape}."
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise DataError(f"smooth: the confidence of node {bad[0]} is {values[bad[0]]:g}.")
    if not (values > 0).any():
        raise DataError("smooth: all confidences are 0, so nothing is known; give some above 0.")
    return values


class Smoother:
    """Smooths columns over one graph; prepared once.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        strength: g >= 0; larger is smoother.
        confidence: c, [n], not negative; 0 for values that are missing or not to be trusted.
            `"degree"` takes the degrees, None 1 for all.
        solver: method and accuracy.

    Attributes:
        reached: bool [n], nodes in a component with any confidence.
    """

    def __init__(
        self,
        graph: Any,
        *,
        strength: float = 1.0,
        confidence: Any = None,
        solver: SolverConfig | None = None,
    ) -> None:
        if not (np.isfinite(strength) and strength >= 0):
            raise ConfigError(f"smooth: strength: expected a number >= 0, got {strength}.")
        self.graph = as_graph(graph)
        self.confidence = checked_confidence(confidence, self.graph)
        known = self.confidence > 0
        self.reached = self.graph.touched(known) if strength > 0 else known
        self._nodes = np.flatnonzero(self.reached)
        system = sparse().diags(self.confidence) + strength * self.graph.laplacian()
        part = sparse().csr_matrix(system)[self._nodes][:, self._nodes]
        self.system = GraphSolver(part, config=solver)

    def __call__(self, values: Any) -> np.ndarray:
        """Return smoothed values, float64 of the shape of `values` [n] or [n, r].

        Values of confidence 0 may be NaN: they are not looked at.

        Raises:
            DataError: values do not fit, or are not finite where they have confidence.
        """
        array = np.asarray(values, np.float64)
        if array.ndim in (1, 2) and len(array) == self.graph.n:
            trusted = self.confidence > 0
            array = np.where(trusted if array.ndim == 1 else trusted[:, None], array, 0.0)
        t = checked_values(array, self.graph.n, "smooth: values")
        z = np.zeros_like(t)
        z[self._nodes] = self.system.solve((self.confidence[:, None] * t)[self._nodes])
        return z[:, 0] if np.ndim(values) == 1 else z


def smooth(
    graph: Any,
    values: Any,
    *,
    strength: float = 1.0,
    confidence: Any = None,
    solver: SolverConfig | None = None,
) -> Smoothed:
    """Smooth values over a graph: solve (C + g L) Z = C T.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        values: T, [n] or [n, r]; NaN is allowed where the confidence is 0.
        strength: g >= 0.
        confidence: c, see `Smoother`.
        solver: method and accuracy.

    Raises:
        ConfigError: strength is negative.
        DataError: values or confidences do not fit.
    """
    smoother = Smoother(graph, strength=strength, confidence=confidence, solver=solver)
    found = smoother(values)
    return Smoothed(values=found, reached=smoother.reached, report=smoother.system.report())
