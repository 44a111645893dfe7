"""Words of a text, found once for all stages that look at it.

Two notions of a word are in use in curation. *Tokens* are what the Unicode standard puts between
two word boundaries, white space left out; *words* are the tokens that begin with a letter or digit,
so no punctuation. *Chunks* are what white space separates.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from understudy.curate.engine.pages import Page
from understudy.curate.text.boundaries import word_starts
from understudy.curate.text.chars import ALNUM, ALPHA, SPACE, Facts, facts_of
from understudy.curate.text.word_hash import Hashes, hash_words

Places = NDArray[np.int64]


class Words:
    """What is known of the words of a text; everything is computed when it is first asked for.

    Args:
        text: the text.

    References:
        Tokens: Unicode Standard Annex 29, "Unicode Text Segmentation", default word boundaries.
        Words by first character: mlfoundations/dclm, baselines/mappers/core_utils.py.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def of(cls, page: Page) -> Words:
        """Return the words of a page's present text, shared by all stages of a chain."""
        return page.cached("words", cls)

    @cached_property
    def facts(self) -> Facts:
        """Facts of the characters."""
        return facts_of(self.text)

    @cached_property
    def _bounds(self) -> tuple[Places, Places]:
        # first and last place of everything between two boundaries, white space included
        starts = np.flatnonzero(word_starts(self.facts))
        ends = np.empty_like(starts)
        if starts.size:
            ends[:-1] = starts[1:]
            ends[-1] = len(self.text)
        return starts, ends

    @cached_property
    def token_spans(self) -> tuple[Places, Places]:
        """Starts and ends of the tokens, int64 [T] each."""
        starts, ends = self._bounds
        flags = self.facts.flags
        blank = (flags[starts] & flags[ends - 1] & SPACE) != 0
        keep = np.flatnonzero(~blank)
        return starts[keep], ends[keep]

    @cached_property
    def word_spans(self) -> tuple[Places, Places]:
        """Starts and ends of the words, int64 [W] each."""
        starts, ends = self._bounds
        keep = np.flatnonzero((self.facts.flags[starts] & ALNUM) != 0)
        return starts[keep], ends[keep]

    @cached_property
    def token_hashes(self) -> Hashes:
        """Hashes of the tokens, uint64 [T]."""
        return hash_words(self.facts.codes, *self.token_spans)

    @cached_property
    def word_hashes(self) -> Hashes:
        """Hashes of the words, uint64 [W]."""
        return hash_words(self.facts.codes, *self.word_spans)

    @cached_property
    def word_lengths(self) -> Places:
        """Characters of each word, int64 [W]."""
        starts, ends = self.word_spans
        return ends - starts

    def tokens(self) -> list[str]:
        """Return the tokens as strings."""
        return self._strings(self.token_spans)

    def words(self) -> list[str]:
        """Return the words as strings."""
        return self._strings(self.word_spans)

    def _strings(self, spans: tuple[Places, Places]) -> list[str]:
        text = self.text
        return [text[a:b] for a, b in zip(spans[0].tolist(), spans[1].tolist(), strict=True)]

    @cached_property
    def is_space(self) -> NDArray[np.bool_]:
        """Whether each character is white space, bool [n]."""
        return (self.facts.flags & SPACE) != 0

    @cached_property
    def chunk_starts(self) -> Places:
        """Starts of the chunks, int64 [C]."""
        space = self.is_space
        begins = ~space
        begins[1:] &= space[:-1]
        return np.flatnonzero(begins)

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return self.chunk_starts.size

    @cached_property
    def chunk_chars(self) -> int:
        """Characters of all chunks together."""
        return self.is_space.size - int(np.count_nonzero(self.is_space))

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Whether each chunk begins with a letter or digit, bool [C]."""
        return (self.facts.flags[self.chunk_starts] & ALNUM) != 0

    @cached_property
    def word_count(self) -> int:
        """Chunks that begin with a letter or digit: a page's length."""
        return int(np.count_nonzero(self.counted))

    @cached_property
    def letterless(self) -> int:
        """Chunks without any letter."""
        if not self.chunk_starts.size:
            return 0
        letters = (self.facts.flags & ALPHA) != 0
        # white space after a chunk has no letters
        return self.chunk_count - int(
            np.count_nonzero(np.logical_or.reduceat(letters, self.chunk_starts))
        )


def split_tokens(text: str) -> list[str]:
    """Return the tokens of a text: words and marks by Unicode's rules, white space left out."""
    return Words(text).tokens()


def split_words(text: str) -> list[str]:
    """Return the words of a text: its tokens that begin with a letter or digit."""
    return Words(text).words()
