"""What a factorization is made of: one small dense step after another, in flat arrays.

A step works on the `m` unknowns of a cluster. Going forward it replaces them by `G x`, keeps the
first `k` for coarser levels and takes the other `m - k` out of the neighbours:

    y = G x[slots];  x[slots] = y;  x[near] -= left^T y[k:]

and going backward, in reverse order,

    y = x[slots];  y[k:] -= right x[near];  x[slots] = H y

For symmetric positive definite matrices `H = G^T` and `left = right`, stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step, in plain matrices.

    Attributes:
        slots: int [m], positions of the cluster's unknowns; the first `kept` stay.
        kept: how many unknowns are left for coarser levels.
        forward: float64 [m, m], `G`; lower triangular where `lower` is given.
        near: int [N], positions of the neighbours' unknowns.
        right: float64 [m - kept, N].
        lower: float64 [m, m], the Cholesky factor whose inverse `G` is; None elsewhere.
        backward: float64 [m, m], `H`; None means `G^T`.
        left: float64 [m - kept, N]; None means `right`.
    """

    slots: np.ndarray
    kept: int
    forward: np.ndarray
    near: np.ndarray
    right: np.ndarray
    lower: np.ndarray | None = None
    backward: np.ndarray | None = None
    left: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Steps of one phase of one level, in flat arrays.

    Attributes:
        size: int32 [s], unknowns of each step.
        kept: int32 [s], how many of them stay.
        packed: uint8 [s], 1 where `pivot` is a Cholesky factor, column by column of the lower
            triangle; 0 where it is `G`, row by row.
        slot_start, slots: int64 [s + 1] and int32, positions of the unknowns.
        pivot_start, pivot: int64 [s + 1] and float64.
        back: float64 like `pivot`, `H` row by row; empty when `H = G^T`.
        near_start, near: int64 [s + 1] and int32, positions of the neighbours' unknowns.
        right_start, right: int64 [s + 1] and float64, row by row.
        left: float64 like `right`; empty when they are equal.
        ordered: whether a step reads what a later one of the stage writes; steps of a stage that
            is not ordered may be taken in any order, and going backward in theirs is faster.
    """

    size: np.ndarray
    kept: np.ndarray
    packed: np.ndarray
    slot_start: np.ndarray
    slots: np.ndarray
    pivot_start: np.ndarray
    pivot: np.ndarray
    back: np.ndarray
    near_start: np.ndarray
    near: np.ndarray
    right_start: np.ndarray
    right: np.ndarray
    left: np.ndarray
    ordered: bool

    @property
    def general(self) -> bool:
        """Whether forward and backward matrices are stored apart."""
        return self.back.size > 0

    @property
    def floats(self) -> int:
        """How many numbers are stored."""
        return self.pivot.size + self.back.size + self.right.size + self.left.size

    @property
    def bytes(self) -> int:
        """Memory of all arrays."""
        arrays = (getattr(self, field.name) for field in fields(self))
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def pack(steps: Sequence[Step]) -> Stage:
    """Lay steps out in flat arrays."""
    general = any(step.backward is not None for step in steps)

    def joined(parts: list[np.ndarray], dtype: type) -> tuple[np.ndarray, np.ndarray]:
        start = np.concatenate(([0], np.cumsum([part.size for part in parts]))).astype(np.int64)
        flat = [np.asarray(part, dtype).ravel() for part in parts]
        return start, np.concatenate(flat) if flat else np.zeros(0, dtype)

    slot_start, slots = joined([step.slots for step in steps], np.int32)
    near_start, near = joined([step.near for step in steps], np.int32)
    right_start, right = joined([step.right for step in steps], np.float64)
    packed = [step.lower is not None and not general for step in steps]
    pivots = [
        pack_lower(step.lower) if flag and step.lower is not None else step.forward
        for step, flag in zip(steps, packed, strict=True)
    ]
    pivot_start, pivot = joined(pivots, np.float64)
    back = left = np.zeros(0)
    if general:
        backs = [s.forward.T if s.backward is None else s.backward for s in steps]
        back = joined(backs, np.float64)[1]
        left = joined([s.right if s.left is None else s.left for s in steps], np.float64)[1]
    return Stage(
        size=np.array([step.slots.size for step in steps], np.int32),
        kept=np.array([step.kept for step in steps], np.int32),
        packed=np.array(packed, np.uint8),
        slot_start=slot_start,
        slots=slots,
        pivot_start=pivot_start,
        pivot=pivot,
        back=back,
        near_start=near_start,
        near=near,
        right_start=right_start,
        right=right,
        left=left,
        ordered=True,
    )


def pack_lower(lower: np.ndarray) -> np.ndarray:
    """Return the lower triangle of a matrix [m, m], column by column, float64 [m (m + 1) / 2]."""
    return lower.T[np.triu_indices(lower.shape[0])]


def unpack_lower(packed: np.ndarray, m: int) -> np.ndarray:
    """Return the lower triangular matrix [m, m] of its packed columns."""
    upper = np.zeros((m, m))
    upper[np.triu_indices(m)] = packed
    return upper.T


def steps_of(stage: Stage) -> list[Step]:
    """Return the steps of a stage as plain matrices (views where possible)."""
    from scipy.linalg import solve_triangular

    steps = []
    for i, (m, kept) in enumerate(zip(stage.size.tolist(), stage.kept.tolist(), strict=True)):
        pivot = stage.pivot[stage.pivot_start[i] : stage.pivot_start[i + 1]]
        lower = unpack_lower(pivot, m) if stage.packed[i] else None
        forward = (
            pivot.reshape(m, m) if lower is None else solve_triangular(lower, np.eye(m), lower=True)
        )
        rows = slice(stage.right_start[i], stage.right_start[i + 1])
        near = stage.near[stage.near_start[i] : stage.near_start[i + 1]]
        shape = (m - kept, near.size)
        back = None
        if stage.general:
            back = stage.back[stage.pivot_start[i] : stage.pivot_start[i + 1]].reshape(m, m)
        steps.append(
            Step(
                slots=stage.slots[stage.slot_start[i] : stage.slot_start[i + 1]],
                kept=kept,
                forward=forward,
                near=near,
                right=stage.right[rows].reshape(shape),
                lower=lower,
                backward=back,
                left=stage.left[rows].reshape(shape) if stage.general else None,
            )
        )
    return steps


def solve_plain(stages: Sequence[Stage], b: np.ndarray) -> np.ndarray:
    """Return `M^-1 b` in NumPy, step by step: slow, for tests of the compiled sweeps.

    Args:
        stages: the factorization, leaves first.
        b: float64 [n] or [n, r].
    """
    x = np.array(b, dtype=np.float64)
    steps = [step for stage in stages for step in steps_of(stage)]
    for step in steps:
        y = step.forward @ x[step.slots]
        x[step.slots] = y
        left = step.right if step.left is None else step.left
        x[step.near] -= left.T @ y[step.kept :]
    for step in reversed(steps):
        y = x[step.slots]
        y[step.kept :] -= step.right @ x[step.near]
        x[step.slots] = (step.forward.T if step.backward is None else step.backward) @ y
    return x


def apply_plain(stages: Sequence[Stage], x: np.ndarray) -> np.ndarray:
    """Return `M x`: the inverse of each line of the solve, in the opposite order.

    Args:
        stages: the factorization, leaves first.
        x: float64 [n] or [n, r].
    """
    b = np.array(x, dtype=np.float64)
    steps = [step for stage in stages for step in steps_of(stage)]
    for step in steps:
        if step.lower is not None:
            y = step.lower.T @ b[step.slots]
        else:
            back = step.forward.T if step.backward is None else step.backward
            y = np.linalg.solve(back, b[step.slots])
        y[step.kept :] += step.right @ b[step.near]
        b[step.slots] = y
    for step in reversed(steps):
        y = b[step.slots]
        left = step.right if step.left is None else step.left
        b[step.near] += left.T @ y[step.kept :]
        b[step.slots] = np.linalg.solve(step.forward, y) if step.lower is None else step.lower @ y
    return b
