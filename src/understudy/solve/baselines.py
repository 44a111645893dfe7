"""The other solvers that `solve` may choose: sparse LU, algebraic multigrid, the diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A preconditioner, or a direct solver.

    Attributes:
        apply: of float64 [n, r].
        floats: stored numbers.
        exact: whether one application solves the system up to rounding.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    floats: int
    exact: bool = False


def direct(matrix: Any, symmetric: bool) -> Prepared:
    """Factor by SuperLU; for symmetric patterns with minimum degree on `A + A^T`."""
    linalg: Any = require("scipy.sparse.linalg", "solve", "the solver")
    how = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}} if symmetric else {}
    lu = linalg.splu(matrix.tocsc(), **how)
    return Prepared(apply=lu.solve, floats=int(lu.nnz), exact=True)


def multigrid(matrix: Any, kind: str, near_null: np.ndarray | None = None) -> Prepared:
    """Set up algebraic multigrid: `rs` (Ruge-Stueben) or `sa` (smoothed aggregation).

    Args:
        matrix: symmetric positive definite, [n, n].
        kind: `rs` or `sa`.
        near_null: [n, q], near-null vectors of smoothed aggregation; None means constants.
    """
    pyamg: Any = require("pyamg", "solve", "algebraic multigrid")
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    plain = sparse.csr_matrix(matrix)
    if kind == "rs":
        levels = pyamg.ruge_stuben_solver(plain)
    else:
        levels = pyamg.smoothed_aggregation_solver(plain, B=near_null)
    cycle = levels.aspreconditioner()

    def apply(b: np.ndarray) -> np.ndarray:
        # the library cycles one vector at a time
        return np.column_stack([cycle @ b[:, i] for i in range(b.shape[1])])

    floats = sum(level.A.nnz for level in levels.levels)
    floats += sum(level.P.nnz for level in levels.levels if hasattr(level, "P"))
    return Prepared(apply=apply, floats=int(floats))


def diagonal(matrix: Any) -> Prepared:
    """Precondition by the diagonal (Jacobi); zeros on it count as ones."""
    values = matrix.diagonal()
    inverse = 1.0 / np.where(values == 0, 1.0, values)
    return Prepared(apply=lambda b: inverse[:, None] * b, floats=values.size)
