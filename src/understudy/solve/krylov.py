"""Conjugate gradients and GMRES for many columns, judged by the true residual."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

BLOCK = 16
"""Columns that are iterated together: more would not fit caches any better."""
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
    matrix: Any,
    b: np.ndarray,
    precondition: Operator,
    rtol: float,
    max_iterations: int,
    threads: int = 1,
) -> Krylov:
    """Solve by preconditioned conjugate gradients, one iteration for many columns at once.

    Args:
        matrix: [n, n], symmetric positive definite.
        b: float64 [n, r].
        precondition: `M^-1` of [n, c].
        rtol: stop at `||b - A x|| <= rtol ||b||`.
        max_iterations: of each column.
        threads: blocks of columns that are solved side by side; `precondition` must bear it.

    Raises:
        IndefiniteError: the matrix or the preconditioner is not positive definite.
    """
    cuts = [slice(at, min(at + BLOCK, b.shape[1])) for at in range(0, b.shape[1], BLOCK)]
    x = np.empty(b.shape)

    def block(part: slice) -> Krylov:
        right = np.ascontiguousarray(b[:, part])
        found = _block(matrix, right, precondition, rtol, max_iterations)
        x[:, part] = found.x
        return replace(found, x=x)

    if threads > 1 and len(cuts) > 1:
        # a pool of its own: the preconditioner may wait for threads of another
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(block, cuts))
    else:
        parts = [block(part) for part in cuts]
    return Krylov(
        x=x,
        iterations=np.concatenate([part.iterations for part in parts]),
        residual=np.concatenate([part.residual for part in parts]),
        kappa=parts[0].kappa,
    )


def _block(
    matrix: Any, b: np.ndarray, precondition: Operator, rtol: float, max_iterations: int
) -> Krylov:
    n, r = b.shape
    x, iterations = np.zeros((n, r)), np.zeros(r, np.int64)
    size = _norms(b)
    coefficients = _Coefficients()
    residual = np.zeros(r)
    todo = np.flatnonzero(size > 0)
    rest = b if todo.size == r else b[:, todo]
    for attempt in range(RESTARTS):
        if not todo.size:
            break
        before = _norms(rest) / size[todo]
        _run(matrix, precondition, x, rest, todo, rtol * size, max_iterations, iterations,
             None if attempt else coefficients)  # fmt: skip
        whole = todo.size == r
        rest = (b if whole else b[:, todo]) - matrix @ (x if whole else x[:, todo])
        residual[todo] = _norms(rest) / size[todo]
        # rounding sets a floor: go on only where that still gains something
        again = (residual[todo] > rtol) & (residual[todo] < 0.5 * before)
        again &= iterations[todo] < max_iterations
        todo, rest = todo[again], rest[:, again]
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
    columns, rest = columns.copy(), rest.copy()
    z = precondition(rest)
    p, y, work = z.copy(), np.zeros_like(rest), np.empty_like(rest)
    inner = _dots(rest, z)
    while True:
        if (inner <= 0).any():
            raise IndefiniteError("preconditioner")
        q = matrix @ p
        curve = _dots(p, q)
        if (curve <= 0).any():
            raise IndefiniteError("matrix")
        step = inner / curve
        y += np.multiply(p, step, out=work)
        rest -= np.multiply(q, step, out=work)
        iterations[columns] += 1
        if coefficients is not None and columns[0] == 0:
            coefficients.steps.append(float(step[0]))
        done = (_norms(rest) <= goal[columns]) | (iterations[columns] >= most)
        if done.any():
            if done.all() and columns.size == x.shape[1]:
                x += y
                return
            x[:, columns[done]] += y[:, done]
            left = np.flatnonzero(~done)
            if not left.size:
                return
            columns, inner = columns[left], inner[left]
            y, p, rest = (np.ascontiguousarray(a[:, left]) for a in (y, p, rest))
            work = np.empty_like(rest)
        z = precondition(rest)
        new = _dots(rest, z)
        turn = new / inner
        if coefficients is not None and columns[0] == 0:
            coefficients.turns.append(float(turn[0]))
        p *= turn
        p += z
        inner = new


def _norms(a: np.ndarray) -> np.ndarray:
    return np.sqrt(_dots(a, a))


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
