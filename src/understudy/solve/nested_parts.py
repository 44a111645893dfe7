"""The numbers of one level of nested dissection: where blocks lie, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from understudy.solve import nested_levels as levels
from understudy.solve.options import FactorConfig
from understudy.solve.parallel import ranges


def offsets(sizes: np.ndarray, first: int = 0) -> np.ndarray:
    """Return the starts, int64 [s + 1], of parts laid one behind the other."""
    return first + np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def spread(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return all numbers of the ranges `start` to `stop`, one range behind the other."""
    counts = stop - start
    return np.repeat(start - offsets(counts)[:-1], counts) + np.arange(counts.sum())


@dataclass(kw_only=True, slots=True)
class Numbers:
    """A level's blocks in one array.

    Attributes:
        clusters, pattern: what there is.
        size: int64 [c], unknowns of each cluster.
        slot_start, slots: their positions in the vector, cluster by cluster.
        diagonal_at: int64 [c], where each diagonal block is.
        panel_at, panel_width: int64 [interiors], where each panel is, and its columns.
        panel_place: int64, the first column of each neighbour within its panel.
        block_at: int64 [b], where each block above the diagonal is.
        pool: float64, all blocks.
        kept: int64 [c], unknowns that stay.
        scaled: whether diagonal blocks of what stays were factored.
    """

    clusters: levels.Clusters
    pattern: levels.Pattern
    size: np.ndarray
    slot_start: np.ndarray
    slots: np.ndarray
    diagonal_at: np.ndarray
    panel_at: np.ndarray
    panel_width: np.ndarray
    panel_place: np.ndarray
    block_at: np.ndarray
    pool: np.ndarray
    kept: np.ndarray
    scaled: bool = False
    basis_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    bases: np.ndarray = field(default_factory=lambda: np.zeros(0))
    turned_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turned: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pivots: np.ndarray = field(default_factory=lambda: np.zeros(0))
    width: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    place: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def layout(
        cls,
        clusters: levels.Clusters,
        pattern: levels.Pattern,
        size: np.ndarray,
        slots: np.ndarray,
    ) -> Numbers:
        """Lay out the blocks of a level, all zero."""
        inner = clusters.interiors
        near_size = size[pattern.panel_near]
        running = offsets(near_size)
        panel_width = running[pattern.panel_start[1:]] - running[pattern.panel_start[:-1]]
        panel_place = running[:-1] - np.repeat(
            running[pattern.panel_start[:-1]], np.diff(pattern.panel_start)
        )
        diagonal = offsets(size * size)
        panels = offsets(size[:inner] * panel_width, diagonal[-1])
        blocks = offsets(size[pattern.row] * size[pattern.column], panels[-1])
        return cls(
            clusters=clusters,
            pattern=pattern,
            size=size,
            slot_start=offsets(size),
            slots=slots,
            diagonal_at=diagonal[:-1],
            panel_at=panels[:-1],
            panel_width=panel_width,
            panel_place=panel_place,
            block_at=blocks[:-1],
            pool=np.zeros(int(blocks[-1])),
            kept=size.copy(),
        )

    def upper_entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the CSR of all blocks right of the diagonal: starts, neighbours, where, stride."""
        p, inner = self.pattern, self.clusters.interiors
        start = np.concatenate((p.panel_start, p.panel_start[-1] + p.up_start[inner + 1 :]))
        counts = np.diff(p.panel_start)
        at = np.repeat(self.panel_at, counts) + self.panel_place
        width = np.concatenate((np.repeat(self.panel_width, counts), self.size[p.column]))
        near = np.concatenate((p.panel_near, p.column))
        return start, near, np.concatenate((at, self.block_at)), width

    def eliminate(self, kernels: Any, threads: int) -> np.ndarray:
        """Factor the interiors and update what they touch; return which failed."""
        p, inner = self.pattern, self.clusters.interiors
        failed = np.zeros(inner, np.uint8)
        width = self.panel_width
        update_at = offsets(width * width)
        updates = np.empty(int(update_at[-1]))
        work = self.size[:inner] * (self.size[:inner] + width) ** 2 + 1
        ranges(kernels.eliminate, inner, work, threads, self.size, self.diagonal_at,
               self.panel_at, width, update_at, self.pool, updates, failed)  # fmt: skip
        if failed.any() or not p.row.size + self.clusters.count:
            return failed
        source = (
            update_at[p.source]
            + self.panel_place[p.left] * width[p.source]
            + self.panel_place[p.right]
        )
        at = np.concatenate((self.block_at, self.diagonal_at))
        height = np.concatenate((self.size[p.row], self.size))
        across = np.concatenate((self.size[p.column], self.size))
        ranges(kernels.subtract, at.size, height * across * np.diff(p.target_start) + 1, threads,
               at, height, across, p.target_start, source, width[p.source], updates,
               self.pool)  # fmt: skip
        return failed

    def scale(self, kernels: Any, phi: np.ndarray, threads: int) -> np.ndarray:
        """Scale every cluster that stays to the identity; return which failed."""
        p, inner, count = self.pattern, self.clusters.interiors, self.clusters.count
        failed = np.zeros(count, np.uint8)
        ranges(
            lambda lo, hi, *rest: kernels.scale_diagonals(lo + inner, hi + inner, *rest),
            count - inner, self.size[inner:] ** 3 + 1, threads, self.size, self.diagonal_at,
            self.slot_start, self.slots, phi, self.pool, failed,
        )  # fmt: skip
        if not failed.any():
            work = self.size[p.row] * self.size[p.column]
            ranges(kernels.scale_blocks, p.row.size, work + 1, threads, self.size,
                   self.diagonal_at, p.row, p.column, self.block_at, self.pool)  # fmt: skip
        self.scaled = True
        return failed

    def compress(self, kernels: Any, phi: np.ndarray, config: FactorConfig) -> np.ndarray:
        """Choose the bases of what stays; return the vectors to preserve, reduced to them."""
        p, inner, count = self.pattern, self.clusters.interiors, self.clusters.count
        running = offsets(self.size[p.near])
        self.width = running[p.start[1:]] - running[p.start[:-1]]
        self.place = running[:-1] - np.repeat(running[p.start[:-1]], np.diff(p.start))
        rest = np.arange(count) >= inner
        basis_at = offsets(np.where(rest, self.size**2, 0))
        turned_at = offsets(np.where(rest, self.size * self.width, 0))
        self.basis_at, self.turned_at = basis_at[:-1], turned_at[:-1]
        self.bases, self.pivots = np.empty(int(basis_at[-1])), np.empty(int(basis_at[-1]))
        self.turned = np.empty(int(turned_at[-1]))
        reduced = phi.copy()
        work = self.size[inner:] ** 2 * (self.width[inner:] + self.size[inner:]) + 1
        ranges(
            lambda lo, hi, *more: kernels.compress(lo + inner, hi + inner, *more),
            count - inner, work, config.threads, self.size, self.diagonal_at, p.start, p.near,
            p.block, self.block_at, self.slot_start, self.slots, phi, reduced, config.eps,
            config.second_order, self.pool, self.kept, self.basis_at, self.bases, self.turned_at,
            self.turned, self.pivots,
        )  # fmt: skip
        return reduced

    def merged(self, kernels: Any, depth: int, threads: int) -> tuple[Numbers, levels.Clusters]:
        """Stack what is left into the clusters of the next level."""
        p, old, inner = self.pattern, self.clusters, self.clusters.interiors
        clusters, number = levels.group(
            depth, old.cut[inner:], old.path[inner:] >> 1, old.other[inner:] >> 1,
            old.touch[inner:],
        )  # fmt: skip
        parent = np.concatenate((np.full(inner, -1), number))
        # children of a parent, in order; positions of the first within the parent
        kept = self.kept[inner:]
        order = np.argsort(number, kind="stable")
        child = order + inner
        size = np.bincount(number, kept, clusters.count).astype(np.int64)
        within = np.empty(old.count, np.int64)
        running = offsets(kept[order])[:-1]
        within[child] = running - offsets(size)[number[order]]
        begin = self.slot_start[child]
        slots = self.slots[spread(begin, begin + self.kept[child])]
        first, second = levels.pairs(parent[p.row], parent[p.column], clusters.count)
        made = Numbers.layout(clusters, levels.pattern(clusters, first, second), size, slots)
        to, stride, flip = self._targets(made, parent, within)
        if self.scaled:
            _fill_unit(made, parent[inner:], within[inner:], kept)
        else:
            kernels.copy_diagonals(inner, old.count, self.size, self.diagonal_at, self.pool,
                                   made.diagonal_at[number], made.size[number], within,
                                   made.pool)  # fmt: skip
        width = self.width if self.scaled else self.size
        ranges(kernels.merge_blocks, p.row.size, self.size[p.row] * self.size[p.column] + 1,
               threads, self.size, self.kept, p.row, p.column, self.block_at, p.entry, width,
               self.place, self.basis_at, self.bases, self.turned_at, self.turned, self.pool,
               to, stride, flip, made.pool)  # fmt: skip
        return made, clusters

    def _targets(
        self, made: Numbers, parent: np.ndarray, within: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where each block goes in the next level, its stride there, and if transposed."""
        p = self.pattern
        a, b = parent[p.row], parent[p.column]
        rows, columns = within[p.row], within[p.column]
        same = a == b
        flip = (a > b) | (same & (rows > columns))
        low, high = np.where(flip, b, a), np.where(flip, a, b)
        down, across = np.where(flip, columns, rows), np.where(flip, rows, columns)
        start, near, at, width = made.upper_entries()
        count = np.int64(max(made.clusters.count, 1))
        key = np.repeat(np.arange(made.clusters.count), np.diff(start)) * count + near
        found = np.searchsorted(key, low * count + high)
        found = np.minimum(found, max(key.size - 1, 0))
        if not key.size:
            at, width = np.zeros(1, np.int64), np.zeros(1, np.int64)
        stride = np.where(same, made.size[low], width[found])
        base = np.where(same, made.diagonal_at[low], at[found])
        return base + down * stride + across, stride, flip


def _fill_unit(made: Numbers, parent: np.ndarray, within: np.ndarray, kept: np.ndarray) -> None:
    stride = made.size[parent]
    at = made.diagonal_at[parent] + within * (stride + 1)
    row = spread(np.zeros_like(kept), kept)
    made.pool[np.repeat(at, kept) + row * (np.repeat(stride, kept) + 1)] = 1.0
