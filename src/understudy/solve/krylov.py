"""Conjugate gradients and GMRES for many columns, judged by the true residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESTARTS = 3
"""How often CG starts again from where it is, when its residual has drifted from the true one."""

Operator = Callable[[np.ndarray], np.ndarray]


class IndefiniteError(Exception):
    """CG met a direction in which the matrix or the preconditioner is not positive definite.

    Attributes:
        what: `"matrix"` or `"preconditioner"`.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(kw_only=True, slots=True)
class Krylov:
    """What an iteration returns.

    Attributes:
        x: float64 [n, r].
        iterations: int64 [r], of each column.
        residual: float64 [r], true `||b - A x|| / ||b||`.
        kappa: condition number of the preconditioned matrix, estimated from the coefficients of
            the first column (Lanczos); None where there are none.
    """

    x: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    kappa: float | None = None


@dataclass(slots=True)
class _Coefficients:
    steps: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    def kappa(self) -> float | None:
        """Return the ratio of the extreme eigenvalues of the Lanczos matrix."""
        if not self.steps:
            return None
        a, b = np.array(self.steps), np.array(self.turns[: len(self.steps) - 1])
        diagonal = 1 / a + np.concatenate(([0.0], b / a[:-1]))
        values = np.linalg.eigvalsh(
            np.diag(diagonal) + np.diag(np.sqrt(b) / a[:-1], 1) + np.diag(np.sqrt(b) / a[:-1], -1)
        )
        return float(values[-1] / values[0]) if values[0] > 0 else None


def cg(
    matrix: Any, b: np.ndarray, precondition: Operator, rtol: float, max_iterations: int
) -> Krylov:
    """Solve by preconditioned conjugate gradients, one iteration for all columns at once.

    Args:
        matrix: [n, n], symmetric positive definite.
        b: float64 [n, r].
        precondition: `M^-1` of [n, c].
        rtol: stop at `||b - A x|| <= rtol ||b||`.
        max_iterations: of each column.

    Raises:
        IndefiniteError: the matrix or the preconditioner is not positive definite.
    """
    n, r = b.shape
    x, iterations = np.zeros((n, r)), np.zeros(r, np.int64)
    size = np.linalg.norm(b, axis=0)
    coefficients = _Coefficients()
    residual = np.zeros(r)
    todo = np.flatnonzero(size > 0)
    for attempt in range(RESTARTS):
        rest = b[:, todo] - (matrix @ x[:, todo] if attempt else 0.0)
        residual[todo] = np.linalg.norm(rest, axis=0) / size[todo]
        before = residual.copy()
        open_ = (residual[todo] > rtol) & (iterations[todo] < max_iterations)
        todo, rest = todo[open_], rest[:, open_]
        if not todo.size:
            break
        _run(matrix, precondition, x, rest, todo, rtol * size, max_iterations, iterations,
             None if attempt else coefficients)  # fmt: skip
        true = np.linalg.norm(b[:, todo] - matrix @ x[:, todo], axis=0)
        residual[todo] = true / size[todo]
        # rounding sets a floor: stop where another start gains nothing
        todo = todo[(residual[todo] > rtol) & (residual[todo] < 0.5 * before[todo])]
    return Krylov(x=x, iterations=iterations, residual=residual, kappa=coefficients.kappa())


def _run(
    matrix: Any,
    precondition: Operator,
    x: np.ndarray,
    rest: np.ndarray,
    columns: np.ndarray,
    goal: np.ndarray,
    most: int,
    iterations: np.ndarray,
    coefficients: _Coefficients | None,
) -> None:
    """Iterate columns until their recursive residual is below the goal; change `x` in place."""
    columns = columns.copy()
    z = precondition(rest)
    p = z.copy()
    inner = _dots(rest, z)
    y = np.zeros_like(rest)
    while columns.size:
        if (inner <= 0).any():
            raise IndefiniteError("preconditioner")
        q = matrix @ p
        curve = _dots(p, q)
        if (curve <= 0).any():
            raise IndefiniteError("matrix")
        step = inner / curve
        y += step * p
        rest -= step * q
        iterations[columns] += 1
        first = coefficients is not None and columns[0] == 0
        if coefficients is not None and first:
            coefficients.steps.append(float(step[0]))
        done = (np.linalg.norm(rest, axis=0) <= goal[columns]) | (iterations[columns] >= most)
        if done.any():
            x[:, columns[done]] += y[:, done]
            left = ~done
            columns, y, p, rest = columns[left], y[:, left], p[:, left], rest[:, left]
            inner = inner[left]
            if not columns.size:
                return
        z = precondition(rest)
        new = _dots(rest, z)
        turn = new / inner
        if coefficients is not None and columns[0] == 0:
            coefficients.turns.append(float(turn[0]))
        p = z + turn * p
        inner = new


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", a, b)


def gmres(
    matrix: Any,
    b: np.ndarray,
    precondition: Operator,
    rtol: float,
    max_iterations: int,
    restart: int = 50,
) -> Krylov:
    """Solve by GMRES, preconditioned from the right, column after column.

    Args:
        matrix: [n, n].
        b: float64 [n, r].
        precondition: `M^-1` of [n, c].
        rtol: stop at `||b - A x|| <= rtol ||b||`.
        max_iterations: of each column, over all restarts.
        restart: directions that are kept.
    """
    n, r = b.shape
    x, iterations, residual = np.zeros((n, r)), np.zeros(r, np.int64), np.zeros(r)
    for column in range(r):
        size = np.linalg.norm(b[:, column])
        if size == 0:
            continue
        rest = b[:, column].copy()
        last = np.inf
        while True:
            norm = np.linalg.norm(rest)
            residual[column] = norm / size
            if norm <= rtol * size or iterations[column] >= max_iterations or norm > 0.9 * last:
                break
            last = norm
            least = min(restart, max_iterations - int(iterations[column]))
            change, steps = _cycle(matrix, precondition, rest, float(rtol * size), least)
            x[:, column] += change
            iterations[column] += steps
            rest = b[:, column] - matrix @ x[:, column]
    return Krylov(x=x, iterations=iterations, residual=residual)


def _cycle(
    matrix: Any, precondition: Operator, rest: np.ndarray, goal: float, restart: int
) -> tuple[np.ndarray, int]:
    """Return the change of x that one cycle of GMRES finds, and its number of steps."""
    norm = np.linalg.norm(rest)
    basis, turned = [rest / norm], []
    h = np.zeros((restart + 1, restart))
    k, y = 0, np.zeros(0)
    for k in range(1, restart + 1):
        turned.append(precondition(basis[-1][:, None])[:, 0])
        w = matrix @ turned[-1]
        for _ in range(2):  # twice is enough
            for i, v in enumerate(basis):
                part = v @ w
                h[i, k - 1] += part
                w = w - part * v
        h[k, k - 1] = np.linalg.norm(w)
        right = np.zeros(k + 1)
        right[0] = norm
        y, _, _, _ = np.linalg.lstsq(h[: k + 1, :k], right, rcond=None)
        if np.linalg.norm(right - h[: k + 1, :k] @ y) <= goal or h[k, k - 1] <= 1e-14 * norm:
            break
        basis.append(w / h[k, k - 1])
    return np.column_stack(turned) @ y, k
