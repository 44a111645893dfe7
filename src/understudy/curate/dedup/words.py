"""Batches of texts as arrays of words: spans, hashes, documents and paragraphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from understudy.curate.text.boundaries import word_starts
from understudy.curate.text.chars import ALNUM, SPACE, facts_of
from understudy.curate.text.word_hash import hash_words

CHUNK_CHARACTERS = 1 << 17
"""Characters handled at a time: the arrays of a chunk stay in the processor's caches."""


@cache
def _lower() -> tuple[np.ndarray, np.ndarray]:
    """Return the lower case of every code point, and whether it has been looked up."""
    lower = np.arange(0x110000, dtype=np.uint32)
    lower[65:91] += 32
    known = np.zeros(0x110000, bool)
    known[:128] = True
    return lower, known


def lower_case(codes: np.ndarray) -> np.ndarray:
    """Return code points with letters in lower case, where that is a single character."""
    lower, known = _lower()
    if codes.dtype != np.uint8:
        for code in np.unique(codes[~known[codes]]).tolist():
            small = chr(code).lower()
            lower[code] = ord(small) if len(small) == 1 else code
            known[code] = True
    return lower[codes].astype(codes.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Words of consecutive texts, which are joined by line ends.

    Attributes:
        first: number of the first text.
        texts: how many texts there are.
        codes: code points of all texts, uint8 or uint32 [N].
        text_starts: where each text begins in `codes`, int64 [texts].
        starts: first code point of each word, int64 [W].
        ends: one behind the last code point of each word, int64 [W].
        text: number of each word's text, counted from `first`, int32 [W].
        line: number of each word's line, counted through all texts, int32 [W].
        first_lines: line that each text begins with, int32 [texts].
        has_alnum: the word has a letter or digit, bool [W].
    """

    first: int
    texts: int
    codes: np.ndarray
    text_starts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    text: np.ndarray
    line: np.ndarray
    first_lines: np.ndarray
    has_alnum: np.ndarray

    def hashes(self, lower: bool = False) -> np.ndarray:
        """Return the hash of each word, uint64 [W].

        Args:
            lower: letters count as their lower case.
        """
        codes = lower_case(self.codes) if lower else self.codes
        return hash_words(codes, self.starts, self.ends)


def segment(texts: Sequence[str], first: int = 0) -> Words:
    """Find the words of texts: tokens between Unicode word boundaries that are not white space.

    Args:
        texts: any strings.
        first: number of the first one.
    """
    joined = "\n".join(texts) + "\n"
    facts = facts_of(joined)
    codes, flags = facts.codes, facts.flags
    begin = np.flatnonzero(word_starts(facts))
    end = np.append(begin[1:], len(codes))
    # a token that begins and ends with white space is white space throughout
    keep = (flags[begin] & flags[end - 1] & SPACE) == 0
    starts, ends = begin[keep], end[keep]
    lengths = np.array([len(t) + 1 for t in texts], np.int64)
    text_starts = np.cumsum(lengths) - lengths
    lines = np.cumsum(codes == 10, dtype=np.int32)
    alnum = np.zeros(len(codes) + 1, np.int32)
    np.cumsum((flags & ALNUM) > 0, out=alnum[1:])
    counts = np.diff(np.searchsorted(starts, np.append(text_starts, len(codes))))
    return Words(
        first=first,
        texts=len(texts),
        codes=codes,
        text_starts=text_starts,
        starts=starts,
        ends=ends,
        text=np.repeat(np.arange(len(texts), dtype=np.int32), counts),
        line=lines[starts],
        first_lines=np.append(0, lines[text_starts[1:] - 1]).astype(np.int32)[: len(texts)],
        has_alnum=alnum[ends] > alnum[starts],
    )


def segmented(texts: Sequence[str], limit: int = CHUNK_CHARACTERS) -> Iterator[Words]:
    """Yield the words of texts in chunks of about `limit` characters; a text is never split."""
    start, held = 0, 0
    for number, text in enumerate(texts):
        if held and held + len(text) > limit:
            yield segment(texts[start:number], start)
            start, held = number, 0
        held += len(text) + 1
    if start < len(texts):
        yield segment(texts[start:], start)


def words_of(text: str) -> list[str]:
    """Return the words of one text, as strings."""
    found = segment([text])
    return [text[a:b] for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True)]
