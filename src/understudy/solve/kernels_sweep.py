"""Compiled forward and backward sweeps over the steps of a stage."""

from __future__ import annotations

import numpy as np
from numba import njit

from understudy.solve.kernels_dense import OPTIONS

WIDTH = 16
"""Most columns of a block of right-hand sides."""


@njit(**OPTIONS)
def forward_one(lo, hi, size, kept, packed, slot_start, slots, pivot_start, pivot, near_start,
                near, right_start, left, x):  # fmt: skip
    """Go forward through steps `lo` to `hi` with one vector `x` [n], in place."""
    largest, widest = 1, 1
    for s in range(lo, hi):
        largest = max(largest, size[s])
        widest = max(widest, near_start[s + 1] - near_start[s])
    space, result, taken = np.empty(largest), np.empty(largest), np.empty(widest)
    for s in range(lo, hi):
        m, k, at, p = size[s], kept[s], slot_start[s], pivot_start[s]
        t = space[:m]
        for i in range(m):
            t[i] = x[slots[at + i]]
        y = t
        if packed[s]:
            for j in range(m):
                value = t[j] / pivot[p]
                t[j] = value
                for i in range(1, m - j):
                    t[j + i] -= value * pivot[p + i]
                p += m - j
        else:
            y = result[:m]
            np.dot(pivot[p : p + m * m].reshape(m, m), t, y)
        for i in range(m):
            x[slots[at + i]] = y[i]
        n = near_start[s + 1] - near_start[s]
        if n > 0 and k < m:
            u = taken[:n]
            couple = left[right_start[s] : right_start[s + 1]].reshape(m - k, n)
            np.dot(couple.T, y[k:], u)
            for j in range(n):
                x[near[near_start[s] + j]] -= u[j]


@njit(**OPTIONS)
def backward_one(lo, hi, ordered, size, kept, packed, slot_start, slots, pivot_start, pivot, back,
                 near_start, near, right_start, right, x):  # fmt: skip
    """Go backward through steps `hi` to `lo`, in any order unless `ordered`, with one vector."""
    largest, widest = 1, 1
    for s in range(lo, hi):
        largest = max(largest, size[s])
        widest = max(widest, near_start[s + 1] - near_start[s])
    space, result, taken = np.empty(largest), np.empty(largest), np.empty(widest)
    general = back.size > 0
    for number in range(hi - lo):
        # memory is read ahead only in ascending order
        s = hi - 1 - number if ordered else lo + number
        m, k, at, p = size[s], kept[s], slot_start[s], pivot_start[s]
        t, y = space[:m], result[:m]
        for i in range(m):
            t[i] = x[slots[at + i]]
        n = near_start[s + 1] - near_start[s]
        if n > 0 and k < m:
            u = taken[:n]
            for j in range(n):
                u[j] = x[near[near_start[s] + j]]
            couple = right[right_start[s] : right_start[s + 1]].reshape(m - k, n)
            np.dot(couple, u, y[k:])
            for i in range(k, m):
                t[i] -= y[i]
        if packed[s]:
            y = t
            p = pivot_start[s + 1]
            for j in range(m - 1, -1, -1):
                p -= m - j
                value = t[j]
                for i in range(1, m - j):
                    value -= pivot[p + i] * t[j + i]
                t[j] = value / pivot[p]
        elif general:
            np.dot(back[p : p + m * m].reshape(m, m), t, y)
        else:
            np.dot(pivot[p : p + m * m].reshape(m, m).T, t, y)
        for i in range(m):
            x[slots[at + i]] = y[i]


@njit(**OPTIONS)
def forward_many(size, kept, packed, slot_start, slots, pivot_start, pivot, near_start, near,
                 right_start, left, x):  # fmt: skip
    """Go forward through all steps with a few vectors `x` [n, r], in place."""
    largest, widest, r = 1, 1, x.shape[1]
    for s in range(size.size):
        largest = max(largest, size[s])
        widest = max(widest, near_start[s + 1] - near_start[s])
    space, result, taken = np.empty(largest * r), np.empty(largest * r), np.empty(widest * r)
    for s in range(size.size):
        m, k, at, p = size[s], kept[s], slot_start[s], pivot_start[s]
        t = space[: m * r].reshape(m, r)
        for i in range(m):
            for c in range(r):
                t[i, c] = x[slots[at + i], c]
        y = t
        if packed[s]:
            for j in range(m):
                scale = 1.0 / pivot[p]
                for c in range(r):
                    t[j, c] *= scale
                for i in range(1, m - j):
                    factor = pivot[p + i]
                    for c in range(r):
                        t[j + i, c] -= factor * t[j, c]
                p += m - j
        else:
            y = result[: m * r].reshape(m, r)
            np.dot(pivot[p : p + m * m].reshape(m, m), t, y)
        for i in range(m):
            for c in range(r):
                x[slots[at + i], c] = y[i, c]
        n = near_start[s + 1] - near_start[s]
        if n > 0 and k < m:
            u = taken[: n * r].reshape(n, r)
            couple = left[right_start[s] : right_start[s + 1]].reshape(m - k, n)
            np.dot(couple.T, y[k:], u)
            for j in range(n):
                to = near[near_start[s] + j]
                for c in range(r):
                    x[to, c] -= u[j, c]


@njit(**OPTIONS)
def backward_many(ordered, size, kept, packed, slot_start, slots, pivot_start, pivot, back,
                  near_start, near, right_start, right, x):  # fmt: skip
    """Go backward through all steps, in any order unless `ordered`, with a few vectors."""
    largest, widest, r = 1, 1, x.shape[1]
    for s in range(size.size):
        largest = max(largest, size[s])
        widest = max(widest, near_start[s + 1] - near_start[s])
    space, result, taken = np.empty(largest * r), np.empty(largest * r), np.empty(widest * r)
    general = back.size > 0
    for number in range(size.size):
        s = size.size - 1 - number if ordered else number
        m, k, at = size[s], kept[s], slot_start[s]
        t, y = space[: m * r].reshape(m, r), result[: m * r].reshape(m, r)
        for i in range(m):
            for c in range(r):
                t[i, c] = x[slots[at + i], c]
        n = near_start[s + 1] - near_start[s]
        if n > 0 and k < m:
            u = taken[: n * r].reshape(n, r)
            for j in range(n):
                for c in range(r):
                    u[j, c] = x[near[near_start[s] + j], c]
            couple = right[right_start[s] : right_start[s + 1]].reshape(m - k, n)
            np.dot(couple, u, y[k:])
            for i in range(k, m):
                for c in range(r):
                    t[i, c] -= y[i, c]
        p = pivot_start[s]
        if packed[s]:
            y = t
            p = pivot_start[s + 1]
            for j in range(m - 1, -1, -1):
                # row j of the factor lies scattered over the packed columns
                p -= m - j
                scale = 1.0 / pivot[p]
                for c in range(r):
                    t[j, c] *= scale
                q = pivot_start[s] + j
                for i in range(j):
                    factor = pivot[q]
                    for c in range(r):
                        t[i, c] -= factor * t[j, c]
                    q += m - 1 - i
        elif general:
            np.dot(back[p : p + m * m].reshape(m, m), t, y)
        else:
            np.dot(pivot[p : p + m * m].reshape(m, m).T, t, y)
        for i in range(m):
            for c in range(r):
                x[slots[at + i], c] = y[i, c]
