"""Halving boxes of points at the median of their longest side, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _before(coords, a, b, axis):
    """Compare two points along an axis; equal ones by the axes behind it, then by number."""
    dims = coords.shape[1]
    for shift in range(dims):
        k = (axis + shift) % dims
        if coords[a, k] != coords[b, k]:
            return coords[a, k] < coords[b, k]
    return a < b


@njit(cache=True, nogil=True)
def _select(coords, order, low, high, middle, axis):
    """Reorder points `low` to `high` so that those before `middle` are the smaller ones."""
    high -= 1
    while low < high:
        # the median of three keeps sorted input from being the worst case
        pivot, first, last = order[(low + high) // 2], order[low], order[high]
        if _before(coords, pivot, first, axis):
            pivot, first = first, pivot
        if _before(coords, last, pivot, axis):
            pivot = first if _before(coords, last, first, axis) else last
        i, j = low, high
        while i <= j:
            while _before(coords, order[i], pivot, axis):
                i += 1
            while _before(coords, pivot, order[j], axis):
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def halve(coords, depth, leaf):
    """Write the leaf of every point [n, d] into `leaf`, after `depth` halvings."""
    n, dims = coords.shape
    order = np.arange(n)
    starts = np.zeros((1 << depth) + 1, np.int64)
    starts[1] = n
    for level in range(depth):
        for box in range((1 << level) - 1, -1, -1):
            low, high = starts[box], starts[box + 1]
            middle = low + (high - low + 1) // 2
            best, longest = 0, -1.0
            for axis in range(dims):
                least = most = coords[order[low], axis] if high > low else 0.0
                for p in range(low, high):
                    value = coords[order[p], axis]
                    least, most = min(least, value), max(most, value)
                if most - least > longest:
                    best, longest = axis, most - least
            if high - low > 1:
                _select(coords, order, low, high, middle, best)
            starts[2 * box + 2] = high
            starts[2 * box + 1] = middle
            starts[2 * box] = low
    for box in range(1 << depth):
        for p in range(starts[box], starts[box + 1]):
            leaf[order[p]] = box
