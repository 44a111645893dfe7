"""Small dense parts of the reference drivers: pivots, bases with preserved vectors, blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import linalg as scipy_linalg

linalg: Any = scipy_linalg
LinAlgError = scipy_linalg.LinAlgError

PRESERVE_DROP = 1e-12
"""Columns to preserve count as dependent below this, relative to the first pivot."""
ROUNDING = 1e-15
"""With eps = 0 nothing is dropped but what is rounding."""
MEAN_SIZE = 10
"""Mean unknowns of a cluster from which on compressing pays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pivot:
    """What turns a diagonal block into signs: `forward @ block @ backward = diag(sign)`."""

    forward: np.ndarray
    backward: np.ndarray
    sign: np.ndarray
    lower: np.ndarray | None = None


def pivot_of(block: np.ndarray, kind: str) -> Pivot:
    """Factor a diagonal block by Cholesky, eigenvalues (symmetric indefinite) or LU.

    Raises:
        LinAlgError: not positive definite, or singular.
    """
    m = block.shape[0]
    ones = np.ones(m)
    if kind == "chol":
        lower = linalg.cholesky(block, lower=True)
        forward = linalg.solve_triangular(lower, np.eye(m), lower=True)
        return Pivot(forward=forward, backward=forward.T, sign=ones, lower=lower)
    if kind == "ldl":
        values, vectors = np.linalg.eigh((block + block.T) / 2)
        if np.abs(values).min() <= ROUNDING * np.abs(values).max():
            raise LinAlgError("singular")
        forward = (vectors / np.sqrt(np.abs(values))).T
        return Pivot(forward=forward, backward=forward.T, sign=np.sign(values))
    order, lower, upper = linalg.lu(block)
    if np.abs(np.diag(upper)).min() <= ROUNDING * np.abs(upper).max():
        raise LinAlgError("singular")
    forward = linalg.solve_triangular(lower, order.T, lower=True, unit_diagonal=True)
    return Pivot(
        forward=forward, backward=linalg.solve_triangular(upper, np.eye(m), lower=False), sign=ones
    )


def rotation(
    keep: np.ndarray, far: np.ndarray, sign: np.ndarray, eps: float, relative: bool
) -> tuple[np.ndarray, int]:
    """Return (orthogonal [m, m], k): its first k columns span `keep` and most of `far`.

    With two signs, rows of either sign get a basis of their own, so that rotating keeps the
    diagonal block a matrix of signs.

    Args:
        keep: [m, c], columns to hold exactly.
        far: [m, N], columns to hold up to `eps`.
        sign: [m], of the diagonal block.
        eps: columns are taken while their remainder is above it.
        relative: whether `eps` is relative to the largest column of `far`.
    """
    m = far.shape[0]
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    largest = np.linalg.norm(far, axis=0).max(initial=0.0)
    for value in (1.0, -1.0):
        rows = np.flatnonzero(sign == value)
        if rows.size:
            parts.append((rows, _basis(keep[rows], far[rows], eps, largest, relative)))
    kept = sum(basis.shape[1] for _, basis in parts)
    q = np.zeros((m, m))
    front, back = 0, kept
    for rows, basis in parts:
        full = linalg.qr(basis)[0] if basis.shape[1] else np.eye(rows.size)
        k = basis.shape[1]
        q[rows, front : front + k] = full[:, :k]
        q[rows, back : back + rows.size - k] = full[:, k:]
        front, back = front + k, back + rows.size - k
    return q, kept


def _basis(
    keep: np.ndarray, far: np.ndarray, eps: float, largest: float, relative: bool
) -> np.ndarray:
    first = np.zeros((far.shape[0], 0))
    if keep.size:
        q, r, _ = linalg.qr(keep, mode="economic", pivoting=True)
        size = np.abs(np.diag(r))
        first = q[:, : int((size > PRESERVE_DROP * size.max(initial=0.0)).sum())]
    rest = far - first @ (first.T @ far)
    if not rest.size:
        return first
    q, r, _ = linalg.qr(rest, mode="economic", pivoting=True)
    floor = max(eps * (largest if relative else 1.0), ROUNDING * largest)
    return np.hstack((first, q[:, : int((np.abs(np.diag(r)) > floor).sum())]))


