"""Approximate neighbours by descent: neighbours of neighbours are likely to be neighbours.

References:
    Dong, Charikar, Li, "Efficient k-nearest neighbor graph construction for generic similarity
    measures", WWW 2011 (local joins of new and old candidates, sampling, early end).
    Dasgupta, Freund, "Random projection trees and low dimensional manifolds", STOC
    2008 (the start).
"""

from __future__ import annotations

import numpy as np

from understudy.core import progress
from understudy.core.lazy import require
from understudy.core.seeds import rng
from understudy.solve.graph.neighbours import Neighbours

WIDER, LEAST = 2.0, 20
"""Length of the lists at work, over k and at least: longer ones find more."""
TREES = 4
ROUNDS = 20
SAMPLE = 15
"""Candidates of each kind (new, old) that a node joins in a round."""
END = 0.001
"""End when a round improves less than this share of all entries."""


def descend(points: np.ndarray, k: int, *, seed: int = 0) -> Neighbours:
    """Return about the k nearest other points of each.

    Args:
        points: float [n, d], n > k.
        k: neighbours.
        seed: of the trees and the samples; the result depends on nothing else.
    """
    require("numba", "solve", "approximate neighbours")
    from understudy.solve.graph import descent_kernels as kernels

    points = np.ascontiguousarray(points, np.float32)
    n = len(points)
    width = min(max(int(WIDER * k), LEAST), n - 1)  # short lists do not find each other
    indices = np.full((n, width), -1, np.int32)
    squares = np.full((n, width), np.inf, np.float32)
    fresh = np.zeros((n, width), np.bool_)
    with progress.bar("neighbours", TREES + ROUNDS, "rounds") as bar:
        for tree in range(TREES):
            order, leaf = _tree(points, 2 * width + 1, rng("descent tree", seed, tree))
            kernels.join_leaves(points, order, leaf, indices, squares, fresh)
            bar.advance()
        state = np.array([rng("descent", seed).integers(1, 2**62)], np.uint64)
        sample = min(SAMPLE, width)
        for done in range(ROUNDS):
            changed = int(kernels.join_round(points, indices, squares, fresh, sample, state))
            bar.advance(1, changed=changed / (n * width))
            if changed <= END * n * width:
                bar.advance(ROUNDS - done - 1)
                break
    found, distances = indices[:, :k], np.sqrt(squares[:, :k].astype(np.float64))
    if (found < 0).any():
        found, distances = _complete(points, found, distances)
    return Neighbours(indices=found.copy(), distances=distances)


def _tree(points: np.ndarray, leaf: int, draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return an order of the points in which runs of the returned length are near each other.

    All nodes of a level are halved along one random direction, at their medians.
    """
    n = len(points)
    order = np.arange(n)
    depth = max(0, int(np.ceil(np.log2(max(n / leaf, 1)))))
    for level in range(depth):
        along = points @ draw.standard_normal(points.shape[1]).astype(np.float32)
        node = np.arange(n) * (1 << level) // n
        order = order[np.lexsort((along[order], node))]
    return order, max(2, -(-n // (1 << depth)))


def _complete(
    points: np.ndarray, found: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Search exactly for the few points whose lists did not fill up."""
    from understudy.solve.graph.neighbours import ExactSearch

    short = np.flatnonzero((found < 0).any(axis=1))
    exact = ExactSearch(points).neighbours(found.shape[1], short)
    found, distances = found.copy(), distances.copy()
    found[short], distances[short] = exact.indices, exact.distances
    return found, distances
