"""The compiled part of neighbour descent."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def square(points, a, b):
    """Return the squared distance of two rows."""
    total = np.float32(0.0)
    for t in range(points.shape[1]):
        difference = points[a, t] - points[b, t]
        total += difference * difference
    return total


@njit(cache=True, nogil=True)
def push(indices, squares, fresh, node, other, value):
    """Put `other` into the sorted list of `node`; return 1 if it went in."""
    width = indices.shape[1]
    if value >= squares[node, width - 1]:
        return 0
    for t in range(width):
        if indices[node, t] == other:
            return 0
    at = width - 1
    while at > 0 and squares[node, at - 1] > value:
        squares[node, at] = squares[node, at - 1]
        indices[node, at] = indices[node, at - 1]
        fresh[node, at] = fresh[node, at - 1]
        at -= 1
    squares[node, at] = value
    indices[node, at] = other
    fresh[node, at] = True
    return 1


@njit(cache=True, nogil=True)
def draw(state):
    """Return 32 random bits and move the state (xorshift64*)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return (x * np.uint64(2685821657736338717)) >> np.uint64(32)


@njit(cache=True, nogil=True)
def join_leaves(points, order, leaf, indices, squares, fresh):
    """Compare all pairs of points in each run of `leaf` points of an order."""
    n = len(order)
    for start in range(0, n, leaf):
        stop = min(start + leaf, n)
        for i in range(start, stop):
            a = order[i]
            for j in range(i + 1, stop):
                b = order[j]
                value = square(points, a, b)
                push(indices, squares, fresh, a, b, value)
                push(indices, squares, fresh, b, a, value)


@njit(cache=True, nogil=True)
def keep(candidates, counts, node, other, state):
    """Keep a uniform sample of what is offered to a node (a reservoir)."""
    room = candidates.shape[1]
    seen = counts[node]
    counts[node] = seen + 1
    if seen < room:
        candidates[node, seen] = other
        return
    at = np.int64(draw(state) % np.uint64(seen + 1))
    if at < room:
        candidates[node, at] = other


@njit(cache=True, nogil=True)
def gather(indices, fresh, sample, state):
    """Return samples of new and old candidates of each node, both directions, and their counts."""
    n, width = indices.shape
    new = np.full((n, sample), -1, np.int32)
    old = np.full((n, sample), -1, np.int32)
    new_count, old_count = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for node in range(n):
        for t in range(width):
            other = indices[node, t]
            if other < 0:
                continue
            if fresh[node, t]:
                keep(new, new_count, node, other, state)
                keep(new, new_count, other, node, state)
            else:
                keep(old, old_count, node, other, state)
                keep(old, old_count, other, node, state)
    for node in range(n):
        taken = min(new_count[node], sample)
        for t in range(width):
            if not fresh[node, t]:
                continue
            for s in range(taken):
                if new[node, s] == indices[node, t]:
                    fresh[node, t] = False
                    break
    return new, new_count, old, old_count


@njit(cache=True, nogil=True)
def join_round(points, indices, squares, fresh, sample, state):
    """Let the candidates of each node meet; return how many entries improved."""
    new, new_count, old, old_count = gather(indices, fresh, sample, state)
    changed = 0
    for node in range(len(points)):
        news = min(new_count[node], sample)
        olds = min(old_count[node], sample)
        for s in range(news):
            a = new[node, s]
            for t in range(s + 1, news):
                b = new[node, t]
                if a != b:
                    changed += meet(points, indices, squares, fresh, a, b)
            for t in range(olds):
                b = old[node, t]
                if a != b:
                    changed += meet(points, indices, squares, fresh, a, b)
    return changed


@njit(cache=True, nogil=True)
def meet(points, indices, squares, fresh, a, b):
    """Compare two points and offer each to the other."""
    value = square(points, a, b)
    last = indices.shape[1] - 1
    if value >= squares[a, last] and value >= squares[b, last]:
        return 0
    return push(indices, squares, fresh, a, b, value) + push(indices, squares, fresh, b, a, value)
