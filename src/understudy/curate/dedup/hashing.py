"""Vectorised 64-bit hashes of n-grams.

An n-gram is a polynomial in the hashes of its words modulo 2^64, mixed afterwards so that every bit
of the result depends on every bit of the input. NumPy's unsigned integers wrap around, which is the
modulus.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SUM_BASE = 0x9E3779B97F4A7C15  # odd and 5 modulo 8, so its powers differ in low bits
GRAM_BASE = 0xD1342543DE82EF95  # as above


def mix64(values: np.ndarray) -> np.ndarray:
    """Return the finaliser of SplitMix64, a permutation of 64-bit integers.

    Args:
        values: uint64, any shape.

    References:
        Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014 (variant 13
        of Stafford's mixers).
    """
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


@cache
def _powers(base: int, size: int) -> np.ndarray:
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def powers(base: int, count: int) -> np.ndarray:
    """Return `base ** [0, count)` modulo 2^64."""
    return _powers(base, 1 << max(count - 1, 1).bit_length())[:count]


def gram_hashes(values: np.ndarray, groups: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash of every window of `size` values that lies in one group.

    Args:
        values: well mixed uint64 [W].
        groups: number of the paragraph or document of each, not decreasing [W].
        size: values in a window.

    Returns:
        Hashes uint64 [G] and the place of each window's first value, int64 [G], in order.
    """
    windows = len(values) - size + 1
    if windows <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    total = values[:windows].copy()
    for shift in range(1, size):
        total *= np.uint64(GRAM_BASE)
        total += values[shift : shift + windows]
    first = np.flatnonzero(groups[:windows] == groups[size - 1 :])
    return mix64(total[first]), first
