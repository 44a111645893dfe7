"""Spectral embedding: the smallest eigenpairs of the normalised Laplacian that say something.

The null space of L_sym = I - S is known, D^1/2 on each component, so it is taken out before the
eigensolver starts and does not count among the coordinates.

References:
    Belkin, Niyogi, "Laplacian eigenmaps for dimensionality reduction", 2003.
    Knyazev, "Toward the optimal preconditioned eigensolver" (LOBPCG), 2001.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.solve.graph.graph import Graph, as_graph
from understudy.solve.graph.scipy_parts import linalg, sparse
from understudy.solve.graph.system import GraphSolver, SolverConfig

METHODS = ("auto", "dense", "eigsh", "lobpcg")
SHIFT = 1e-6
"""L_sym is solved with at L_sym + SHIFT I, which is positive definite."""
DENSE = 400
"""Up to so many nodes a dense eigensolver is the fastest."""
MAX_CONSTRAINTS = 64
"""Components beyond which LOBPCG's dense constraints cost more than they save."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrum:
    """Coordinates of nodes and what they come from.

    Attributes:
        vectors: float64 [n, k], D^-1/2 u of the eigenvectors u of L_sym, slowest first; the entry
            of largest size of each is positive; 0 for isolated nodes.
        values: float64 [k], eigenvalues of L_sym, increasing.
        residuals: float64 [k], |L_sym u - value u|.
        components: connected components, isolated nodes not counted.
        report: method and how systems were solved.
    """

    vectors: np.ndarray
    values: np.ndarray
    residuals: np.ndarray
    components: int
    report: dict[str, Any]


class _NullSpace:
    """Takes the null vectors of L_sym out of vectors."""

    def __init__(self, graph: Graph) -> None:
        self.label, self.root = graph.components, np.sqrt(graph.degrees)
        self.mass = np.bincount(self.label, graph.degrees)

    def remove(self, x: np.ndarray) -> np.ndarray:
        columns = x.reshape(len(x), -1)
        sums = np.zeros((len(self.mass), columns.shape[1]))
        np.add.at(sums, self.label, self.root[:, None] * columns)
        out = columns - self.root[:, None] * (sums / self.mass[:, None])[self.label]
        return out.reshape(x.shape)

    def basis(self) -> np.ndarray:
        """Return orthonormal null vectors [n, components]."""
        found = np.zeros((len(self.label), len(self.mass)))
        at = np.arange(len(self.label))
        found[at, self.label] = self.root / np.sqrt(self.mass[self.label])
        return found


def spectral_embedding(
    graph: Any,
    k: int = 8,
    *,
    method: str = "auto",
    seed: int = 0,
    rtol: float = 1e-8,
    solver: SolverConfig | None = None,
) -> Spectrum:
    """Return the k slowest coordinates of a graph's nodes, trivial ones not counted.

    Args:
        graph: a `Graph` or an affinity matrix [n, n].
        k: coordinates.
        method: `eigsh` (Lanczos on the inverse), `lobpcg` (blocks, the solver as preconditioner),
            `dense`, or `auto`.
        seed: of the start.
        rtol: accuracy of eigenvalues.
        solver: method of the inner systems.

    Raises:
        ConfigError: k is not below the number of nodes less the number of components.
    """
    check_choice(method, METHODS, "spectral embedding: method")
    whole = as_graph(graph)
    linked = np.ones(whole.n, bool)
    linked[whole.isolated] = False
    part = Graph(weights=whole.weights[linked][:, linked])
    count = part.num_components if part.n else 0
    if not 1 <= k <= part.n - count:
        raise ConfigError(
            f"spectral embedding: k: expected 1 to {part.n - count} coordinates for {part.n} "
            f"linked nodes in {count} components, got {k}."
        )
    if count > 1:
        warnings.warn(
            f"the graph has {count} components: each coordinate lives on some of them, and says "
            "nothing of the distance between them.",
            stacklevel=2,
        )
    method = _resolve(method, part.n, k, count)
    matrix = sparse().identity(part.n, format="csr") - part.normalised()
    values, vectors, report = _solve(part, matrix, k, method, seed, rtol, solver)
    order = np.argsort(values)
    values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    vectors = vectors * part.half[:, None]
    top = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[top, np.arange(k)] < 0, -1.0, 1.0)
    out = np.zeros((whole.n, k))
    out[linked] = vectors
    return Spectrum(
        vectors=out, values=values, residuals=residuals, components=count,
        report={"eigensolver": method, **report},
    )  # fmt: skip


def _resolve(method: str, n: int, k: int, components: int) -> str:
    small = n <= DENSE or (n <= 4 * DENSE and k > n // 5)
    if method == "auto":
        return "dense" if small else "eigsh"
    if method == "lobpcg" and (5 * k >= n or components > MAX_CONSTRAINTS):
        # blocks as wide as the problem do not converge
        return "dense" if small else "eigsh"
    if method == "eigsh" and k >= n - 1:
        return "dense"
    return method


def _solve(
    graph: Graph,
    matrix: Any,
    k: int,
    method: str,
    seed: int,
    rtol: float,
    solver: SolverConfig | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    null = _NullSpace(graph)
    if method == "dense":
        # null vectors are moved to the far end of the spectrum, which is [0, 2]
        basis = null.basis()
        values, vectors = np.linalg.eigh(matrix.toarray() + 3.0 * (basis @ basis.T))
        return values[:k], vectors[:, :k], {}
    shifted = sparse().csr_matrix(matrix + SHIFT * sparse().identity(graph.n))
    config = solver or SolverConfig()
    if solver is None:
        config = replace(config, rtol=min(1e-8, 0.1 * rtol))
    system = GraphSolver(shifted, phi=np.sqrt(graph.degrees), config=config)
    draw = rng("spectral", seed)
    if method == "eigsh":
        inverse = linalg().LinearOperator(
            matrix.shape,
            matvec=lambda x: null.remove(system.solve(null.remove(np.ravel(x)))),
            dtype=np.float64,
        )
        start = null.remove(draw.standard_normal(graph.n))
        values, vectors = linalg().eigsh(
            matrix, k, sigma=-SHIFT, OPinv=inverse, which="LM", v0=start, tol=rtol
        )
        return values, vectors, system.report()
    start = draw.standard_normal((graph.n, k + min(4, k)))  # guard vectors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is judged by its residuals
        values, vectors = linalg().lobpcg(
            matrix, null.remove(start), M=system.preconditioner(), Y=null.basis(),
            largest=False, tol=np.sqrt(rtol) * 1e-2, maxiter=200,
        )  # fmt: skip
    order = np.argsort(values)[:k]
    return values[order], vectors[:, order], system.report()
