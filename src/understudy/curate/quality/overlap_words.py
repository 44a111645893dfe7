"""Words to numbers and hashes of runs of them, for comparing texts word by word.

A word is a run of letters, digits and underscores, in lower case; everything else only separates.
Numbers come from a vocabulary that is built from one side (the test sets); words outside it are 0
and equal nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"\w+")
_TABLE = bytes(
    ord(c.lower()) if c.isascii() and (c.isalnum() or c == "_") else (32 if i < 128 else i)
    for i, c in enumerate(map(chr, range(256)))
)
_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def words_of(text: str) -> list[bytes]:
    """Return the words of a text as UTF-8."""
    if text.isascii():
        return text.encode().translate(_TABLE).split()
    return [word.lower().encode("utf-8", "replace") for word in _WORD.findall(text)]


def spans_of(text: str) -> np.ndarray:
    """Return int64 [words, 2]: first character of each word and the one after its last."""
    found = [match.span() for match in _WORD.finditer(text)]
    return np.array(found, np.int64).reshape(-1, 2)


class Vocabulary:
    """Numbers from 1 for words, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def learn(self, words: Sequence[bytes]) -> np.ndarray:
        """Return int64 numbers of words; new words get new ones."""
        numbers = self._numbers
        found = [numbers.setdefault(word, len(numbers) + 1) for word in words]
        return np.array(found, np.int64)

    def numbers(self, words: Sequence[bytes]) -> np.ndarray:
        """Return int64 numbers of words, 0 for unknown ones."""
        found = map(self._numbers.get, words, itertools.repeat(0))
        return np.fromiter(found, np.int64, len(words))


class Runs:
    """Hashes of all runs of one sequence, each in constant time.

    With S[i] the sum of t[j] B^j over j < i, modulo 2^64, the run of length L at i has the hash
    (S[i + L] - S[i]) B^-i, which depends on its words alone (B is odd, so that it has an inverse).

    Args:
        numbers: int64 [n].
        seed: another one gives other hashes.
    """

    def __init__(self, numbers: np.ndarray, seed: int = 0) -> None:
        base = (_BASE + 2 * seed * 0x632BE59BD9B4E019) % 2**64
        mixed = (numbers.astype(np.uint64) + np.uint64(1)) * _MIX
        mixed ^= mixed >> np.uint64(31)
        powers = _powers(base, len(numbers))
        self._back = _powers(pow(base, -1, 2**64), len(numbers))
        self._sums = np.zeros(len(numbers) + 1, np.uint64)
        np.cumsum(mixed * powers, out=self._sums[1:])

    def hashes(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return uint64 hashes of the runs of `length` that start at `starts`."""
        return (self._sums[starts + length] - self._sums[starts]) * self._back[starts]


def _powers(base: int, count: int) -> np.ndarray:
    out = np.full(count, base, np.uint64)
    if count:
        out[0] = 1
    return np.cumprod(out)


def joined(texts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (all numbers one after the other, where each text ends)."""
    parts = list(texts)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int64), *parts]), ends


def covered(starts: np.ndarray, length: int, size: int) -> np.ndarray:
    """Return bool [size]: the places inside one of the runs of `length` at `starts`."""
    steps = np.zeros(size + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + length, -1)
    return np.cumsum(steps[:-1]) > 0
