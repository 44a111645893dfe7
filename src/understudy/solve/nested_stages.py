"""The steps that a level of nested dissection leaves behind, from the numbers of its blocks."""

from __future__ import annotations

import numpy as np

from understudy.solve.nested_parts import Numbers, offsets, spread
from understudy.solve.operations import Stage


def _packed(numbers: Numbers, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (starts, floats) of the factors of diagonal blocks, packed row by row."""
    size = numbers.size[which]
    cluster = np.repeat(which, size)
    row = spread(np.zeros_like(size), size)
    begin = numbers.diagonal_at[cluster] + row * numbers.size[cluster] + row
    places = spread(begin, begin + numbers.size[cluster] - row)
    return offsets(size * (size + 1) // 2), numbers.pool[places]


def eliminated_stage(numbers: Numbers) -> Stage:
    """Return the steps that eliminate the interiors of a level."""
    p, inner = numbers.pattern, numbers.clusters.interiors
    size = numbers.size[:inner]
    begin = numbers.slot_start[p.panel_near]
    near = numbers.slots[spread(begin, begin + numbers.size[p.panel_near])]
    pivot_start, pivot = _packed(numbers, np.arange(inner))
    right_start = offsets(size * numbers.panel_width)
    first = numbers.panel_at[0] if inner else 0
    return Stage(
        size=size.astype(np.int32),
        kept=np.zeros(inner, np.int32),
        packed=np.ones(inner, np.uint8),
        slot_start=numbers.slot_start[: inner + 1],
        slots=numbers.slots[: numbers.slot_start[inner]],
        pivot_start=pivot_start,
        pivot=pivot,
        back=np.zeros(0),
        near_start=offsets(numbers.panel_width),
        near=near,
        right_start=right_start,
        right=numbers.pool[first : first + right_start[-1]].copy(),
        left=np.zeros(0),
        ordered=False,
    )


def compressed_stages(numbers: Numbers, second_order: bool) -> list[Stage]:
    """Return the steps that scale and rotate what stays; of second order, with what they drop."""
    inner, count = numbers.clusters.interiors, numbers.clusters.count
    rest = np.arange(inner, count)
    if not second_order:
        return [_mixed(numbers, rest)]
    scaled = _scaling(numbers, rest)
    part = rest[numbers.kept[rest] < numbers.size[rest]]
    return [scaled, _dropping(numbers, part)] if part.size else [scaled]


def _mixed(numbers: Numbers, rest: np.ndarray) -> Stage:
    size, kept = numbers.size[rest], numbers.kept[rest]
    whole = kept == size
    lengths = np.where(whole, size * (size + 1) // 2, size * size)
    start = offsets(lengths)
    pivot = np.empty(int(start[-1]))
    pivot[spread(start[:-1][whole], start[1:][whole])] = _packed(numbers, rest[whole])[1]
    at = numbers.basis_at[rest[~whole]]
    pivot[spread(start[:-1][~whole], start[1:][~whole])] = numbers.pivots[
        spread(at, at + size[~whole] ** 2)
    ]
    return _plain_stage(numbers, rest, kept, whole, start, pivot)


def _scaling(numbers: Numbers, rest: np.ndarray) -> Stage:
    start, pivot = _packed(numbers, rest)
    return _plain_stage(numbers, rest, numbers.size[rest], np.ones(rest.size, bool), start, pivot)


def _plain_stage(
    numbers: Numbers,
    rest: np.ndarray,
    kept: np.ndarray,
    packed: np.ndarray,
    pivot_start: np.ndarray,
    pivot: np.ndarray,
) -> Stage:
    begin = numbers.slot_start[rest]
    zeros = np.zeros(rest.size + 1, np.int64)
    return Stage(
        size=numbers.size[rest].astype(np.int32),
        kept=kept.astype(np.int32),
        packed=packed.astype(np.uint8),
        slot_start=offsets(numbers.size[rest]),
        slots=numbers.slots[spread(begin, begin + numbers.size[rest])],
        pivot_start=pivot_start,
        pivot=pivot,
        back=np.zeros(0),
        near_start=zeros,
        near=np.zeros(0, np.int32),
        right_start=zeros,
        right=np.zeros(0),
        left=np.zeros(0),
        ordered=False,
    )


def _dropping(numbers: Numbers, part: np.ndarray) -> Stage:
    """Return steps that take what is dropped out of the neighbours, one cluster after another."""
    from understudy.solve import kernels_nested as kernels

    p = numbers.pattern
    counts = p.start[part + 1] - p.start[part]
    entries = spread(p.start[part], p.start[part + 1])
    source, near = np.repeat(part, counts), p.near[entries]
    # a neighbour that was dealt with before couples only by what it kept
    width = np.where(near < source, numbers.kept[near], numbers.size[near])
    begin = numbers.slot_start[near]
    near_slots = numbers.slots[spread(begin, begin + width)]
    running = offsets(width)
    near_start = running[np.concatenate(([0], np.cumsum(counts)))]
    size, kept = numbers.size[part], numbers.kept[part]
    right_start = offsets((size - kept) * np.diff(near_start))
    right = np.empty(int(right_start[-1]))
    kernels.dropped(part, p.start, p.near, numbers.size, numbers.kept, numbers.width,
                    numbers.place, numbers.basis_at, numbers.bases, numbers.turned_at,
                    numbers.turned, right_start, right)  # fmt: skip
    at = numbers.basis_at[part]
    plain = _plain_stage(numbers, part, kept, np.zeros(part.size, bool), offsets(size * size),
                         numbers.pivots[spread(at, at + size * size)])  # fmt: skip
    names = ("size", "kept", "packed", "slot_start", "slots", "pivot_start", "pivot", "back",
             "left")  # fmt: skip
    return Stage(
        **{name: getattr(plain, name) for name in names},
        near_start=near_start,
        near=near_slots,
        right_start=right_start,
        right=right,
        ordered=True,
    )
