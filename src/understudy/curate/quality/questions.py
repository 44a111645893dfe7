"""Pages that hold a test question together with one of its answers, and pages without them.

The rule of DataComp-LM for MMLU and HellaSwag: a page is contaminated by a question if it holds the
question's text (its last sentence only, for MMLU) and the text of an option, outside of it. The
question and the nearest place of every option that is there, what follows preferred, are removed.
Texts are compared word by word, so that case, punctuation and line breaks do not matter.

References:
    DataComp-LM, arXiv 2406.11794, section on decontamination.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from understudy.curate.quality.eval_sets import EvalSet
from understudy.curate.quality.overlap import known_starts
from understudy.curate.quality.overlap_words import Runs, Vocabulary, joined, spans_of, words_of

_PREFIX = 8


@dataclass(frozen=True, slots=True)
class Match:
    """A question in a page.

    Attributes:
        set: number of the test set.
        example: number of the question in it.
        spans: (first word, word after the last) of the question and of each option that is there.
    """

    set: int
    example: int
    spans: tuple[tuple[int, int], ...]


class QuestionIndex:
    """The questions of test sets, found by hash and compared word by word.

    Args:
        sets: test sets; those with the rule `"none"` are left out.
        vocabulary: words of the test sets; new ones are added.
        min_words: questions whose sought part is shorter are left out.

    Attributes:
        unmatchable: number of questions that are left out, or have no option with a word.
    """

    def __init__(self, sets: Sequence[EvalSet], vocabulary: Vocabulary, min_words: int = 1) -> None:
        self._questions: list[tuple[int, int, np.ndarray, list[np.ndarray]]] = []
        self.unmatchable = 0
        for number, one in enumerate(sets):
            for place, example in enumerate(one.examples if one.rule != "none" else ()):
                sought = vocabulary.learn(words_of(example.sought))
                options = [vocabulary.learn(words_of(option)) for option in example.options]
                options = [option for option in options if len(option)]
                if len(sought) >= min_words and options:
                    self._questions.append((number, place, sought, options))
                else:
                    self.unmatchable += 1
        # prefix length -> hash of the prefix -> hash and length of whole questions -> questions
        self._by_prefix: dict[int, dict[int, dict[tuple[int, int], list[int]]]] = {}
        for index, (_, _, sought, _) in enumerate(self._questions):
            size = min(len(sought), _PREFIX)
            runs = Runs(sought)
            first = np.zeros(1, np.int64)
            start, whole = int(runs.hashes(first, size)[0]), int(runs.hashes(first, len(sought))[0])
            group = self._by_prefix.setdefault(size, {}).setdefault(start, {})
            group.setdefault((whole, len(sought)), []).append(index)
        self._starts = {
            size: np.sort(np.array(list(group), np.uint64))
            for size, group in self._by_prefix.items()
        }

    def scan(self, pages: Sequence[np.ndarray]) -> list[list[Match]]:
        """Return the contaminating questions of each page.

        Args:
            pages: numbers of each page's words, by the same vocabulary.
        """
        tokens, ends = joined(pages)
        out: list[list[Match]] = [[] for _ in pages]
        if not len(tokens) or not self._questions:
            return out
        found: dict[int, list[tuple[int, np.ndarray]]] = {}
        for index, starts in self._places(tokens, ends):
            owners = np.searchsorted(ends, starts, "right")  # starts ascend, so that these do
            edges = np.flatnonzero(np.diff(owners, prepend=-1)).tolist()
            for a, b in pairwise([*edges, len(owners)]):
                page = int(owners[a])
                first = int(ends[page]) - len(pages[page])
                found.setdefault(page, []).append((index, starts[a:b] - first))
        for page, questions in found.items():
            words = _PageWords(pages[page])
            for index, starts in questions:
                out[page] += self._matches(index, words, starts.tolist())
        return out

    def _places(self, tokens: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (question, where it starts) for every question that is in the tokens."""
        runs = Runs(tokens)
        for size, sought in self._starts.items():
            starts = known_starts(tokens, ends, size)
            hashes = runs.hashes(starts, size)
            place = np.minimum(np.searchsorted(sought, hashes), len(sought) - 1)
            hit = sought[place] == hashes
            starts, place = starts[hit], place[hit]
            order = np.argsort(place, kind="stable")
            starts, place = starts[order], place[order]
            edges = np.flatnonzero(np.diff(place, prepend=-1))
            for a, b in pairwise([*edges.tolist(), len(place)]):
                group = self._by_prefix[size][int(sought[place[a]])]
                yield from self._whole(group, tokens, ends, runs, starts[a:b])

    def _whole(
        self,
        group: Mapping[tuple[int, int], list[int]],
        tokens: np.ndarray,
        ends: np.ndarray,
        runs: Runs,
        starts: np.ndarray,
    ) -> Iterator[tuple[int, np.ndarray]]:
        room = ends[np.searchsorted(ends, starts, "right")] - starts
        for (whole, length), indices in group.items():
            fits = starts[room >= length]
            fits = fits[runs.hashes(fits, length) == np.uint64(whole)]
            for index in indices:
                sought = self._questions[index][2]
                same = (tokens[fits[:, None] + np.arange(length)] == sought).all(axis=1)
                if same.any():
                    yield index, fits[same]

    def _matches(self, index: int, words: _PageWords, starts: list[int]) -> Iterator[Match]:
        number, place, sought, options = self._questions[index]
        for start in starts:
            stop = start + len(sought)
            spans = [words.nearest(option, start, stop) for option in options]
            there = [span for span in spans if span is not None]
            if there:
                yield Match(number, place, ((start, stop), *dict.fromkeys(there)))


class _PageWords:
    """The words of a page, and where options are in it."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._found: dict[bytes, np.ndarray] = {}

    def places(self, option: np.ndarray) -> np.ndarray:
        """Return where an option starts."""
        key = option.tobytes()
        if key not in self._found:
            last = max(len(self.numbers) - len(option) + 1, 0)
            starts = np.flatnonzero(self.numbers[:last] == option[0])
            windows = self.numbers[starts[:, None] + np.arange(len(option))]
            self._found[key] = starts[(windows == option).all(axis=1)]
        return self._found[key]

    def nearest(self, option: np.ndarray, start: int, stop: int) -> tuple[int, int] | None:
        """Return the first place of an option behind a question, else the last one before it."""
        places, size = self.places(option), len(option)
        behind = int(np.searchsorted(places, stop))
        if behind < len(places):
            return int(places[behind]), int(places[behind]) + size
        before = int(np.searchsorted(places, start - size, "right"))
        return (int(places[before - 1]), int(places[before - 1]) + size) if before else None


def without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text without some runs of words, each from its first letter to its last."""
    places = spans_of(text)
    kept, at = [], 0
    for first, stop in sorted(spans):
        start, end = int(places[first, 0]), int(places[stop - 1, 1])
        if end > at:
            kept.append(text[at : max(start, at)])
            at = end
    return "".join([*kept, text[at:]])
