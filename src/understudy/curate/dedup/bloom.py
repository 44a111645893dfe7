"""Bloom filters over 64-bit hashes, and their sizes.

References:
    Bloom, 1970 (doi 10.1145/362686.362692); Kirsch, Mitzenmacher: Less hashing, same performance,
    2006 (double hashing); DataComp-LM, arXiv 2406.11794, appendix L (sizes, false removals).
"""

from __future__ import annotations

import math

import numpy as np

from understudy.core.errors import ConfigError
from understudy.curate.dedup.hashing import mix64


def num_hashes(eps: float) -> int:
    """Return how many bits an item sets: `-ln(eps) / ln 2`, rounded up.

    Args:
        eps: rate of false positives, in (0, 1).
    """
    # a power of two must not be pushed up by the last bit of the logarithm
    return max(1, math.ceil(round(-math.log2(eps), 9)))


def num_bits(items: int, eps: float, hashes: int = 0) -> int:
    """Return the size of a filter: the smallest m with `eps >= (1 - e^(-k n / m))^k`.

    Args:
        items: n, distinct items at most.
        eps: rate of false positives when all are in.
        hashes: k; 0 takes `num_hashes(eps)`.

    Returns:
        Bits, at least 64.
    """
    k = hashes or num_hashes(eps)
    return max(64, math.ceil(-k * items / math.log1p(-(eps ** (1 / k)))))


def ideal_bits_per_item(eps: float) -> float:
    """Return `-ln(eps) / (ln 2)^2`: bits an item where k need not be whole (9.585 at 0.01)."""
    return -math.log(eps) / math.log(2) ** 2


def max_items(bits: int, eps: float, hashes: int = 0) -> int:
    """Return how many items a filter of some bits holds at a rate of false positives."""
    k = hashes or num_hashes(eps)
    return int(-bits * math.log1p(-(eps ** (1 / k))) / k)


def false_positive_rate(items: int, bits: int, hashes: int) -> float:
    """Return `(1 - e^(-k n / m))^k`."""
    return float(-math.expm1(-hashes * items / bits)) ** hashes


def false_removal_bound(grams: int, seen: int, threshold: float = 0.8, eps: float = 0.01) -> float:
    """Return Hoeffding's bound on removing a paragraph of which too little was seen.

    Args:
        grams: n-grams of the paragraph, N.
        seen: of these, how many truly are in the filter, S.
        threshold: share above which it is removed, T.
        eps: rate of false positives.

    Returns:
        `exp(-2 (T N - S - eps (N - S))^2 / (N - S))`; 1 where the expected share is above the
        threshold.

    References:
        DataComp-LM, arXiv 2406.11794, appendix L.
    """
    unseen = grams - seen
    margin = threshold * grams - seen - eps * unseen
    if margin <= 0:
        return 1.0
    return math.exp(-2 * margin**2 / unseen) if unseen else 0.0


class BloomFilter:
    """A set that never forgets an item and takes others for members with probability `eps`.

    Args:
        items: distinct items that it is made for.
        eps: rate of false positives when they are in. Items are told apart by 64 bits, so that
            rates below `items / 2^64` cannot be reached.

    Attributes:
        bits: its size.
        hashes: bits that an item sets.
        data: uint8 [ceil(bits / 8)].
    """

    def __init__(self, items: int, eps: float = 0.01) -> None:
        if items < 0 or not 0 < eps < 1:
            raise ConfigError(
                f"bloom filter: expected 0 or more items and eps in (0, 1), got {items} and {eps}."
            )
        self.hashes = num_hashes(eps)
        self.bits = num_bits(items, eps, self.hashes)
        self.data = np.zeros(-(-self.bits // 8), np.uint8)

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Return the bits of items.

        Args:
            values: well mixed uint64 [N].

        Returns:
            int64 [N, hashes].
        """
        step = mix64(values) | np.uint64(1)
        out = np.empty((len(values), self.hashes), np.int64)
        place = values.copy()
        size = np.uint64(self.bits)
        for number in range(self.hashes):
            # division by a scalar is vectorised in NumPy, the remainder is not
            out[:, number] = place - (place // size) * size
            place += step
        return out

    def test_bits(self, positions: np.ndarray) -> np.ndarray:
        """Say which bits are set, bool of the shape of `positions`."""
        found = self.data[positions >> 3] >> (positions & 7).astype(np.uint8)
        return np.asarray(found & np.uint8(1)).view(bool)

    def set_bits(self, positions: np.ndarray) -> None:
        """Set bits; their order and repetitions do not matter."""
        places, bit = (positions >> 3).ravel(), (positions & 7).ravel().astype(np.uint8)
        for number in range(8):
            mine = places[bit == number]
            # repeated places read and write the same value, since all set the same bit
            self.data[mine] |= np.uint8(1 << number)

    def add(self, values: np.ndarray) -> None:
        """Insert items, uint64 [N]."""
        for start in range(0, len(values), 1 << 16):
            self.set_bits(self.positions(values[start : start + (1 << 16)]))

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Say which items are members, bool [N]."""
        return np.all(self.test_bits(self.positions(values)), axis=1)
