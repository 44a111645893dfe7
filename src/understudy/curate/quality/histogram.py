"""Exact percentiles of a pool that is too large to hold: two passes of counting.

A float32 number is mapped to an unsigned integer of the same order. Counting the upper 16 bits
finds the bin that holds the wanted rank; counting the lower 16 bits inside that bin finds the
number itself. Counts add up, so neither the order of the pages nor how they are cut into units
matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from understudy.core.errors import DataError

BINS = 1 << 16


def order_keys(scores: np.ndarray) -> np.ndarray:
    """Return uint32 [N] keys of finite float32 scores that sort as the scores do."""
    values = np.asarray(scores, np.float32) + np.float32(0)  # -0.0 becomes 0.0
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)


def key_score(key: int) -> float:
    """Return the score of a key."""
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])


@dataclass(slots=True)
class Histogram:
    """Counts of scores by the upper half of their keys.

    Attributes:
        counts: int64 [65,536].
        missing: pages without a score.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    missing: int = 0

    @property
    def total(self) -> int:
        """Number of scores."""
        return int(self.counts.sum())

    def add(self, scores: np.ndarray) -> None:
        """Count scores; those that are NaN count as missing.

        Raises:
            DataError: a score is infinite.
        """
        scores = np.asarray(scores, np.float32)
        known = scores[~np.isnan(scores)]
        if np.isinf(known).any():
            raise DataError("scores: one is infinite; a score must be a finite number or missing.")
        self.missing += len(scores) - len(known)
        self.counts += np.bincount(order_keys(known) >> 16, minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Add the counts of another part of the pool."""
        self.counts += other.counts
        self.missing += other.missing

    def bin_of_top(self, number: int) -> tuple[int, int]:
        """Return (bin that holds the number-th best score, its rank among the bin's, from 1)."""
        if not 1 <= number <= self.total:
            raise DataError(f"scores: there is no {number:,}-th best of {self.total:,}.")
        above = np.cumsum(self.counts[::-1])  # scores in the best bins
        place = int(np.searchsorted(above, number))
        before = int(above[place - 1]) if place else 0
        return BINS - 1 - place, number - before

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        """Return float32 [N] in (0, 1): the share of the pool that is worse, NaN where unknown.

        Inside a bin the rank rises linearly with the lower bits, so better scores never rank lower.
        """
        scores = np.asarray(scores, np.float32)
        out = np.full(len(scores), np.nan)
        known = ~np.isnan(scores)
        keys = order_keys(scores[known]).astype(np.int64)
        below = np.cumsum(self.counts) - self.counts
        inside = ((keys & 0xFFFF) + 0.5) / BINS
        place = keys >> 16
        out[known] = (below[place] + self.counts[place] * inside) / max(self.total, 1)
        return out.astype(np.float32)


def low_counts(scores: np.ndarray, high: int) -> np.ndarray:
    """Count the lower halves of the keys whose upper half is `high`, int64 [65,536]."""
    scores = np.asarray(scores, np.float32)
    keys = order_keys(scores[~np.isnan(scores)])
    inside = keys[(keys >> 16) == high] & np.uint32(0xFFFF)
    return np.bincount(inside, minlength=BINS)


def exact_threshold(high: int, rank: int, low: np.ndarray) -> float:
    """Return the rank-th best score (from 1) of a bin, given the counts of its lower halves."""
    above = np.cumsum(low[::-1])
    return key_score((high << 16) | (BINS - 1 - int(np.searchsorted(above, rank))))
