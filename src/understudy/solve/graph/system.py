"""The one place where graphs meet the solver: a system is prepared once and solved many times.

Graphs of neighbours in many dimensions are expanders: cuts are large, every factorization fills up,
and conjugate gradients with the diagonal converge in some ten iterations. Graphs of low intrinsic
dimension, or with little regularisation, are the opposite. `auto` therefore iterates with the
diagonal first, for at most `QUICK` steps, and asks `understudy.solve` for a method only where that
does not get there.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.solve import baselines
from understudy.solve.checks import checked_matrix, checked_vectors
from understudy.solve.choose import choose
from understudy.solve.factorization import without_warnings as factorize
from understudy.solve.graph.scipy_parts import linalg
from understudy.solve.krylov import cg

METHODS = ("auto", "direct", "jacobi", "rs", "sa", "spand", "hsolve")
QUICK = 300
"""Iterations with the diagonal before `auto` looks for something better."""
TINY = 500
"""Up to so many unknowns sparse LU takes milliseconds, whatever the graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverConfig:
    """How systems on graphs are solved.

    Attributes:
        method: `auto` or one of `METHODS`.
        rtol: relative residual of every column.
        max_iterations: of conjugate gradients, per column.
        eps: accuracy of this package's factorization (`spand`, `hsolve`).
        block: columns that are solved at a time; memory is about six vectors a column.
    """

    method: str = "auto"
    rtol: float = 1e-10
    max_iterations: int = 5000
    eps: float = 0.1
    block: int = 64

    def __post_init__(self) -> None:
        check_choice(self.method, METHODS, "graph solver: method")
        if not 0 < self.rtol < 1:
            raise ConfigError(f"graph solver: rtol: expected a number in (0, 1), got {self.rtol}.")
        for name in ("max_iterations", "block"):
            if getattr(self, name) < 1:
                got = getattr(self, name)
                raise ConfigError(f"graph solver: {name}: expected at least 1, got {got}.")


class GraphSolver:
    """Solves `A X = B` for one symmetric positive definite A and any number of B.

    Args:
        matrix: SciPy sparse [n, n].
        phi: near-null vector [n] or [n, q] of A; None takes the constant.
        config: method and accuracy.

    Attributes:
        method: what solves; for `auto` known after the first solve.
        reason: why.
        iterations: most iterations of any column so far.
        residual: largest relative residual of any column so far.
        seconds: spent so far, `{"setup": ..., "solve": ...}`.
    """

    def __init__(
        self, matrix: Any, *, phi: np.ndarray | None = None, config: SolverConfig | None = None
    ) -> None:
        self.config = config or SolverConfig()
        self.matrix = checked_matrix(matrix)
        self.n = self.matrix.shape[0]
        self.phi = np.ones((self.n, 1)) if phi is None else np.asarray(phi).reshape(self.n, -1)
        self.method, self.reason = self.config.method, "asked for"
        self.iterations, self.residual = 0, 0.0
        self.seconds = {"setup": 0.0, "solve": 0.0}
        self._prepared: baselines.Prepared | None = None

    def solve(self, right: Any) -> np.ndarray:
        """Return X, float64 of the shape of `right`, [n] or [n, r].

        Raises:
            DataError: another number of rows, not finite, or A is singular.
        """
        b = checked_vectors(right, self.n)
        columns = b[:, None] if b.ndim == 1 else b
        x = np.empty_like(columns)
        for at in range(0, columns.shape[1], self.config.block):
            part = slice(at, at + self.config.block)
            x[:, part] = self._block(np.ascontiguousarray(columns[:, part]), columns.shape[1])
        return x[:, 0] if b.ndim == 1 else x

    def preconditioner(self) -> Any:
        """Return a SciPy `LinearOperator` that is about `A^-1` and symmetric positive definite."""
        if self._prepared is None and self.method == "auto":
            self._choose(1)
        apply = self._prepare()

        def vector(v: np.ndarray) -> np.ndarray:
            return apply(np.asarray(v, np.float64).reshape(-1, 1))[:, 0]

        return linalg().LinearOperator(
            (self.n, self.n), matvec=vector, matmat=apply, rmatvec=vector, dtype=np.float64
        )

    def report(self) -> dict[str, Any]:
        """Return method, reason, iterations, residual and seconds as plain data."""
        names = ("method", "reason", "iterations", "residual", "seconds")
        return {name: getattr(self, name) for name in names}

    def _block(self, b: np.ndarray, columns: int) -> np.ndarray:
        if self.method == "auto":
            x = self._try_diagonal(b)
            if x is not None:
                return x
            self._choose(columns)
        apply = self._prepare()
        start = time.perf_counter()
        assert self._prepared is not None
        if self._prepared.exact:
            x = apply(b)
            x += apply(b - self.matrix @ x)  # refined once
            size = np.linalg.norm(b, axis=0)
            rest = np.linalg.norm(b - self.matrix @ x, axis=0) / np.where(size > 0, size, 1.0)
            self._note(0, float(rest.max(initial=0.0)), start)
            return x
        found = cg(self.matrix, b, apply, self.config.rtol, self.config.max_iterations)
        self._note(int(found.iterations.max()), float(found.residual.max()), start)
        return found.x

    def _note(self, iterations: int, residual: float, start: float) -> None:
        self.seconds["solve"] += time.perf_counter() - start
        self.iterations = max(self.iterations, iterations)
        self.residual = max(self.residual, residual)
        if residual > self.config.rtol:
            warnings.warn(
                f"the system on the graph was solved to a residual of {residual:.2g} only, asked "
                f"for {self.config.rtol:g} (method {self.method}, {iterations} iterations).",
                stacklevel=4,
            )

    def _try_diagonal(self, b: np.ndarray) -> np.ndarray | None:
        if self.n <= TINY:
            return None
        start = time.perf_counter()
        most = min(QUICK, self.config.max_iterations)
        found = cg(self.matrix, b, baselines.diagonal(self.matrix).apply, self.config.rtol, most)
        if found.residual.max() > self.config.rtol:
            self.seconds["setup"] += time.perf_counter() - start
            return None
        self.method = "jacobi"
        self.reason = f"conjugate gradients with the diagonal took {found.iterations.max()} steps"
        self._note(int(found.iterations.max()), float(found.residual.max()), start)
        return found.x

    def _choose(self, columns: int) -> None:
        found = choose(self.matrix, columns)
        self.method, self.reason = found.method, found.reason

    def _prepare(self) -> Callable[[np.ndarray], np.ndarray]:
        if self._prepared is None:
            start = time.perf_counter()
            self._prepared = self._prepared_by(self.method)
            self.seconds["setup"] += time.perf_counter() - start
        return self._prepared.apply

    def _prepared_by(self, method: str) -> baselines.Prepared:
        if method == "direct":
            try:
                return baselines.direct(self.matrix, True)
            except RuntimeError as error:
                raise DataError(f"the graph's matrix is singular ({error}).") from None
        if method == "jacobi":
            return baselines.diagonal(self.matrix)
        if method in ("rs", "sa"):
            return baselines.multigrid(self.matrix, method, self.phi)
        made = factorize(self.matrix, eps=self.config.eps, phi=self.phi, method=method)
        return baselines.Prepared(apply=made.solve, floats=made.floats)
