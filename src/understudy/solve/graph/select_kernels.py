"""The compiled part of the exact search."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def smallest(values, count):
    """Return the columns int64 [m, count] of the smallest values of each row, in order.

    One pass with a sorted list: after a few hundred values nearly all are above its last one, so
    this reads a row once, where a partition moves it several times.
    """
    m, n = values.shape
    out = np.empty((m, count), np.int64)
    kept = np.empty(count, values.dtype)
    for row in range(m):
        for t in range(count):
            kept[t] = np.inf
            out[row, t] = -1
        last = kept[count - 1]
        for column in range(n):
            value = values[row, column]
            if value >= last:
                continue
            at = count - 1
            while at > 0 and kept[at - 1] > value:
                kept[at] = kept[at - 1]
                out[row, at] = out[row, at - 1]
                at -= 1
            kept[at] = value
            out[row, at] = column
            last = kept[count - 1]
    return out
