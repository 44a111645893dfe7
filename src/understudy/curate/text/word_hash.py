"""64-bit hashes of all words of a text at once.

The hash of a word with characters c_0, c_1, ... is the sum of R(c_j) P^j modulo 2^64, mixed: R is a
random number of the character, P is odd. Sums of all words come from one running sum over the
text. The hashes are the same on every machine and in every version of Python.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BLOCK = 1 << 16
"""Characters of a text that are summed at a time; a longer word is summed alone."""

_P = 0xD1342543DE82EF97  # odd, and 3 modulo 4: exchanged neighbours change all but the last bit
_P_INVERSE = pow(_P, -1, 1 << 64)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def mix(values: Hashes) -> Hashes:
    """Return values whose bits all depend on all bits given, one to one, uint64 of any shape.

    References:
        The finalizer of SplitMix64, G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom
        number generators", OOPSLA 2014.
    """
    values = (values ^ (values >> _S30)) * _MIX1
    values = (values ^ (values >> _S27)) * _MIX2
    return values ^ (values >> _S31)


def _random(codes: NDArray[Any]) -> Hashes:
    return mix((codes.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


@cache
def _low() -> Hashes:
    return _random(np.arange(256))


_POWERS: dict[int, tuple[Hashes, Hashes]] = {}


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the first powers of P and of its inverse, uint64 [count or more] each."""
    size = BLOCK if count <= BLOCK else count
    if size not in _POWERS:
        found = []
        for base in (_P, _P_INVERSE):
            powers = np.full(size, base, np.uint64)
            powers[0] = 1
            found.append(np.multiply.accumulate(powers))
        if size > BLOCK:
            return found[0], found[1]
        _POWERS[size] = (found[0], found[1])
    return _POWERS[size]


def _hash_block(codes: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> Hashes:
    powers, inverses = _powers(codes.size)
    values = _low().take(codes) if codes.dtype == np.uint8 else _random(codes)
    values *= powers[: codes.size]
    sums = np.empty(codes.size + 1, np.uint64)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    found = sums[ends]
    found -= sums[starts]
    found *= inverses[starts]
    return mix(found)


def hash_words(codes: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Hashes:
    """Return the hash of each word.

    Args:
        codes: code points of the text, uint8 [n] or uint32 [n].
        starts: first character of each word, int64 [W], ascending.
        ends: one past the last character of each word, int64 [W].

    Returns:
        uint64 [W]. Equal words have equal hashes; two different words have equal ones with a
        probability of about 2^-62.
    """
    if not starts.size:
        return np.zeros(0, np.uint64)
    if codes.size <= BLOCK:
        return _hash_block(codes, starts, ends)
    parts, first = [], 0
    while first < starts.size:
        offset = int(starts[first])
        last = max(int(np.searchsorted(ends, offset + BLOCK, side="right")), first + 1)
        stop = int(ends[last - 1])
        here = slice(first, last)
        parts.append(_hash_block(codes[offset:stop], starts[here] - offset, ends[here] - offset))
        first = last
    return np.concatenate(parts)
