"""Solve `A X = B`: by the method that suits, or the one that is asked for."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.solve import baselines
from understudy.solve.checks import (
    check_memory,
    check_symmetric,
    checked_coords,
    checked_matrix,
    checked_phi,
    checked_vectors,
    is_symmetric,
)
from understudy.solve.choose import choose, is_flat
from understudy.solve.factorization import Factorization, without_warnings
from understudy.solve.krylov import IndefiniteError, Krylov, cg, gmres
from understudy.solve.null_space import (
    Components,
    centred,
    check_consistent,
    check_regular,
    find_components,
    grounds,
)
from understudy.solve.options import METHODS as FACTOR_METHODS

METHODS = ("auto", "direct", "rs", "sa", "jacobi", *FACTOR_METHODS)
"""`rs` and `sa` are algebraic multigrid, `direct` is sparse LU."""
EPS = 1e-2
EPS_MANY = 1e-6
MANY = 16
"""What `solve` takes for `eps`, and from `MANY` columns on in the plane: one iteration there, for
little memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A solution and how it was found.

    Attributes:
        x: float64 of the shape of B.
        iterations: of the column that took most; 0 for direct solves.
        residual: largest true `||b - A x|| / ||b||` of a column.
        method: what solved it.
        reason: why this method.
        seconds: wall time of setup and solve: `{"setup": ..., "solve": ...}`.
        converged: whether the residual is at most `rtol`.
        notes: remedies that ran, ranks that are full, residuals above `rtol`.
        floats: stored numbers of the factorization or hierarchy.
        components: connected components of the matrix.
        kappa: estimated condition number of the preconditioned matrix, after CG.
        factorization: the factorization of this package, to be used again.
    """

    x: np.ndarray
    iterations: int
    residual: float
    method: str
    reason: str
    seconds: dict[str, float]
    converged: bool
    notes: tuple[str, ...] = ()
    floats: int = 0
    components: int = 1
    kappa: float | None = None
    factorization: Factorization | None = field(default=None, repr=False)

    def report(self) -> dict[str, Any]:
        """Return everything but the solution as plain data."""
        names = ("iterations", "residual", "method", "reason", "seconds", "converged", "floats",
                 "components", "kappa")  # fmt: skip
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["notes"] = list(self.notes)
        if self.factorization is not None:
            found["factorization"] = self.factorization.summary()
        return found


def solve(
    A: Any,
    B: Any,
    *,
    rtol: float = 1e-10,
    method: str = "auto",
    null: str | None = None,
    phi: Any = "ones",
    coords: Any = None,
    eps: float | None = None,
    max_iterations: int = 1000,
    factorization: Factorization | None = None,
    **more: Any,
) -> Solution:
    """Solve `A X = B` for one or many right-hand sides.

    Args:
        A: SciPy sparse or dense, [n, n].
        B: [n] or [n, r].
        rtol: relative residual of every column.
        method: one of `METHODS`; `auto` chooses and says why.
        null: `"constant"` if `A 1 = 0` on components; x then has mean zero on each of them.
        phi: near-null vectors, as `factorize` takes them.
        coords: [n, d], to cut the tree by.
        eps: of the factorization; None takes 0.01, and 1e-6 for many columns in the plane.
        max_iterations: of CG or GMRES.
        factorization: one of this matrix, made before; then nothing is factored.
        **more: other fields of `FactorConfig`.

    Raises:
        ConfigError: an unknown method or setting.
        DataError: A or B cannot be solved; the message says where and what to do.
    """
    check_choice(method, METHODS, "solve: method")
    if null not in (None, "constant"):
        raise ConfigError(f"solve: null: expected None or 'constant', got '{null}'.")
    if not 0 < rtol < 1:
        raise ConfigError(f"solve: rtol: expected a number in (0, 1), got {rtol}.")
    matrix = checked_matrix(A)
    n = matrix.shape[0]
    b = checked_vectors(B, n)
    columns = b[:, None] if b.ndim == 1 else b
    if columns.shape[1] == 0:
        raise DataError("b has no columns.")
    check_memory(matrix.nnz, columns.shape[1], n)
    components = find_components(matrix)
    keep = _regular_part(matrix, components, columns, null)
    part = matrix if keep is None else _cut(matrix, keep)
    right = columns if keep is None else columns[keep]
    start = time.perf_counter()
    reason, asked = "asked for", method != "auto"
    if factorization is not None:
        method, reason = factorization.config.method, "a factorization was given"
        if factorization.n != part.shape[0]:
            raise DataError(
                f"the factorization is of {factorization.n} unknowns, A has {part.shape[0]}."
            )
    elif method == "auto":
        found = choose(part, columns.shape[1])
        method, reason = found.method, found.reason
    vectors, points = checked_phi(phi, n), checked_coords(coords, n)
    if keep is not None:
        vectors, points = vectors[keep], None if points is None else points[keep]
    if method in FACTOR_METHODS and factorization is None:
        more = {"second_order": method == "spand", **more}
        if eps is None:
            many = right.shape[1] >= MANY and is_flat(part, points)
            eps = EPS_MANY if many else EPS
        factorization = without_warnings(
            part, eps=eps, phi=vectors, coords=points, method=method, **more
        )
    elif more and asked and factorization is None:
        raise ConfigError(f"solve: {', '.join(more)}: settings of {', '.join(FACTOR_METHODS)}.")
    prepared = _prepare(part, method, factorization, vectors)
    middle = time.perf_counter()
    notes = list(factorization.notes) if factorization is not None else []
    result = _iterate(part, right, prepared, factorization, method, rtol, max_iterations, notes)
    end = time.perf_counter()
    x = result.x
    if keep is not None:
        x = np.zeros_like(columns)
        x[keep] = result.x
        x = centred(x, components)
    residual = float(result.residual.max())
    if residual > rtol:
        notes.append(
            f"residual {residual:.2g} is above rtol = {rtol:g} after {result.iterations.max()} "
            "iterations: rounding allows no better, or the method does not suit."
        )
        warnings.warn(notes[-1], stacklevel=2)
    return Solution(
        x=x[:, 0] if b.ndim == 1 else x,
        iterations=int(result.iterations.max()),
        residual=residual,
        method=method,
        reason=reason,
        seconds={"setup": middle - start, "solve": end - middle},
        converged=residual <= rtol,
        notes=tuple(notes),
        floats=prepared.floats,
        components=components.count,
        kappa=result.kappa,
        factorization=factorization,
    )


def _regular_part(
    matrix: Any, components: Components, b: np.ndarray, null: str | None
) -> np.ndarray | None:
    """Return the unknowns to solve for; None means all of them."""
    if null is None:
        check_regular(components)
        return None
    if not components.singular.size:
        return None
    check_symmetric(matrix, "null='constant'")
    check_consistent(components, b)
    keep = np.ones(matrix.shape[0], bool)
    keep[grounds(matrix, components)] = False
    return np.flatnonzero(keep)


def _cut(matrix: Any, keep: np.ndarray) -> Any:
    part = matrix[keep][:, keep]
    part.sort_indices()
    part.indices, part.indptr = part.indices.astype(np.int32), part.indptr.astype(np.int32)
    return part


def _prepare(
    matrix: Any, method: str, factorization: Factorization | None, phi: np.ndarray
) -> baselines.Prepared:
    if factorization is not None:
        return baselines.Prepared(apply=factorization.solve, floats=factorization.floats)
    if method == "direct":
        try:
            return baselines.direct(matrix, is_symmetric(matrix))
        except RuntimeError as error:
            raise DataError(f"A is singular to rounding ({error}).") from None
    check_symmetric(matrix, method)
    if method == "jacobi":
        return baselines.diagonal(matrix)
    return baselines.multigrid(matrix, method, phi if phi.shape[1] else None)


def _iterate(
    matrix: Any,
    b: np.ndarray,
    prepared: baselines.Prepared,
    factorization: Factorization | None,
    method: str,
    rtol: float,
    most: int,
    notes: list[str],
) -> Krylov:
    """Iterate; fall back from CG to GMRES, with a note, where CG may not be used."""
    if prepared.exact:
        return _refined(matrix, b, prepared, rtol)
    if factorization is None or factorization.spd:
        try:
            threads = 1 if factorization is None else factorization.config.threads
            return cg(matrix, b, prepared.apply, rtol, most, threads)
        except IndefiniteError as error:
            notes.append(
                f"the {error.what} is not positive definite ({method}): GMRES instead of CG."
            )
    return gmres(matrix, b, prepared.apply, rtol, most)


def _refined(matrix: Any, b: np.ndarray, prepared: baselines.Prepared, rtol: float) -> Krylov:
    """Solve directly, and once more for what is left if that helps."""
    x = prepared.apply(b)
    size = np.linalg.norm(b, axis=0)
    size[size == 0] = 1.0
    rest = b - matrix @ x
    residual = np.linalg.norm(rest, axis=0) / size
    if residual.max() > rtol:
        better = x + prepared.apply(rest)
        again = np.linalg.norm(b - matrix @ better, axis=0) / size
        if again.max() < residual.max():
            x, residual = better, again
    return Krylov(x=x, iterations=np.zeros(b.shape[1], np.int64), residual=residual)
