"""The hashes of fastText: words, character n-grams and word n-grams to numbers, vectorised.

Published models only make sense with exactly these hashes, quirks included: FNV-1a reads each byte
as *signed*, and word hashes are widened with their sign.

References:
    Joulin et al. 2016, "Bag of tricks for efficient text classification", arXiv 1607.01759.
    Bojanowski et al. 2017, arXiv 1607.04606 (character n-grams).
    fastText 0.9.2, src/dictionary.cc (hash, computeSubwords, addWordNgrams).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.models.text.fasttext_runs import merge_runs

FNV_START = 2166136261
FNV_PRIME = 16777619
NGRAM_FACTOR = 116049371
"""Factor of the rolling hash of word n-grams."""

_LONG = 64
_PIECE = 8_192  # words at a time, so that the work fits the processor's cache
# Byte 0x80 to 0xFF are negative as signed characters: the upper 24 bits become ones.
_SIGNED = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32).view(np.uint32)


def _fnv_slow(word: bytes) -> int:
    h = FNV_START
    for byte in word:
        h = ((h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * FNV_PRIME) & 0xFFFFFFFF
    return h


def fnv1a(words: Sequence[bytes]) -> np.ndarray:
    """Return the 32-bit FNV-1a hash of each word, uint32 [N], with fastText's signed bytes."""
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    out = np.full(len(words), FNV_START, np.uint32)
    for i in np.flatnonzero(lengths > _LONG).tolist():
        out[i] = _fnv_slow(words[i])
    # Longest first, so that the words that still have a byte at a place are a prefix.
    short = np.flatnonzero(lengths <= _LONG)
    order = short[np.argsort(-lengths[short], kind="stable")]
    starts = (np.cumsum(lengths) - lengths)[order]
    data = _SIGNED[np.frombuffer(b"".join(words), np.uint8)]
    sizes = lengths[order]
    h = np.full(len(order), FNV_START, np.uint32)
    for place in range(int(sizes[0]) if len(sizes) else 0):
        active = int(np.searchsorted(-sizes, -place, "left"))  # sizes > place
        h[:active] = (h[:active] ^ data[starts[:active] + place]) * np.uint32(FNV_PRIME)
    out[order] = h
    return out


def char_ngrams(
    words: Sequence[bytes], low: int, high: int, buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of the character n-grams of words that are marked `<word>`.

    Characters are runs of a byte that does not continue another and those that do. An n-gram of one
    character that is one of the marks is left out.

    Args:
        words: UTF-8 words, without marks.
        low: smallest n.
        high: largest n; 0 gives none.
        buckets: number of buckets.

    Returns:
        (buckets int64 [total], n-grams of each word int64 [N]); grouped by word, then by n.
    """
    if high < 1 or buckets < 1 or not words:
        return np.zeros(0, np.int64), np.zeros(len(words), np.int64)
    pieces = [
        _char_ngrams(words[at : at + _PIECE], low, high, buckets)
        for at in range(0, len(words), _PIECE)
    ]
    return np.concatenate([v for v, _ in pieces]), np.concatenate([c for _, c in pieces])


def _char_ngrams(
    words: Sequence[bytes], low: int, high: int, buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    marked = [b"<" + word + b">" for word in words]
    data = np.frombuffer(b"".join(marked), np.uint8)
    starts = np.flatnonzero((data & 0xC0) != 0x80)
    ends = np.append(starts[1:], len(data))
    edges = np.cumsum(np.fromiter(map(len, marked), np.int64, len(marked)))
    owner = np.repeat(np.arange(len(words)), np.diff(np.searchsorted(starts, edges), prepend=0))
    stop = np.searchsorted(starts, edges)[owner]  # of the characters of the same word
    first = np.append(True, owner[1:] != owner[:-1])
    last = np.append(owner[1:] != owner[:-1], True)
    signed = _SIGNED[data]
    h = np.full(len(starts), FNV_START, np.uint32)
    active = np.arange(len(starts))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for n in range(1, high + 1):
        inside = active + (n - 1) < stop[active]
        active, h = active[inside], h[inside]
        end_char = active + (n - 1)
        h = _extend(h, signed, starts[end_char], ends[end_char])
        if n < low:
            continue
        kept = slice(None) if n > 1 else ~(first | last)[active]
        counts = np.bincount(owner[active[kept]], minlength=len(words))
        found.append(((h[kept] % np.uint32(buckets)).astype(np.int64), counts))
    if not found:
        return np.zeros(0, np.int64), np.zeros(len(words), np.int64)
    return merge_runs(found)


def _extend(h: np.ndarray, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Go on hashing with the bytes of one more character each."""
    for offset in range(int((ends - starts).max()) if len(starts) else 0):
        has = starts + offset < ends
        if has.all():
            h = (h ^ data[starts + offset]) * np.uint32(FNV_PRIME)
        else:
            h = h.copy()
            h[has] = (h[has] ^ data[starts[has] + offset]) * np.uint32(FNV_PRIME)
    return h


def word_ngrams(
    hashes: np.ndarray, counts: np.ndarray, order: int, buckets: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the buckets of the word n-grams of lines, n = 2 to `order`.

    Args:
        hashes: uint32 [total], the FNV-1a hashes of the words of all lines.
        counts: int64 [N], words of each line.
        order: largest n.
        buckets: number of buckets.

    Returns:
        For each n, (buckets int64, n-grams of each line int64 [N]), in the order of the lines.
    """
    wide = hashes.view(np.int32).astype(np.int64).view(np.uint64)
    stops = np.repeat(np.cumsum(counts), counts)  # of the line of each word
    h = wide.copy()
    start = np.arange(len(wide))
    out = []
    for n in range(2, order + 1):
        inside = start + n - 1 < stops[start]
        start, h = start[inside], h[inside]
        h = h * np.uint64(NGRAM_FACTOR) + wide[start + n - 1]
        values = (h % np.uint64(buckets)).astype(np.int64) if buckets else np.zeros(0, np.int64)
        out.append((values, np.maximum(counts - n + 1, 0) if buckets else np.zeros_like(counts)))
    return out
