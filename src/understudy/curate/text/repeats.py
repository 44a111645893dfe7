"""How much of a text is repeated inside it: the statistics of the Gopher rules.

References:
    J. Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
    arXiv 2112.11446, appendix A1.1, table A1; read as mlfoundations/dclm does
    (baselines/mappers/filters/content_filters.py): every occurrence of a repeated piece counts, the
    first one too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from understudy.curate.engine.pages import Page
from understudy.curate.text.word_hash import Hashes
from understudy.curate.text.words import Places, Words

LONGEST = 10
"""Most words of an n-gram that is looked at."""
MOST_COMMON = (2, 3, 4)
"""Word counts n for which the most common n-gram is looked at; all repeated ones for others."""

_STEP = 0xAEF17502108EF2D9  # odd


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """Lines, or paragraphs, of a text.

    Attributes:
        count: number of them, blank ones left out.
        repeated: share of them that occur more than once, each occurrence counted.
        repeated_chars: share of their characters that are in such segments.
    """

    count: int
    repeated: float
    repeated_chars: float


def split_segments(text: str, separator: str) -> list[str]:
    """Return the pieces between separators, without outer white space; blank ones are left out."""
    return [piece for part in text.split(separator) if (piece := part.strip())]


def lines_of(page: Page) -> list[str]:
    """Return a page's lines that are not blank, without outer white space; found once."""
    return page.cached("lines", lambda text: split_segments(text, "\n"))


def segment_repeats(segments: list[str]) -> Segments:
    """Return what is repeated among lines or paragraphs."""
    total = len(segments)
    if len(set(segments)) == total:
        return Segments(count=total, repeated=0.0, repeated_chars=0.0)
    again = [(segment, n) for segment, n in Counter(segments).items() if n > 1]
    return Segments(
        count=total,
        repeated=sum(n for _, n in again) / total,
        repeated_chars=sum(len(s) * n for s, n in again) / sum(map(len, segments)),
    )


def _covered(places: Places, size: int, upto: Places) -> int:
    """Return the characters of all words in n-grams at ascending places, each word once."""
    ends = places + size
    ends[:-1] = np.minimum(ends[:-1], places[1:])
    return int((upto[ends] - upto[places]).sum())


def _longest_most_common(ordered: Places, hits: Places, size: int, upto: Places) -> int:
    """Return the characters of the most common n-gram times its count; ties take the longest.

    Args:
        ordered: places of n-grams, equal ones side by side.
        hits: where in `ordered` the next one is equal, ascending, at least one.
        size: n.
        upto: characters of the words before each place.
    """
    # hits that follow on each other are one n-gram
    begins = np.flatnonzero(hits[1:] != hits[:-1] + 1) + 1
    begins = np.concatenate(([0], begins, [hits.size]))
    counts = begins[1:] - begins[:-1] + 1
    most = int(counts.max())
    places = ordered[hits[begins[:-1][counts == most]]]
    return int((upto[places + size] - upto[places]).max()) * most


def ngram_repeats(hashes: Hashes, lengths: Places, longest: int = LONGEST) -> Iterator[float]:
    """Yield the share of a text's characters in repeated n-grams for n = 2, 3, ..., longest.

    For n in `MOST_COMMON` that is the most common n-gram's characters times its count (overlapping
    occurrences count, so it can exceed 1); for larger n the characters of all words in any
    n-gram that occurs more than once, each word once. Only places whose (n-1)-gram is repeated are
    looked at for n.

    Args:
        hashes: of the words, uint64 [W]; n-grams of equal hashes are taken for equal.
        lengths: characters of the words, int64 [W].
        longest: largest n.
    """
    upto = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=upto[1:])
    total = int(upto[-1])
    # signed numbers sort faster; sums and products are the same modulo 2^64
    words = hashes.view(np.int64)
    places = np.arange(words.size, dtype=np.int64)
    keys, factor = words, 1
    for size in range(2, longest + 1):
        factor = factor * _STEP % (1 << 64)
        stop = int(np.searchsorted(places, words.size - size, side="right"))
        places = places[:stop]
        keys = keys[:stop] + words[places + size - 1] * np.uint64(factor).view(np.int64)
        order = np.argsort(keys)
        ordered = keys[order]
        hits = np.flatnonzero(ordered[1:] == ordered[:-1])
        if not hits.size:
            break
        if size in MOST_COMMON:
            yield _longest_most_common(places[order], hits, size, upto) / total
        again = np.zeros(places.size, np.bool_)
        again[order[hits]] = True
        again[order[hits + 1]] = True
        places, keys = places[again], keys[again]
        if size not in MOST_COMMON:
            yield _covered(places, size, upto) / total
    else:
        return
    for _ in range(size, longest + 1):
        yield 0.0


def page_ngram_repeats(page: Page, longest: int = LONGEST) -> Iterator[float]:
    """Yield what `ngram_repeats` does, for the words of a page."""
    words = Words.of(page)
    yield from ngram_repeats(words.word_hashes, words.word_lengths, longest)
