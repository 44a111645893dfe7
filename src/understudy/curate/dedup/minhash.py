"""MinHash signatures of many documents at once, and the odds that banding finds a pair.

The hash functions are affine maps modulo 2^32 with odd factors, applied one after the other to the
same array: each one is again an affine map with a random odd factor, and an element costs one
multiplication, one addition and one comparison without any copy.

References:
    Broder: On the resemblance and containment of documents, 1997. Leskovec, Rajaraman, Ullman:
    Mining of Massive Datasets, section 3.4 (banding).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from understudy.core.seeds import rng
from understudy.curate.dedup.hashing import GRAM_BASE, gram_hashes, mix64
from understudy.curate.dedup.words import Words

CHUNK_SHINGLES = 1 << 16
"""Shingles that go through all hash functions at a time; they stay in the cache."""


def match_probability(jaccard: float | np.ndarray, bands: int, rows: int) -> float | np.ndarray:
    """Return the probability that two documents share a band: `1 - (1 - J^rows)^bands`."""
    return 1 - (1 - jaccard**rows) ** bands


@cache
def permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return factors (odd) and summands of `count` affine maps, uint32 [count] each."""
    generator = rng("minhash", seed)
    factors, summands = generator.integers(0, 1 << 32, (2, count), dtype=np.uint32)
    return factors | np.uint32(1), summands


def shingles(words: Words, size: int, letters: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the word n-grams of texts.

    A text with fewer words than `size` has one shingle, of all its words.

    Args:
        words: the texts.
        size: words in a shingle.
        letters: compare without case and without words that have no letter or digit.

    Returns:
        Hashes, uint64 [G], and the text of each, int32 [G] in ascending order.
    """
    values, text = words.hashes(lower=letters), words.text
    if letters:
        values, text = values[words.has_alnum], text[words.has_alnum]
    found, first = gram_hashes(values, text, size)
    owner = text[first]
    lengths = np.bincount(text, minlength=words.texts)
    short = np.flatnonzero((lengths > 0) & (lengths < size))
    if not len(short):
        return found, owner
    hashes, owners = [found], [owner]
    for length in np.unique(lengths[short]).tolist():
        mine = (lengths == length)[text]
        one, place = gram_hashes(values[mine], text[mine], length)
        hashes.append(mix64(one + np.uint64(length)))
        owners.append(text[mine][place])
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(hashes)[order], owner[order]


def signatures(hashes: np.ndarray, starts: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the smallest value of each hash function over each document's shingles.

    Args:
        hashes: shingles of the documents one after the other, uint64 [G].
        starts: place of each document's first shingle, ascending without equals, int64 [D].
        count: hash functions.
        seed: of the hash functions.

    Returns:
        uint32 [count, D].
    """
    factors, summands = permutations(count, seed)
    out = np.empty((count, len(starts)), np.uint32)
    small = (hashes >> np.uint64(32)).astype(np.uint32)
    ends = np.append(starts[1:], len(small))
    first = 0
    while first < len(starts):
        limit = starts[first] + CHUNK_SHINGLES
        last = max(first + 1, int(np.searchsorted(ends, limit, "right")))
        values = small[starts[first] : ends[last - 1]].copy()
        offsets = starts[first:last] - starts[first]
        for number in range(count):
            np.multiply(values, factors[number], out=values)
            np.add(values, summands[number], out=values)
            np.minimum.reduceat(values, offsets, out=out[number, first:last])
        first = last
    return out


def band_keys(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Return one key for each band of each document.

    Args:
        signature: uint32 [bands * rows, D].
        bands: groups of hash functions.
        rows: hash functions in a group.

    Returns:
        uint64 [bands, D]; equal, but for chance collisions of 64-bit hashes, if and only if all
        rows of the band are.
    """
    keys = np.zeros((bands, signature.shape[1]), np.uint64)
    for band in range(bands):
        for row in range(rows):
            keys[band] *= np.uint64(GRAM_BASE)
            keys[band] += mix64(signature[band * rows + row].astype(np.uint64))
    return mix64(keys)
