"""Runs of words that pages share with test sets.

A word is inside a shared run of at least n words exactly if it is inside an n-gram that both sides
hold. All n-grams of the test sets are hashed once; the n-grams of a page are found among them by
hash and then compared word by word, so that a collision of hashes cannot count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError
from understudy.curate.quality.eval_sets import EvalSet
from understudy.curate.quality.overlap_words import (
    Runs,
    Vocabulary,
    covered,
    joined,
    words_of,
)


@dataclass(frozen=True, slots=True)
class Shared:
    """What some pages share with the test sets.

    Attributes:
        grams: bool [G], n-grams of the test sets that are in a page.
        words: int64 [pages], words of each page.
        inside: int64 [pages, sets], words inside runs shared with each set.
    """

    grams: np.ndarray
    words: np.ndarray
    inside: np.ndarray


class GramIndex:
    """The n-grams of test sets.

    The texts of an example are its question and each of its options, apart: an n-gram does not
    reach from one into the next.

    Args:
        sets: test sets.
        n: words of a run at least.
        vocabulary: words of the test sets; new ones are added.

    Attributes:
        size: number of different n-grams.
    """

    def __init__(self, sets: Sequence[EvalSet], n: int, vocabulary: Vocabulary) -> None:
        if n < 2:
            raise ConfigError(f"decontaminate: n: expected 2 words or more, got {n}.")
        self.sets, self.n, self.vocabulary = list(sets), n, vocabulary
        texts, self._set_of, self._example_of = [], [], []
        for number, one in enumerate(self.sets):
            for place, example in enumerate(one.examples):
                for text in (example.question, *example.options):
                    texts.append(vocabulary.learn(words_of(text)))
                    self._set_of.append(number)
                    self._example_of.append(place)
        self._tokens, self._ends = joined(texts)
        self._starts = window_starts(self._ends, n)
        self._build()

    def _build(self) -> None:
        """Number the different n-grams; take other hashes as long as two share one."""
        for seed in range(16):
            hashes = Runs(self._tokens, seed).hashes(self._starts, self.n)
            self._hashes, first, self._gram_of = np.unique(
                hashes, return_index=True, return_inverse=True
            )
            self._places = self._starts[first]
            self._seed = seed
            if self._unique():
                break
        self.size = len(self._hashes)
        owners = np.searchsorted(self._ends, self._starts, "right")
        self._in_set = np.zeros((self.size, len(self.sets)), bool)
        self._in_set[self._gram_of, np.array(self._set_of, np.int64)[owners]] = True

    def _unique(self) -> bool:
        """Say whether n-grams with one hash are one n-gram."""
        chunks = range(0, len(self._starts), 1 << 18)
        pairs = (
            (self._starts[a : a + (1 << 18)], self._gram_of[a : a + (1 << 18)]) for a in chunks
        )
        return all((self._windows(self._tokens, s) == self._grams(g)).all() for s, g in pairs)

    def _windows(self, tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return tokens[starts[:, None] + np.arange(self.n)]

    def _grams(self, numbers: np.ndarray) -> np.ndarray:
        return self._windows(self._tokens, self._places[numbers])

    def scan(self, pages: Sequence[np.ndarray]) -> Shared:
        """Return what pages share with the sets.

        Args:
            pages: numbers of each page's words, by the same vocabulary.
        """
        tokens, ends = joined(pages)
        words = np.array([len(page) for page in pages], np.int64)
        found = Shared(
            np.zeros(self.size, bool), words, np.zeros((len(pages), len(self.sets)), np.int64)
        )
        starts = known_starts(tokens, ends, self.n)
        if self.size == 0 or len(starts) == 0:
            return found
        hashes = Runs(tokens, self._seed).hashes(starts, self.n)
        place = np.minimum(np.searchsorted(self._hashes, hashes), self.size - 1)
        hit = np.flatnonzero(self._hashes[place] == hashes)
        starts, place = starts[hit], place[hit]
        same = (self._windows(tokens, starts) == self._grams(place)).all(axis=1)
        starts, place = starts[same], place[same]
        found.grams[place] = True
        for number in range(len(self.sets)):
            own = starts[self._in_set[place, number]]
            if len(own):
                inside = np.concatenate([[0], np.cumsum(covered(own, self.n, len(tokens)))])
                found.inside[:, number] = inside[ends] - inside[ends - words]
        return found

    def coverage(self, grams: np.ndarray) -> list[dict[str, int]]:
        """Return what is shared of each set, given the n-grams that any page holds.

        Args:
            grams: bool [G], the union of `Shared.grams`.

        Returns:
            For each set `words`, `words_shared`, `examples`, `examples_shared` (with a shared run).
        """
        inside = covered(self._starts[grams[self._gram_of]], self.n, len(self._tokens))
        total = np.concatenate([[0], np.cumsum(inside)])
        sizes = np.diff(self._ends, prepend=0)
        shared = total[self._ends] - total[self._ends - sizes]
        owner, place = np.array(self._set_of, np.int64), np.array(self._example_of, np.int64)
        return [
            {
                "words": int(sizes[owner == number].sum()),
                "words_shared": int(shared[owner == number].sum()),
                "examples": len(one.examples),
                "examples_shared": len(np.unique(place[(owner == number) & (shared > 0)])),
            }
            for number, one in enumerate(self.sets)
        ]


def window_starts(ends: np.ndarray, n: int) -> np.ndarray:
    """Return where the windows of n places inside single texts start."""
    sizes = np.diff(ends, prepend=0)
    last = np.repeat(ends - n, sizes)
    starts = np.arange(int(ends[-1]) if len(ends) else 0)
    return starts[starts <= last]


def known_starts(tokens: np.ndarray, ends: np.ndarray, n: int) -> np.ndarray:
    """Return the starts of those windows that hold no unknown word."""
    starts = window_starts(ends, n)
    unknown = np.concatenate([[0], np.cumsum(tokens == 0)])
    return starts[unknown[starts + n] == unknown[starts]]
