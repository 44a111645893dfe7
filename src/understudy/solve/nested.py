"""The nested-dissection driver, compiled: eliminate interiors, compress separators, merge."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from understudy.solve import nested_levels as levels
from understudy.solve.lost import PivotLostError
from understudy.solve.nested_parts import Numbers
from understudy.solve.nested_stages import compressed_stages, eliminated_stage
from understudy.solve.operations import Stage
from understudy.solve.options import FactorConfig
from understudy.solve.parallel import ranges
from understudy.solve.separators import Separators
from understudy.solve.stats import LevelStats

MEAN_SIZE = 10
"""Mean unknowns of a cluster from which on compressing pays."""


def nested(
    matrix: Any, cuts: Separators, phi: np.ndarray, config: FactorConfig
) -> tuple[list[Stage], list[LevelStats]]:
    """Factor a symmetric positive definite matrix by sparsified nested dissection.

    Equals `nested_reference` up to rounding, with the same arguments.

    Raises:
        PivotLostError: a diagonal block is not positive definite.

    References:
        Algebraic sparsified nested dissection, arXiv 1901.02971; second order: 2007.00789.
    """
    from understudy.solve import kernels_nested as kernels

    clusters, node = levels.group(cuts.depth, cuts.cut, cuts.path, cuts.other, cuts.touch)
    rows, columns = np.repeat(node, np.diff(matrix.indptr)), node[matrix.indices]
    above = rows < columns
    first, second = levels.pairs(rows[above], columns[above], clusters.count)
    size = np.bincount(node, minlength=clusters.count)
    slots = np.argsort(node, kind="stable").astype(np.int32)
    vectors = np.array(phi, dtype=np.float64)
    stages: list[Stage] = []
    stats: list[LevelStats] = []
    compressed = False
    numbers: Numbers | None = None
    for level, depth in enumerate(range(cuts.depth, -1, -1)):
        begin = time.perf_counter()
        if numbers is None:
            pattern = levels.pattern(clusters, first, second)
            numbers = Numbers.layout(clusters, pattern, size, slots)
            place = np.empty(node.size, np.int64)
            place[slots] = np.arange(node.size) - np.repeat(numbers.slot_start[:-1], size)
            _assemble(kernels, matrix, node, place, numbers, config.threads)
        _check(numbers.eliminate(kernels, config.threads), level, 0, compressed)
        made = [eliminated_stage(numbers)] if clusters.interiors else []
        inner = clusters.interiors
        rest_sizes = ranks = numbers.size[inner:]
        mean = rest_sizes.mean() if rest_sizes.size else 0.0
        skip = mean < MEAN_SIZE if config.skip is None else level < config.skip
        if rest_sizes.size and not skip:
            failed = numbers.scale(kernels, vectors, config.threads)
            _check(failed, level, inner, compressed)
            vectors = numbers.compress(kernels, vectors, config)
            made += compressed_stages(numbers, config.second_order)
            ranks = numbers.kept[inner:]
            compressed = compressed or bool((ranks < rest_sizes).any())
        if depth:
            numbers, clusters = numbers.merged(kernels, depth - 1, config.threads)
        seconds = time.perf_counter() - begin
        num_bytes = sum(stage.bytes for stage in made)
        stages += made
        stats.append(LevelStats.of(level, size[:inner], rest_sizes, ranks, seconds, num_bytes))
        size = numbers.size
    return stages, stats


def _assemble(
    kernels: Any,
    matrix: Any,
    node: np.ndarray,
    place: np.ndarray,
    numbers: Numbers,
    threads: int,
) -> None:
    start, near, at, width = numbers.upper_entries()
    ranges(kernels.assemble, node.size, None, threads, matrix.indptr, matrix.indices, matrix.data,
           node, place, numbers.size, numbers.diagonal_at, start, near, at, width,
           numbers.pool)  # fmt: skip


def _check(failed: np.ndarray, level: int, first: int, compressed: bool) -> None:
    wrong = np.flatnonzero(failed)
    if wrong.size:
        raise PivotLostError(level, int(wrong[0]), compressed)
