"""One round of coarsening of a graph: neighbours are joined in pairs along heavy edges."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _match(start, near, weights, sizes, largest, group):
    count = 0
    for u in range(start.size - 1):
        if group[u] >= 0:
            continue
        best, heaviest = -1, 0
        for e in range(start[u], start[u + 1]):
            v = near[e]
            if group[v] < 0 and v != u and weights[e] > heaviest and sizes[u] + sizes[v] <= largest:
                best, heaviest = v, weights[e]
        group[u] = count
        if best >= 0:
            group[best] = count
        count += 1
    return count


@njit(cache=True, nogil=True)
def _contract(start, near, weights, group, count, new_start, new_near, new_weights):
    begin = np.zeros(count + 1, np.int64)
    for u in range(group.size):
        begin[group[u] + 1] += 1
    for i in range(count):
        begin[i + 1] += begin[i]
    members, place = np.empty(group.size, np.int64), begin[:-1].copy()
    for u in range(group.size):
        members[place[group[u]]] = u
        place[group[u]] += 1
    seen = np.full(count, -1, np.int64)
    k = 0
    for i in range(count):
        first = k
        for p in range(begin[i], begin[i + 1]):
            u = members[p]
            for e in range(start[u], start[u + 1]):
                j = group[near[e]]
                if j == i:
                    continue
                if seen[j] >= first:
                    new_weights[seen[j]] += weights[e]
                else:
                    seen[j], new_near[k], new_weights[k] = k, j, weights[e]
                    k += 1
        new_start[i + 1] = k
    return k


def coarsen(
    start: np.ndarray, near: np.ndarray, weights: np.ndarray, sizes: np.ndarray, largest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Join vertices in pairs.

    Args:
        start: int32 [n + 1], CSR of a graph without loops.
        near: int32, the neighbours.
        weights: int32, of its edges.
        sizes: int32, of its vertices.
        largest: no pair weighs more.

    Returns:
        (start, near, weights, sizes) of the coarser graph and int32 [n], the pair of each vertex.
    """
    group = np.full(sizes.size, -1, np.int32)
    count = _match(start, near, weights, sizes, largest, group)
    new_start = np.zeros(count + 1, np.int32)
    new_near, new_weights = np.empty(near.size, np.int32), np.empty(near.size, np.int32)
    k = _contract(start, near, weights, group, count, new_start, new_near, new_weights)
    new_sizes = np.bincount(group, sizes, count).astype(np.int32)
    return new_start, new_near[:k].copy(), new_weights[:k].copy(), new_sizes, group
