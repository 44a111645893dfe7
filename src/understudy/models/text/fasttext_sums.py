"""Sums of the vectors of words: each different word is added up once."""

from __future__ import annotations

import numpy as np

from understudy.models.text.fasttext_dictionary import Dictionary
from understudy.models.text.fasttext_matrix import Matrix, segment_sums


class WordSums:
    """Sums of the vectors of words, kept for the words that come again.

    A word's sum doesn't depend on what else it is asked with, so the cache can't change a result.

    Args:
        dictionary: finds the rows of words.
        table: the vectors.
        limit: words to keep; when there are more, the cache starts anew.
    """

    def __init__(self, dictionary: Dictionary, table: Matrix, limit: int = 1 << 18) -> None:
        self.dictionary, self.table, self.limit = dictionary, table, limit
        # Without character n-grams a word is one row: looking it up again is as cheap.
        self.keeps = dictionary.max_chars > 0
        self._clear()

    def of(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Return (sums float64 [U, D], rows behind each int64 [U])."""
        if not self.keeps:
            return self._compute(words)
        if len(self._places) + len(words) > self.limit:
            self._clear()
        fresh = [word for word in words if word not in self._places]
        if fresh:
            start = len(self._places)
            self._places.update(zip(fresh, range(start, start + len(fresh)), strict=True))
            sums, sizes = self._compute(fresh)
            stop = start + len(fresh)
            if stop > len(self._sizes):
                room = max(stop, 2 * len(self._sizes)) - start
                self._sums = np.concatenate([self._sums[:start], np.empty((room, sums.shape[1]))])
                self._sizes = np.concatenate([self._sizes[:start], np.empty(room, np.int64)])
            self._sums[start:stop], self._sizes[start:stop] = sums, sizes
        at = np.fromiter(map(self._places.__getitem__, words), np.int64, len(words))
        return self._sums[at], self._sizes[at]

    def _compute(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        rows, counts = self.dictionary.word_rows(words)
        return segment_sums(self.table.rows(rows), counts), counts

    def _clear(self) -> None:
        self._places: dict[bytes, int] = {}
        self._sums = np.empty((0, self.table.shape[1]))
        self._sizes = np.empty(0, np.int64)
