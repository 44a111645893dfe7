"""Find repeated ids in long streams."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from understudy.core.errors import DataError


class SeenIds:
    """Finds an id that comes again and says where it was before, at 16 bytes an id.

    Sorted runs of 64-bit hashes are merged as they grow, so that a check is a few binary searches.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[int] = []
        self._places: list[str] = []
        self._rows = 0

    def add(self, ids: Sequence[str], places: Sequence[str]) -> None:
        """Note ids and the file of each.

        Raises:
            DataError: one was there before; the message names both places.
        """
        if not ids:
            return
        hashes = np.fromiter((hash64(i) for i in ids), np.uint64, len(ids))
        first = self._rows
        for i, place in enumerate(places):
            if not self._places or self._places[-1] != place:
                self._places.append(place)
                self._starts.append(first + i)
        self._rows += len(ids)
        order = np.argsort(hashes, kind="stable")
        rows = (first + order).astype(np.uint64)
        hashes = hashes[order]
        again = np.flatnonzero(hashes[1:] == hashes[:-1])
        if len(again):
            self._refuse(ids, first, int(rows[again[0] + 1]), int(rows[again[0]]))
        for known, before in self._runs:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            hit = np.flatnonzero(known[at] == hashes)
            if len(hit):
                self._refuse(ids, first, int(rows[hit[0]]), int(before[at[hit[0]]]))
        self._runs.append((hashes, rows))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            (a, ra), (b, rb) = self._runs[-2:]
            both = np.concatenate([a, b])
            order = np.argsort(both, kind="stable")
            self._runs[-2:] = [(both[order], np.concatenate([ra, rb])[order])]

    def _place(self, row: int) -> str:
        return self._places[bisect_right(self._starts, row) - 1]

    def _refuse(self, ids: Sequence[str], first: int, row: int, before: int) -> None:
        raise DataError(
            f"id '{ids[row - first]}' occurs twice: in {self._place(before)} and in "
            f"{self._place(row)}; every sample needs an id of its own (ids='shard-key' puts the "
            "shard's name before the key of WebDataset samples)."
        )


def hash64(text: str) -> int:
    """Return a 64-bit hash of an id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