@dataclass(slots=True)
class Blocks:
    """A block matrix by clusters; both `(i, j)` and `(j, i)` are held.

    Attributes:
        slots: cluster -> int [m], positions of its unknowns.
        values: (i, j) -> float64 [m_i, m_j].
        near: cluster -> the clusters that it has a block with, itself left out.
        right: cluster -> float64 [m, q], the vectors to preserve.
        left: cluster -> the same for the transposed matrix.
    """

    slots: dict = field(default_factory=dict)
    values: dict = field(default_factory=dict)
    near: dict = field(default_factory=dict)
    right: dict = field(default_factory=dict)
    left: dict = field(default_factory=dict)

    @classmethod
    def of(cls, matrix, keys: list, phi: np.ndarray, psi: np.ndarray) -> Blocks:
        """Cut a sparse matrix [n, n] into blocks by the cluster of each unknown."""
        made = cls()
        members: dict = {}
        for i, key in enumerate(keys):
            members.setdefault(key, []).append(i)
        made.slots = {key: np.array(members[key]) for key in sorted(members)}
        place = np.zeros(len(keys), np.int64)
        for slots in made.slots.values():
            place[slots] = np.arange(slots.size)
        made.near = {key: set() for key in made.slots}
        coo = matrix.tocoo()
        for i, j, value in zip(coo.row, coo.col, coo.data, strict=True):
            made.block(keys[i], keys[j])[place[i], place[j]] += value
        for key, slots in made.slots.items():
            made.block(key, key)
            made.right[key], made.left[key] = phi[slots], psi[slots]
        return made

    def block(self, i, j) -> np.ndarray:
        """Return a block, made of zeros if it was not there."""
        if (i, j) not in self.values:
            self.values[i, j] = np.zeros((self.slots[i].size, self.slots[j].size))
            if i != j:
                self.near[i].add(j)
                self.near[j].add(i)
                self.block(j, i)
        return self.values[i, j]

    def scale(self, s, pivot: Pivot) -> None:
        """Turn the diagonal block of `s` into signs."""
        for j in self.near[s]:
            self.values[s, j] = pivot.forward @ self.values[s, j]
            self.values[j, s] = self.values[j, s] @ pivot.backward
        self.values[s, s] = np.diag(pivot.sign)
        self.right[s] = np.linalg.solve(pivot.backward, self.right[s])
        self.left[s] = np.linalg.solve(pivot.forward.T, self.left[s])

    def remove(self, s) -> None:
        """Forget a cluster that is eliminated."""
        for j in self.near.pop(s):
            del self.values[s, j], self.values[j, s]
            self.near[j].discard(s)
        del self.values[s, s], self.slots[s], self.right[s], self.left[s]

    def merged(self, parent) -> Blocks:
        """Stack clusters whose `parent(key)` is equal."""
        made = Blocks()
        children: dict = {}
        for key in sorted(self.slots):
            children.setdefault(parent(key), []).append(key)
        offset = {}
        for key, members in children.items():
            start = 0
            for child in members:
                offset[child] = start
                start += self.slots[child].size
            made.slots[key] = np.concatenate([self.slots[c] for c in members])
            made.right[key] = np.concatenate([self.right[c] for c in members])
            made.left[key] = np.concatenate([self.left[c] for c in members])
        made.near = {key: set() for key in made.slots}
        for (i, j), value in self.values.items():
            block = made.block(parent(i), parent(j))
            block[
                offset[i] : offset[i] + value.shape[0], offset[j] : offset[j] + value.shape[1]
            ] = value
        for key in made.slots:
            made.block(key, key)
        return made
