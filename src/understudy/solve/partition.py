"""Recursive bisection of a graph: every unknown gets the number of its leaf, whose bits are a path.

Leaves are numbered so that bit `depth - 1` (the highest) says on which side of the first cut an
unknown lies, and so on down to bit 0. The cluster of a coarser level is a number shifted right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np

from understudy.core.lazy import require

GROUPS = 8
"""Groups of unknowns in a leaf, that METIS moves whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """A binary tree over the unknowns.

    Attributes:
        leaf: int64 [n], the leaf of each unknown, below `2 ** depth`.
        depth: number of cuts between the root and a leaf.
        source: what made the cuts: `"coordinates"`, `"metis"` or `"single"`.
    """

    leaf: np.ndarray
    depth: int
    source: str

    def at(self, depth: int) -> np.ndarray:
        """Return the cluster of each unknown at a depth (0 is the root), int64 [n]."""
        return self.leaf >> (self.depth - depth)


def depth_for(n: int, leaf: int) -> int:
    """Return how many cuts make leaves of about `leaf` unknowns."""
    return max(0, ceil(log2(n / leaf))) if n > leaf else 0


def make_tree(matrix: Any, leaf: int, coords: np.ndarray | None = None) -> Tree:
    """Cut the graph of a matrix into leaves of about `leaf` unknowns.

    Args:
        matrix: symmetric pattern, [n, n].
        leaf: unknowns in a leaf.
        coords: float [n, d]; cuts then halve the longest side of each box. METIS cuts without.

    Raises:
        MissingExtraError: no coordinates, and pymetis is not there.
    """
    n = matrix.shape[0]
    depth = depth_for(n, leaf)
    if depth == 0:
        return Tree(leaf=np.zeros(n, np.int64), depth=0, source="single")
    if coords is not None:
        return Tree(leaf=_by_coordinates(coords, depth), depth=depth, source="coordinates")
    return Tree(leaf=_by_metis(matrix, depth, leaf), depth=depth, source="metis")


def _by_coordinates(coords: np.ndarray, depth: int) -> np.ndarray:
    """Halve every box at the median of its longest side."""
    require("numba", "solve", "the solver")
    from understudy.solve.halve import halve

    leaf = np.empty(len(coords), np.int64)
    halve(np.ascontiguousarray(coords, dtype=np.float64), depth, leaf)
    return leaf


def _by_metis(matrix: Any, depth: int, leaf: int) -> np.ndarray:
    """Let METIS bisect recursively; it numbers parts so that bits are the path of cuts.

    Unknowns are first joined to small groups along heavy edges, which costs little quality and
    saves METIS its finest levels.
    """
    pymetis: Any = require("pymetis", "solve", "partitioning a graph without coordinates")
    require("numba", "solve", "the solver")
    from understudy.solve.coarsen import coarsen

    start, near = without_diagonal(matrix)
    weights, sizes = np.ones(near.size, np.int32), np.ones(start.size - 1, np.int32)
    maps = []
    for _ in range(max(0, int(log2(leaf / GROUPS)))):
        start, near, weights, sizes, group = coarsen(start, near, weights, sizes, leaf // 4)
        maps.append(group)
    # METIS draws random numbers: a fixed seed keeps factorizations reproducible
    parts = pymetis.part_graph(
        1 << depth,
        adjacency=pymetis.CSRAdjacency(start, near),
        vweights=sizes,
        eweights=weights,
        recursive=True,
        options=pymetis.Options(seed=0),
    )
    found = np.asarray(parts.vertex_part, dtype=np.int64)
    for group in reversed(maps):
        found = found[group]
    return found


def without_diagonal(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (indptr, indices), both int32, of a CSR pattern without its diagonal."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    off = rows != matrix.indices
    counts = np.bincount(rows[off], minlength=matrix.shape[0])
    start = np.concatenate(([0], np.cumsum(counts)))
    return start.astype(np.int32), matrix.indices[off].astype(np.int32)
