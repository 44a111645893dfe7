"""Vertex separators from a tree of edge cuts.

The edges that a cut crosses form a bipartite graph; a smallest set of unknowns that touches them
all is a vertex separator (König's theorem: a maximum matching gives it). All cuts of one depth are
disjoint, so one matching serves them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import require
from understudy.solve.partition import Tree


def separator_depths(matrix: Any, tree: Tree) -> np.ndarray:
    """Return the depth of the cut that each unknown separates, int64 [n]; leaves have `tree.depth`.

    After removing all unknowns of depth below `d`, no edge joins two clusters of depth `d`.

    Args:
        matrix: symmetric pattern, [n, n].
        tree: edge cuts.

    References:
        König's theorem as in Hopcroft and Karp (1973); modified nested dissection of spaND,
        arXiv 1901.02971.
    """
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    cols = matrix.indices
    upper = rows < cols
    left, right = tree.leaf[rows[upper]], tree.leaf[cols[upper]]
    crossing = left != right
    u, v = rows[upper][crossing], cols[upper][crossing]
    differ = left[crossing] ^ right[crossing]
    # the highest differing bit says which cut the edge crosses; bit_length without a loop
    cut = tree.depth - 1 - np.floor(np.log2(differ)).astype(np.int64)
    depth = np.full(n, tree.depth, np.int64)
    for level in range(tree.depth):
        at = cut == level
        a, b = u[at], v[at]
        free = (depth[a] == tree.depth) & (depth[b] == tree.depth)
        a, b = a[free], b[free]
        if a.size == 0:
            continue
        side = (tree.leaf[a] >> (tree.depth - 1 - level)) & 1
        first, second = np.where(side == 0, a, b), np.where(side == 0, b, a)
        depth[smallest_cover(first, second)] = level
    return depth


@dataclass(frozen=True, kw_only=True, slots=True)
class Separators:
    """Where unknowns lie in the tree, and what those of separators touch.

    Attributes:
        depth: depth of the tree.
        cut: int64 [n], which cut each unknown separates; leaves have `depth`.
        path: int64 [n], the leaf of each unknown.
        other: int64 [n], the largest leaf that it touches across its cut; its own for leaves.
        touch: int64 [n], the first cut that it touches (its own, or one before).
    """

    depth: int
    cut: np.ndarray
    path: np.ndarray
    other: np.ndarray
    touch: np.ndarray


def find_separators(matrix: Any, tree: Tree) -> Separators:
    """Find separators and tell their unknowns apart by what they touch.

    Unknowns of a separator form a cluster if they lie between the same two regions and end at the
    same earlier separator. What the ends of a separator do is then kept apart from its middle,
    which nearly halves the iterations on a grid.
    """
    cut = separator_depths(matrix, tree)
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    columns = matrix.indices
    shift = np.maximum(tree.depth - 1 - cut, 0)[rows]
    across = ((tree.leaf[rows] ^ tree.leaf[columns]) >> shift == 1) & (cut[rows] < tree.depth)
    found = np.full(n, -1)
    np.maximum.at(found, rows[across], tree.leaf[columns[across]])
    touch = cut.copy()
    earlier = (cut[rows] < tree.depth) & (cut[columns] < cut[rows])
    np.minimum.at(touch, rows[earlier], cut[columns[earlier]])
    other = np.where(found >= 0, found, tree.leaf)
    return Separators(depth=tree.depth, cut=cut, path=tree.leaf, other=other, touch=touch)


def smallest_cover(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a smallest set of vertices that touches every edge of a bipartite graph.

    Args:
        first: int [e], one end of each edge.
        second: int [e], the other end; no number occurs in both.
    """
    sparse = require("scipy.sparse", "solve", "the solver")
    graph = require("scipy.sparse.csgraph", "solve", "the solver")
    names_a, a = np.unique(first, return_inverse=True)
    names_b, b = np.unique(second, return_inverse=True)
    ones = np.ones(len(a), np.int8)
    edges = sparse.csr_array((ones, (a, b)), shape=(len(names_a), len(names_b)))
    edges.sum_duplicates()
    edges.indices, edges.indptr = edges.indices.astype(np.int32), edges.indptr.astype(np.int32)
    mate_of_a = graph.maximum_bipartite_matching(edges, perm_type="column")
    mate_of_b = np.full(len(names_b), -1)
    matched = mate_of_a >= 0
    mate_of_b[mate_of_a[matched]] = np.flatnonzero(matched)
    # alternate from the unmatched of the first side
    seen_a, seen_b = ~matched, np.zeros(len(names_b), bool)
    frontier = seen_a.copy()
    while frontier.any():
        reached = np.zeros(len(names_b), bool)
        reached[b[frontier[a]]] = True
        reached &= ~seen_b
        seen_b |= reached
        back = mate_of_b[reached]
        frontier = np.zeros(len(names_a), bool)
        frontier[back[back >= 0]] = True
        frontier &= ~seen_a
        seen_a |= frontier
    return np.concatenate((names_a[~seen_a], names_b[seen_b]))
