"""The near/far driver, compiled: compress far blocks of a cluster, eliminate the rest, merge."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import require
from understudy.solve.lost import PivotLostError
from understudy.solve.nested_levels import pairs, starts
from understudy.solve.nested_parts import offsets, spread
from understudy.solve.operations import Stage
from understudy.solve.options import FactorConfig, alpha_of
from understudy.solve.partition import Tree
from understudy.solve.stats import LevelStats


def near(
    matrix: Any, tree: Tree, phi: np.ndarray, config: FactorConfig
) -> tuple[list[Stage], list[LevelStats]]:
    """Factor a symmetric positive definite matrix by compressing far blocks.

    Equals `near_reference` up to rounding, with the same arguments.

    Raises:
        PivotLostError: a diagonal block is not positive definite, perhaps by truncation.

    References:
        Sparse hierarchical solvers with guaranteed convergence, arXiv 1611.03189, in the symmetric
        form of compress-and-eliminate, arXiv 1603.09133.
    """
    from understudy.solve import kernels_near, kernels_nested

    path, node = np.unique(tree.leaf, return_inverse=True)
    rows, columns = np.repeat(node, np.diff(matrix.indptr)), node[matrix.indices]
    first, second = pairs(rows, columns, path.size)
    size = np.bincount(node, minlength=path.size)
    slots = np.argsort(node, kind="stable").astype(np.int32)
    vectors = np.array(phi, dtype=np.float64)
    grid = _Level.of(kernels_near, size, slots, (first, second), (first, second))
    place = np.empty(node.size, np.int64)
    place[slots] = np.arange(node.size) - np.repeat(grid.slot_start[:-1], size)
    above = grid.column_start
    kernels_nested.assemble(
        0, node.size, matrix.indptr, matrix.indices, matrix.data, node, place, size,
        grid.diagonal_at, above, grid.column, grid.block_at, size[grid.column], grid.pool,
    )  # fmt: skip
    alpha = alpha_of(config.eps) if config.compensate else 0.0
    stages: list[Stage] = []
    stats: list[LevelStats] = []
    compressed = False
    for level in range(tree.depth + 1):
        begin = time.perf_counter()
        skip = config.skip is not None and level < config.skip
        stage, lost, dropped = grid.factor(kernels_near, vectors, config.eps, alpha, skip)
        if lost >= 0:
            raise PivotLostError(level, lost, compressed or dropped)
        compressed = compressed or dropped
        stages.append(stage)
        sizes, ranks = grid.size, grid.current
        if level < tree.depth:
            grid, path = grid.merged(kernels_near, path)
        seconds = time.perf_counter() - begin
        stats.append(LevelStats.of(level, [], sizes, ranks, seconds, stage.bytes))
    return [stage for stage in stages if stage.size.size], stats


@dataclass(kw_only=True, slots=True)
class _Level:
    """The clusters of a level, their near pairs and all blocks that they will ever have."""

    size: np.ndarray
    current: np.ndarray
    slot_start: np.ndarray
    slots: np.ndarray
    near_pairs: tuple[np.ndarray, np.ndarray]
    row: np.ndarray
    column: np.ndarray
    column_start: np.ndarray
    start: np.ndarray
    neighbours: np.ndarray
    block: np.ndarray
    is_near: np.ndarray
    present: np.ndarray
    diagonal_at: np.ndarray
    block_at: np.ndarray
    pool: np.ndarray

    @classmethod
    def of(
        cls,
        kernels: Any,
        size: np.ndarray,
        slots: np.ndarray,
        near_pairs: tuple[np.ndarray, np.ndarray],
        blocks: tuple[np.ndarray, np.ndarray],
    ) -> _Level:
        """Find what fills and lay all blocks out, zero."""
        sparse: Any = require("scipy.sparse", "solve", "the solver")
        count = int(size.size)
        ones = np.ones(2 * near_pairs[0].size + size.size, np.int32)
        low, high, own = *near_pairs, np.arange(count)
        near = sparse.csr_array(
            (ones, (np.concatenate((low, high, own)), np.concatenate((high, low, own)))),
            shape=(size.size, size.size),
        )
        reach = (near @ near).tocoo()
        a, b = pairs(
            np.concatenate((reach.row, blocks[0])), np.concatenate((reach.col, blocks[1])), count
        )
        row, column = np.concatenate((a, b)), np.concatenate((b, a))
        order = np.argsort(row * count + column)
        inverse = np.empty_like(order)
        inverse[order] = np.arange(order.size)
        mirror = inverse[(order + a.size) % max(order.size, 1)]
        row, column = row[order], column[order]
        key = np.minimum(row, column) * count + np.maximum(row, column)
        is_near = np.isin(key, low * count + high).astype(np.uint8)
        first = np.isin(key, blocks[0] * count + blocks[1]).astype(np.uint8)
        filled = first.copy()
        kernels.simulate(count, starts(row, size.size), column, mirror, is_near, filled)
        used = filled > 0
        row, column, is_near, first = row[used], column[used], is_near[used], first[used]
        upper = row < column
        keys = row[upper] * count + column[upper]
        block = np.searchsorted(keys, np.minimum(row, column) * count + np.maximum(row, column))
        diagonal = offsets(size * size)
        at = offsets(size[row[upper]] * size[column[upper]], int(diagonal[-1]))
        return cls(
            size=size,
            current=size.copy(),
            slot_start=offsets(size),
            slots=slots,
            near_pairs=near_pairs,
            row=row[upper],
            column=column[upper],
            column_start=starts(row[upper], size.size),
            start=starts(row, size.size),
            neighbours=column,
            block=block,
            is_near=is_near,
            present=first[upper],
            diagonal_at=diagonal[:-1],
            block_at=at[:-1],
            pool=np.zeros(int(at[-1])),
        )

    def factor(
        self, kernels: Any, phi: np.ndarray, eps: float, alpha: float, skip: bool
    ) -> tuple[Stage, int, bool]:
        """Compress and eliminate; return the steps, the cluster that failed, and if any dropped."""
        size = self.size
        beside = np.repeat(np.arange(size.size), np.diff(self.start))
        close = np.bincount(beside, size[self.neighbours] * self.is_near, size.size)
        close = close.astype(np.int64)
        pivot_at, near_at = offsets(size * size), offsets(close)
        right_at = offsets(size * close)
        pivots, right = np.empty(int(pivot_at[-1])), np.empty(int(right_at[-1]))
        near, columns = np.empty(int(near_at[-1]), np.int32), np.zeros(size.size, np.int64)
        lost, dropped = kernels.factor_level(
            size.size, size, self.current, self.slot_start, self.slots, phi, self.diagonal_at,
            self.start, self.neighbours, self.block, self.is_near, self.block_at, self.present,
            self.pool, eps, alpha, skip, pivot_at, pivots, near_at, near, right_at, right,
            columns,
        )  # fmt: skip
        part = np.flatnonzero(size)
        m, k, wide = size[part], self.current[part], columns[part]
        packed = (k == 0) | (k == m)
        lengths = np.where(packed, m * (m + 1) // 2, m * m)
        at, to, of = pivot_at[part], near_at[part], right_at[part]
        stage = Stage(
            size=m.astype(np.int32),
            kept=k.astype(np.int32),
            packed=packed.astype(np.uint8),
            slot_start=offsets(m),
            slots=self.slots,
            pivot_start=offsets(lengths),
            pivot=pivots[spread(at, at + lengths)],
            back=np.zeros(0),
            near_start=offsets(wide),
            near=near[spread(to, to + wide)],
            right_start=offsets((m - k) * wide),
            right=right[spread(of, of + (m - k) * wide)],
            left=np.zeros(0),
            ordered=True,
        )
        return stage, int(lost), bool(dropped)

    def merged(self, kernels: Any, path: np.ndarray) -> tuple[_Level, np.ndarray]:
        """Stack what is left of pairs of clusters."""
        above, parent = np.unique(path >> 1, return_inverse=True)
        size = np.bincount(parent, self.current, above.size).astype(np.int64)
        within = offsets(self.current)[:-1] - offsets(size)[parent]
        begin = self.slot_start[:-1]
        slots = self.slots[spread(begin, begin + self.current)]
        used = self.present > 0
        low, high = self.near_pairs
        made = _Level.of(
            kernels,
            size,
            slots,
            pairs(parent[low], parent[high], above.size),
            pairs(parent[self.row[used]], parent[self.column[used]], above.size),
        )
        a, b = parent[self.row], parent[self.column]
        same = a == b
        key = made.row * np.int64(above.size) + made.column
        found = np.searchsorted(key, a * np.int64(above.size) + b)
        found = np.minimum(found, max(key.size - 1, 0))
        at = made.block_at if key.size else np.zeros(1, np.int64)
        stride = size[b]
        base = np.where(same, made.diagonal_at[a], at[found])
        to = base + within[self.row] * stride + within[self.column]
        wide, own = size[parent], np.arange(path.size)
        to = np.concatenate((to, made.diagonal_at[parent] + within * (wide + 1)))
        kernels.merge_level(
            np.concatenate((self.row, own)), np.concatenate((self.column, own)), self.current,
            self.size, np.concatenate((self.block_at, self.diagonal_at)),
            np.concatenate((self.present, np.ones(path.size, np.uint8))), self.pool, to,
            np.concatenate((stride, wide)), made.pool,
        )  # fmt: skip
        return made, above
