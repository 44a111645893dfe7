"""Which clusters and blocks a level of nested dissection has: patterns, no numbers.

Clusters are numbered with the interiors (those that the level eliminates) first, each group in the
order of its place in the tree, so that what is close in the graph is close in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """The clusters of a level.

    Attributes:
        depth: depth in the tree of the interiors.
        cut: int64 [c], which cut each cluster belongs to; equals `depth` for interiors.
        path: int64 [c], place in the tree at this depth.
        other: int64 [c], the place across the cut.
        touch: int64 [c], the first cut that it touches.
        interiors: how many are eliminated; they come first.
    """

    depth: int
    cut: np.ndarray
    path: np.ndarray
    other: np.ndarray
    touch: np.ndarray
    interiors: int

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return self.cut.size


def group(
    depth: int, cut: np.ndarray, path: np.ndarray, other: np.ndarray, touch: np.ndarray
) -> tuple[Clusters, np.ndarray]:
    """Number the distinct clusters that items belong to; return them and the number of each item.

    Args:
        depth: of the level; items whose cut is not before it are interiors.
        cut: int64 [items].
        path: int64 [items], at this depth.
        other: int64 [items], at this depth.
        touch: int64 [items].
    """
    cut = np.minimum(cut, depth)
    inner = cut == depth
    other, touch = np.where(inner, path, other), np.where(inner, 0, touch)
    rest = np.where(inner, 0, 1 << depth)
    key = (((rest + path) * (depth + 1) + cut << depth) + other) * (depth + 1) + touch
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    clusters = Clusters(
        depth=depth,
        cut=cut[first],
        path=path[first],
        other=other[first],
        touch=touch[first],
        interiors=int(inner[first].sum()),
    )
    return clusters, number


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """The blocks of a level.

    Attributes:
        panel_start, panel_near: CSR of the clusters beside each interior, by number.
        row, column: int64 [b], blocks above the diagonal of clusters that stay, filled, sorted.
        up_start: int64 [c + 1], where the rows of these begin; `column` are the neighbours.
        start, near, block, entry: CSR of all blocks of a cluster that stays, from both sides:
            neighbour, number of the block, and for block `b` its place `entry[b]` in the CSR of
            its row.
        source, left, right: int64 [p], pairs of neighbours of an interior: the interior and their
            places in `panel_near`; sorted by what they update.
        target_start: int64 [b + c + 1], the pairs that update block `b`, then diagonal `b + i`.
    """

    panel_start: np.ndarray
    panel_near: np.ndarray
    row: np.ndarray
    column: np.ndarray
    up_start: np.ndarray
    start: np.ndarray
    near: np.ndarray
    block: np.ndarray
    entry: np.ndarray
    source: np.ndarray
    left: np.ndarray
    right: np.ndarray
    target_start: np.ndarray


def starts(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the row starts, int64 [count + 1], of sorted row numbers."""
    return np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=count)))).astype(np.int64)


def pairs(first: np.ndarray, second: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct pairs (smaller, larger) of different numbers, sorted."""
    differ = first != second
    first, second = first[differ], second[differ]
    key = np.sort(np.minimum(first, second) * np.int64(count) + np.maximum(first, second))
    key = key[np.diff(key, prepend=-1) > 0]
    return key // count, key % count


def pattern(clusters: Clusters, first: np.ndarray, second: np.ndarray) -> Pattern:
    """Fill a pattern by eliminating the interiors.

    Args:
        clusters: the level's clusters.
        first: the smaller of each pair of clusters with a block, as `pairs` returns them.
        second: the larger.
    """
    from understudy.solve.kernels_nested import list_pairs

    sparse: Any = require("scipy.sparse", "solve", "the solver")
    count, inner = clusters.count, clusters.interiors
    beside = first < inner
    panel_row, panel_near = first[beside], second[beside]
    panel_start = starts(panel_row, inner)
    incidence = sparse.csr_array(
        (np.ones(panel_near.size, np.int32), panel_near, panel_start), shape=(inner, count)
    )
    fill = (incidence.T @ incidence).tocoo()
    above = fill.row < fill.col
    row, column = pairs(
        np.concatenate((first[~beside], fill.row[above])),
        np.concatenate((second[~beside], fill.col[above])),
        count,
    )
    up_start = starts(row, count)
    both_row, both_near = np.concatenate((row, column)), np.concatenate((column, row))
    number = np.arange(row.size)
    order = np.argsort(both_row * np.int64(count) + both_near)
    entry = np.empty(order.size, np.int64)
    entry[order] = np.arange(order.size)
    beside_counts = np.diff(panel_start)
    num_pairs = int((beside_counts * (beside_counts + 1) // 2).sum())
    source, left, right, target = (np.empty(num_pairs, np.int64) for _ in range(4))
    list_pairs(inner, panel_start, panel_near, up_start, column, row.size, source, left, right,
               target)  # fmt: skip
    by_target = np.argsort(target, kind="stable")
    return Pattern(
        panel_start=panel_start,
        panel_near=panel_near,
        row=row,
        column=column,
        up_start=up_start,
        start=starts(both_row, count),
        near=both_near[order],
        block=np.concatenate((number, number))[order],
        entry=entry[: row.size],
        source=source[by_target],
        left=left[by_target],
        right=right[by_target],
        target_start=starts(target, row.size + count),
    )
