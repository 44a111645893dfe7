"""Solves with a factorization: compiled sweeps, one vector or many, in threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.solve.operations import Stage
from understudy.solve.parallel import pool, ranges

LEAST = 1500
"""Fewer steps of one vector than this are not worth a second thread."""


def sweep(stages: Sequence[Stage], b: np.ndarray, threads: int = 1) -> np.ndarray:
    """Return `M^-1 b`.

    Args:
        stages: the factorization, leaves first.
        b: float64 [n] or [n, r]; several columns cost far less than as many single solves.
        threads: columns, or the steps of a single vector, are shared among so many.
    """
    from understudy.solve.kernels_sweep import WIDTH

    if b.ndim == 1:
        x = np.array(b, dtype=np.float64)
        _one(stages, x, threads)
        return x
    if b.shape[1] == 1:
        return sweep(stages, b[:, 0])[:, None]
    out = np.empty(b.shape)
    columns = [slice(at, min(at + WIDTH, b.shape[1])) for at in range(0, b.shape[1], WIDTH)]

    def work(part: slice) -> None:
        x = np.array(b[:, part], dtype=np.float64, order="C")
        _many(stages, x)
        out[:, part] = x

    if threads > 1 and len(columns) > 1:
        list(pool(threads).map(work, columns))
    else:
        for part in columns:
            work(part)
    return out


def _one(stages: Sequence[Stage], x: np.ndarray, threads: int) -> None:
    from understudy.solve.kernels_sweep import backward_one, forward_one

    for s in stages:
        left = s.left if s.general else s.right
        # steps that touch no neighbour may run side by side
        few = 1 if s.near.size or s.size.size < LEAST else threads
        ranges(forward_one, s.size.size, None, few, s.size, s.kept, s.packed, s.slot_start,
               s.slots, s.pivot_start, s.pivot, s.near_start, s.near, s.right_start, left,
               x)  # fmt: skip
    for s in reversed(stages):
        few = 1 if s.ordered or s.size.size < LEAST else threads
        ranges(backward_one, s.size.size, None, few, s.ordered, s.size, s.kept, s.packed,
               s.slot_start, s.slots, s.pivot_start, s.pivot, s.back, s.near_start, s.near,
               s.right_start, s.right, x)  # fmt: skip


def _many(stages: Sequence[Stage], x: np.ndarray) -> None:
    from understudy.solve.kernels_sweep import backward_many, forward_many

    for s in stages:
        left = s.left if s.general else s.right
        forward_many(s.size, s.kept, s.packed, s.slot_start, s.slots, s.pivot_start, s.pivot,
                     s.near_start, s.near, s.right_start, left, x)  # fmt: skip
    for s in reversed(stages):
        backward_many(s.ordered, s.size, s.kept, s.packed, s.slot_start, s.slots, s.pivot_start,
                      s.pivot, s.back, s.near_start, s.near, s.right_start, s.right,
                      x)  # fmt: skip
