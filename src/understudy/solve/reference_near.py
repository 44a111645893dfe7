"""The near/far driver in NumPy, block by block: compress a cluster's far blocks, then eliminate."""

from __future__ import annotations

import time

import numpy as np
from scipy.linalg import LinAlgError

from understudy.solve.lost import PivotLostError
from understudy.solve.operations import Stage, Step, pack
from understudy.solve.options import FactorConfig, alpha_of
from understudy.solve.partition import Tree
from understudy.solve.reference_nested import keep_rows, make_step
from understudy.solve.reference_parts import Blocks, pivot_of, rotation
from understudy.solve.stats import LevelStats


def near_reference(
    matrix, tree: Tree, phi: np.ndarray, config: FactorConfig
) -> tuple[list[Stage], list[LevelStats]]:
    """Factor level by level: compress far blocks of each cluster, eliminate the rest of it, merge.

    Args:
        matrix: sparse [n, n].
        tree: recursive bisection.
        phi: float64 [n, q], vectors to preserve; q may be 0.
        config: settings.

    Raises:
        PivotLostError: a diagonal block cannot be factored.

    References:
        Sparse hierarchical solvers with guaranteed convergence, arXiv 1611.03189, in the symmetric
        form of compress-and-eliminate, arXiv 1603.09133.
    """
    keys = tree.leaf.tolist()
    blocks = Blocks.of(matrix, keys, phi, phi)
    near = {s: {s, *blocks.near[s]} for s in blocks.slots}
    stages, stats = [], []
    compressed = False
    for level in range(tree.depth + 1):
        start = time.perf_counter()
        skip = config.skip is not None and level < config.skip
        order = sorted(blocks.slots)
        sizes = [blocks.slots[s].size for s in order]
        steps, ranks = [], []
        for number, s in enumerate(order):
            if blocks.slots[s].size == 0:
                ranks.append(0)
                continue
            phase = (level, number, compressed)
            step = _step(blocks, s, near[s], config, phase, skip)
            compressed = compressed or 0 < step.kept < step.slots.size
            ranks.append(step.kept)
            steps.append(step)
        stages.append(pack(steps))
        stats.append(LevelStats.of(level, [], sizes, ranks, time.perf_counter() - start))
        blocks = blocks.merged(lambda key: key >> 1)
        lifted: dict = {}
        for s, others in near.items():
            lifted.setdefault(s >> 1, set()).update(other >> 1 for other in others)
        near = lifted
    return [stage for stage in stages if stage.size.size], stats


def _step(
    blocks: Blocks,
    s: int,
    near: set,
    config: FactorConfig,
    phase: tuple[int, int, bool],
    skip: bool,
) -> Step:
    try:
        pivot = pivot_of(blocks.values[s, s], config.pivot)
    except LinAlgError:
        raise PivotLostError(*phase) from None
    blocks.scale(s, pivot)
    size = blocks.slots[s].size
    present = sorted(n for n in blocks.near[s] if blocks.slots[n].size)
    far = [n for n in present if n not in near]
    close = [n for n in present if n in near]
    if not far:
        q, k = np.eye(size), 0
    elif skip:
        q, k = np.eye(size), size
    else:
        q, k = _choose(blocks, s, far, close, pivot.sign, config)
        if k >= size:
            q, k = np.eye(size), size
    step = make_step(blocks, s, pivot, q, k, close if k < size else [])
    if k < size:
        _update(blocks, s, q[:, k:], pivot.sign, far, close, config)
    keep_rows(blocks, s, q, k)
    return step


def _choose(
    blocks: Blocks, s: int, far: list, close: list, sign: np.ndarray, config: FactorConfig
) -> tuple[np.ndarray, int]:
    rows = [blocks.values[s, f] for f in far]
    keep = [blocks.right[s], *(blocks.values[s, f] @ blocks.right[f] for f in far)]
    if config.compensate and blocks.right[s].shape[1]:
        # the compensation then vanishes on the preserved vectors too
        total = [blocks.values[s, n] @ blocks.right[n] for n in close]
        keep += [np.sum(total, axis=0)] if total else []
    if config.pivot == "lu":
        columns = [blocks.values[f, s].T for f in far]
        keep += [blocks.left[s]]
        keep += [c @ blocks.left[f] for c, f in zip(columns, far, strict=True)]
        rows += columns
    return rotation(np.hstack(keep), np.hstack(rows), sign, config.eps, True)


def _update(
    blocks: Blocks,
    s: int,
    w: np.ndarray,
    sign: np.ndarray,
    far: list,
    close: list,
    config: FactorConfig,
) -> None:
    """Take the eliminated unknowns `w` out of the near blocks; compensate the far diagonals."""
    inverse = w.T @ np.diag(sign) @ w
    share = 1.0
    if config.compensate and far:
        share = 1.0 - alpha_of(config.eps)
    for n in close:
        for m in close:
            right = w.T @ blocks.values[s, m]
            left = blocks.values[n, s] @ w
            blocks.block(n, m)[...] -= share * (left @ inverse @ right)
    if share < 1.0:
        weight = (1.0 / alpha_of(config.eps) - 1.0) * len(far)
        for f in far:
            dropped = w.T @ blocks.values[s, f]
            blocks.values[f, f] = blocks.values[f, f] + weight * (dropped.T @ dropped)
