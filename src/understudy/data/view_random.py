"""Counter-based random numbers: one seed an item, all items at once.

A draw is a hash of (item's seed, stream, index), so a batch of any size gives each item the numbers
that it would get alone, and adding a transform leaves the other transforms' draws as they were. The
mixer is the 64-bit finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), applied twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAM = np.uint64(0xD1B54A32D192ED03)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _M1
    z = (z ^ (z >> np.uint64(27))) * _M2
    return z ^ (z >> np.uint64(31))


def as_seeds(seeds: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the seeds as `uint64 [B]` (Python integers are reduced modulo 2**64)."""
    if isinstance(seeds, np.ndarray) and seeds.dtype.kind in "iu":
        return seeds.astype(np.uint64)
    return np.fromiter((int(s) & (2**64 - 1) for s in seeds), np.uint64, len(seeds))


def uniforms(seeds: np.ndarray, stream: int, count: int) -> np.ndarray:
    """Return `float64 [B, count]` uniform on [0, 1) with 53 random bits.

    Args:
        seeds: `uint64 [B]`, one an item.
        stream: which purpose the numbers serve; streams are independent.
        count: numbers an item.
    """
    offset = np.uint64((stream + 1) * int(_STREAM) & (2**64 - 1))
    key = _mix(seeds + offset)
    counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(_mix(key[:, None] + counter) ^ key[:, None])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(u: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Turn uniforms into integers from 0 to `n` - 1 (`n` may be an array)."""
    n = np.asarray(n, np.float64)
    return np.minimum(np.floor(u * n), n - 1).astype(np.int64)
