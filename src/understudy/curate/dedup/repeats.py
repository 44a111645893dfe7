"""Repeated windows of a sequence: which of its elements lie in a copy of what stands elsewhere.

An element is a copy if some window of a fixed length around it occurs before. Two ways to find
equal windows give the same answer: sorting hashes of all windows, whose equality is checked element
by element, and a suffix array with its longest common prefixes (by `pydivsufsort`, for bytes).

References:
    Lee et al.: Deduplicating training data makes language models better, arXiv 2107.06499, section
    4.1 (exact substring duplication); Kasai et al., 2001 (longest common prefixes).
"""

from __future__ import annotations

import numpy as np

from understudy.core.lazy import require
from understudy.curate.dedup.hashing import SUM_BASE, mix64, powers

BLOCK = 1 << 18
"""Windows hashed or checked at a time."""


def window_hashes(values: np.ndarray, length: int) -> np.ndarray:
    """Return the hash of each window of `length` well mixed uint64 values, uint64 [N - length + 1].

    Windows of a block share the sums of its values times powers, so the cost of a window does not
    grow with its length.
    """
    count = max(0, len(values) - length + 1)
    out = np.empty(count, np.uint64)
    inverse = powers(pow(SUM_BASE, -1, 1 << 64), BLOCK)
    for start in range(0, count, BLOCK):
        number = min(BLOCK, count - start)
        part = values[start : start + number + length - 1]
        sums = np.zeros(len(part) + 1, np.uint64)
        np.cumsum(part * powers(SUM_BASE, len(part)), out=sums[1:])
        found = sums[length : length + number] - sums[:number]
        out[start : start + number] = mix64(found * inverse[:number])
    return out


def _windows(starts: np.ndarray, total: int, length: int) -> np.ndarray:
    """Return the first elements of windows that lie in one document, ascending int64."""
    inside = np.ones(max(0, total - length + 1), bool)
    for shift in range(1, length):
        # a window that begins `shift` elements before a document runs into it
        late = starts[(starts >= shift) & (starts - shift < len(inside))] - shift
        inside[late] = False
    return np.flatnonzero(inside)


def first_equal(values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return the first window that equals each window.

    Args:
        values: elements of documents one after the other, uint8 or well mixed uint64 [N].
        starts: first element of each document, ascending int64; documents may be empty.
        length: elements of a window, which never reaches beyond its document.

    Returns:
        int64 [N]: where the first equal window begins; -1 where no window begins.
    """
    out = np.full(len(values), -1, np.int64)
    place = _windows(starts, len(values), length)
    if not len(place):
        return out
    mixed = mix64(values.astype(np.uint64)) if values.dtype == np.uint8 else values
    keys = window_hashes(mixed, length)[place]
    del mixed
    order = np.argsort(keys, kind="stable")
    new = np.ones(len(keys), bool)
    new[1:] = keys[order[1:]] != keys[order[:-1]]
    head = np.flatnonzero(new)[np.cumsum(new) - 1]
    first = np.empty(len(keys), np.int64)
    first[order] = place[order[head]]
    out[place] = first
    copies = place[first != place]
    for start in range(0, len(copies), BLOCK // length + 1):
        some = copies[start : start + BLOCK // length + 1]
        offsets = np.arange(length)
        same = values[some[:, None] + offsets] == values[out[some][:, None] + offsets]
        out[some[~same.all(1)]] = some[~same.all(1)]
    return out


def first_equal_by_suffixes(values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return what `first_equal` returns, for uint8 values, from a suffix array.

    Raises:
        MissingExtraError: `pydivsufsort` is not installed.
    """
    native = require("pydivsufsort", "curate", "suffix arrays")
    out = np.full(len(values), -1, np.int64)
    place = _windows(starts, len(values), length)
    if not len(place):
        return out
    suffixes = native.divsufsort(values)
    prefixes = native.kasai(values, suffixes)
    # neighbours in suffix order with a common prefix of a window belong to one group
    new = np.ones(len(values), bool)
    new[1:] = prefixes[: len(values) - 1] < length
    valid = np.zeros(len(values), bool)
    valid[place] = True
    group = np.cumsum(new) - 1
    lowest = np.full(int(group[-1]) + 1, len(values), np.int64)
    mine = valid[suffixes]
    np.minimum.at(lowest, group[mine], suffixes[mine].astype(np.int64))
    out[suffixes[mine]] = lowest[group[mine]]
    return out


def repeated(first: np.ndarray, length: int, remove_all: bool = False) -> np.ndarray:
    """Say which elements are to be cut.

    A window is a copy if the first equal window ends before it begins. So of a run that repeats
    itself, such as a line of dashes, one window stays.

    Args:
        first: of `first_equal`, int64 [N].
        length: elements of a window.
        remove_all: cut every occurrence, the first one too.

    Returns:
        bool [N].
    """
    place = np.arange(len(first))
    if remove_all:
        valid = first >= 0
        often = np.bincount(first[valid], minlength=max(1, len(first))) > 1
        copy = np.zeros(len(first), bool)
        copy[valid] = often[first[valid]]
    else:
        copy = (first >= 0) & (first + length <= place)
    edges = np.zeros(len(first) + length + 1, np.int64)
    begins = np.flatnonzero(copy)
    edges[begins] += 1
    edges[begins + length] -= 1
    return (np.cumsum(edges) > 0)[: len(first)]


def runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where runs of True begin and end, int64 [R] each."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
