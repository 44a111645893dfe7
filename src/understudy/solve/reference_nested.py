"""The nested-dissection driver in NumPy, block by block: what the compiled driver must equal."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from scipy.linalg import LinAlgError

from understudy.solve.lost import PivotLostError
from understudy.solve.operations import Stage, Step, pack
from understudy.solve.options import FactorConfig
from understudy.solve.reference_parts import (
    MEAN_SIZE,
    Blocks,
    Pivot,
    pivot_of,
    rotation,
)
from understudy.solve.separators import Separators
from understudy.solve.stats import LevelStats


def nested_reference(
    matrix, cuts: Separators, phi: np.ndarray, config: FactorConfig
) -> tuple[list[Stage], list[LevelStats]]:
    """Factor by nested dissection: eliminate interiors, scale, compress separators, merge.

    Args:
        matrix: sparse [n, n].
        cuts: where the unknowns lie (`find_separators`).
        phi: float64 [n, q], vectors to preserve; q may be 0.
        config: settings.

    Raises:
        PivotLostError: a diagonal block cannot be factored.

    References:
        Algebraic sparsified nested dissection, arXiv 1901.02971.
    """
    columns = (cuts.path, cuts.cut, cuts.other, cuts.touch)
    places = zip(*(column.tolist() for column in columns), strict=True)
    keys = [_key(cuts.depth, *place) for place in places]
    blocks = Blocks.of(matrix, keys, phi, phi)
    stages, stats = [], []
    compressed = False
    for level, depth in enumerate(range(cuts.depth, -1, -1)):
        start = time.perf_counter()
        for empty in [key for key, slots in blocks.slots.items() if not slots.size]:
            blocks.remove(empty)
        interiors = [key for key in sorted(blocks.slots) if key[1] >= depth]
        sizes = [blocks.slots[key].size for key in interiors]
        steps = []
        for number, s in enumerate(interiors):
            steps.append(_eliminate(blocks, s, config.pivot, (level, number, compressed)))
        stages.append(pack(steps))
        rest = sorted(blocks.slots)
        ranks = rest_sizes = [blocks.slots[key].size for key in rest]
        mean = sum(rest_sizes) / max(len(rest), 1)
        skip = mean < MEAN_SIZE if config.skip is None else level < config.skip
        if rest and not skip:
            phase = (level, len(interiors), compressed)
            first, second = _compress(blocks, rest, config, phase)
            stages += [pack(part) for part in (first, second) if part]
            ranks = [blocks.slots[key].size for key in rest]
            compressed = compressed or sum(ranks) < sum(rest_sizes)
        stats.append(LevelStats.of(level, sizes, rest_sizes, ranks, time.perf_counter() - start))
        above = depth - 1
        blocks = blocks.merged(partial(_parent, above))
    return [stage for stage in stages if stage.size.size], stats


def _key(depth: int, path: int, cut: int, other: int, touch: int) -> tuple[int, ...]:
    """Return what tells clusters of a level apart, in the order of their numbers."""
    return (path, depth, path, 0) if cut >= depth else (path, cut, other, touch)


def _parent(depth: int, key: tuple[int, ...]) -> tuple[int, ...]:
    path, cut, other, touch = key
    return _key(depth, path >> 1, cut, other >> 1, touch)


def _pivot(blocks: Blocks, s, kind: str, phase: tuple[int, int, bool]) -> Pivot:
    try:
        return pivot_of(blocks.values[s, s], kind)
    except LinAlgError:
        raise PivotLostError(*phase) from None


def _eliminate(blocks: Blocks, s, kind: str, phase: tuple[int, int, bool]) -> Step:
    pivot = _pivot(blocks, s, kind, phase)
    blocks.scale(s, pivot)
    near = sorted(blocks.near[s])
    step = make_step(blocks, s, pivot, np.eye(pivot.sign.size), 0, near)
    for n in near:
        for m in near:
            blocks.block(n, m)[...] -= blocks.values[n, s] * pivot.sign @ blocks.values[s, m]
    blocks.remove(s)
    return step


def make_step(blocks: Blocks, s, pivot: Pivot, q: np.ndarray, k: int, near: list) -> Step:
    """Return the step of a cluster that is scaled, and rotated by `q`, up to its `near` blocks.

    The blocks themselves must be scaled and not yet rotated.
    """
    m = pivot.sign.size
    sign = np.diag(q.T @ np.diag(pivot.sign) @ q)[k:]
    nothing = np.zeros((m, 0))
    right = np.hstack([blocks.values[s, n] for n in near] or [nothing])
    left = np.hstack([blocks.values[n, s].T for n in near] or [nothing])
    forward = q.T @ pivot.forward
    forward[k:] *= sign[:, None]
    plain = pivot.lower is not None and (k == 0 or k == m)
    spd = pivot.lower is not None
    return Step(
        slots=blocks.slots[s],
        kept=k,
        forward=forward,
        near=np.concatenate([blocks.slots[n] for n in near] or [np.zeros(0, np.int64)]),
        right=sign[:, None] * (q[:, k:].T @ right),
        lower=pivot.lower if plain else None,
        backward=None if spd else pivot.backward @ q,
        left=None if spd else q[:, k:].T @ left,
    )


def _compress(
    blocks: Blocks, rest: list, config: FactorConfig, phase: tuple[int, int, bool]
) -> tuple[list[Step], list[Step]]:
    """Scale all clusters, then drop what no neighbour sees of each; return the two kinds of steps.

    All rotations are chosen before anything is dropped, so the order of clusters does not matter.
    """
    level, number, compressed = phase
    pivots = {}
    for i, s in enumerate(rest):
        pivots[s] = _pivot(blocks, s, config.pivot, (level, number + i, compressed))
        blocks.scale(s, pivots[s])
    chosen = {}
    for s in rest:
        near = sorted(blocks.near[s])
        nothing = np.zeros((blocks.slots[s].size, 0))
        rows = [blocks.values[s, n] for n in near]
        keep = [blocks.right[s], *(blocks.values[s, n] @ blocks.right[n] for n in near)]
        if config.pivot == "lu":
            columns = [blocks.values[n, s].T for n in near]
            keep += [blocks.left[s]]
            keep += [c @ blocks.left[n] for c, n in zip(columns, near, strict=True)]
            rows += columns
        q, k = rotation(
            np.hstack(keep), np.hstack(rows or [nothing]), pivots[s].sign, config.eps, False
        )
        size = blocks.slots[s].size
        chosen[s] = (q, k) if k < size else (np.eye(size), size)
    first, second = [], []
    for s in rest:
        q, k = chosen[s]
        unit = Pivot(forward=np.eye(q.shape[0]), backward=np.eye(q.shape[0]), sign=pivots[s].sign)
        if config.second_order:
            whole = np.eye(q.shape[0])
            first.append(make_step(blocks, s, pivots[s], whole, q.shape[0], []))
            if k < q.shape[0]:
                step = make_step(blocks, s, unit, q, k, sorted(blocks.near[s]))
                second.append(_plain_back(step))
        else:
            first.append(make_step(blocks, s, pivots[s], q, k, []))
        keep_rows(blocks, s, q, k)
    return first, second


def _plain_back(step: Step) -> Step:
    """Return a symmetric step without its separate backward matrices."""
    return Step(
        slots=step.slots, kept=step.kept, forward=step.forward, near=step.near, right=step.right
    )


def keep_rows(blocks: Blocks, s, q: np.ndarray, k: int) -> None:
    """Rotate a scaled cluster by `q` and keep its first `k` unknowns."""
    u = q[:, :k]
    for n in blocks.near[s]:
        blocks.values[s, n] = u.T @ blocks.values[s, n]
        blocks.values[n, s] = blocks.values[n, s] @ u
    blocks.values[s, s] = u.T @ blocks.values[s, s] @ u
    blocks.right[s], blocks.left[s] = u.T @ blocks.right[s], u.T @ blocks.left[s]
    blocks.slots[s] = blocks.slots[s][:k]
