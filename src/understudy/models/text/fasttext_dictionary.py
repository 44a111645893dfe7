"""The dictionary of a fastText model: from texts to the rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.models.text.fasttext_hash import char_ngrams, fnv1a, word_ngrams
from understudy.models.text.fasttext_lines import EOS, split_lines
from understudy.models.text.fasttext_runs import merge_runs, run_sums, select_runs

LABEL_PREFIX = "__label__"
_EOS, _PREFIX = EOS.encode(), LABEL_PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Bags:
    """What stands for lines: their words, and rows of the table for their word n-grams.

    Attributes:
        vocabulary: the U different words of the lines.
        words: int32 [total], which of them stands at each place of the lines.
        line_words: int64 [N], words of each line.
        gram_rows: int64, rows of the word n-grams, grouped by line.
        gram_counts: int64 [N], word n-grams of each line.
    """

    vocabulary: list[bytes]
    words: np.ndarray
    line_words: np.ndarray
    gram_rows: np.ndarray
    gram_counts: np.ndarray

    def sizes(self, word_counts: np.ndarray) -> np.ndarray:
        """Return int64 [N]: rows of each line, given those of each different word, [U]."""
        return run_sums(word_counts[self.words], self.line_words) + self.gram_counts

    def flat(self, word_rows: np.ndarray, word_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows int64 of all lines in order, rows of each line int64 [N]).

        Args:
            word_rows: rows of the different words (`Dictionary.word_rows(vocabulary)`).
            word_counts: int64 [U], how many each has.
        """
        rows, per_word = select_runs(word_rows, word_counts, self.words)
        of_lines = (rows, run_sums(per_word, self.line_words))
        return merge_runs([of_lines, (self.gram_rows, self.gram_counts)])


@dataclass(slots=True)
class Dictionary:
    """Words and labels of a model, and how n-grams find their rows.

    Rows 0 to W - 1 of the table belong to the words, row W + b to bucket b.

    Attributes:
        words: W words as UTF-8, most frequent first.
        word_counts: int64 [W].
        labels: L labels with their prefix, in the order of the output.
        label_counts: int64 [L]; the tree of a hierarchical softmax follows from them.
        word_ngrams: largest order of word n-grams.
        buckets: number of buckets that n-grams share.
        min_chars: smallest character n-gram.
        max_chars: largest; 0 for none.
        num_tokens: words of the training set.
        pruned: of a pruned model, int64 [buckets]: what a bucket was renumbered to, -1 for one that
            was dropped; None for a model that keeps all.
    """

    words: list[bytes]
    word_counts: np.ndarray
    labels: tuple[str, ...]
    label_counts: np.ndarray
    word_ngrams: int
    buckets: int
    min_chars: int = 0
    max_chars: int = 0
    num_tokens: int = 0
    pruned: np.ndarray | None = None
    _ids: dict[bytes, int] = field(init=False, repr=False)
    _labels: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ids = {word: i for i, word in enumerate(self.words)}
        self._labels = frozenset(label.encode() for label in self.labels)

    def label_id(self, label: str) -> int:
        """Return the place of a label, given with or without the prefix.

        Raises:
            ConfigError: there is none; the message lists the labels that there are.
        """
        names = self.short_labels()
        wanted = label.removeprefix(LABEL_PREFIX)
        if wanted not in names:
            shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
            raise ConfigError(f"the classifier has no label '{wanted}'; its labels: {shown}.")
        return names.index(wanted)

    def short_labels(self) -> list[str]:
        """Return the labels without their prefix."""
        return [label.removeprefix(LABEL_PREFIX) for label in self.labels]

    def bags(self, texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> Bags:
        """Return what stands for each text (see `fasttext_lines.split_lines`)."""
        lines = split_lines(texts)
        codes, counts = lines.codes, lines.counts
        is_word = np.array([not self._is_label(word) for word in lines.words], bool)
        if not is_word.all():  # labels inside a text are no words of it
            keep = is_word[codes]
            counts = run_sums(keep, counts)
            codes = codes[keep]
        gram_rows, gram_counts = self._gram_rows(lines.words, codes, counts)
        return Bags(lines.words, codes, counts, gram_rows, gram_counts)

    def word_rows(self, words: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows int64, rows of each word int64 [U]): of the word and its character n-grams.

        A word that isn't in the dictionary has those of its n-grams only.
        """
        get = self._ids.get
        ids = np.fromiter((get(word, -1) for word in words), np.int64, len(words))
        own = (ids[ids >= 0], (ids >= 0).astype(np.int64))
        if self.max_chars < 1:
            return own
        parts = [i for i, word in enumerate(words) if word != _EOS]
        buckets, counts = char_ngrams(
            [words[i] for i in parts], self.min_chars, self.max_chars, self.buckets
        )
        spread = np.zeros(len(words), np.int64)
        spread[parts] = counts
        return merge_runs([own, self._kept(buckets, spread)])

    def _is_label(self, word: bytes) -> bool:
        if word in self._labels:
            return True
        return word.startswith(_PREFIX) and word not in self._ids

    def _gram_rows(
        self, words: list[bytes], codes: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.word_ngrams < 2:
            return np.zeros(0, np.int64), np.zeros(len(counts), np.int64)
        grams = word_ngrams(fnv1a(words)[codes], counts, self.word_ngrams, self.buckets)
        return merge_runs([self._kept(values, number) for values, number in grams])

    def _kept(self, buckets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn buckets into rows; a pruned model drops those that it doesn't keep."""
        if self.pruned is None:
            return buckets + len(self.words), counts
        renumbered = self.pruned[buckets] if len(self.pruned) else np.full(len(buckets), -1)
        keep = renumbered >= 0
        return renumbered[keep] + len(self.words), run_sums(keep, counts)
