"""A gallery's vectors in memory, one immutable view a store version.

Moving to the next version must not stop queries, copy the gallery, or show a half-written row. So
vectors that were written since are appended to a log, and a view is the blocks it began with plus
the first entries of the log: appending more changes nothing that an older view can see. Making the
next view costs as much as was written, and taking it over is one assignment.

When the log has grown it is folded into the blocks, one block at a time, each a new view too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from understudy.core.errors import DataError
from understudy.data.spaces import Space
from understudy.update.gallery import ABSENT, ENCODED, Gallery
from understudy.update.search import check_query_space
from understudy.update.search_scores import (
    Hits,
    Kernel,
    Ranking,
    candidates,
    check_queries,
    squared_norms,
)

BLOCK_ROWS = 16384
SEGMENT_ROWS = 8192
READ_ROWS = 512  # of a later version, between two pauses
FOLD_SHARE = 0.25  # of the rows: more log than this is folded into the blocks
_KEYS = 1 << 24  # scores at a time: 64 MB


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive rows: vectors float32 [B, D] and their squared lengths float32 [B]."""

    vectors: np.ndarray
    squared: np.ndarray


class _Segment:
    """Room for rows that were written later; what has been written never changes."""

    def __init__(self, dim: int) -> None:
        self.rows = np.empty(SEGMENT_ROWS, np.int64)
        self.vectors = np.empty((SEGMENT_ROWS, dim), np.float32)
        self.squared = np.empty(SEGMENT_ROWS, np.float32)


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a gallery holds at one version, in memory.

    Make the first with `Pinned.load`, the next with `advanced`.

    Attributes:
        gallery: where it was read from; its version and states are this view's.
        blocks: the rows of `load`, or of the last folding, in order.
        log: segments of rows written since; the last one is partly used.
        used: entries of the log that belong to this view.
        place: int32 [num_rows]: entry of the log that holds a row, -1 for none.
        largest: bound on the squared lengths.
        folding: blocks folded so far, and entries of the log that are in them.
    """

    gallery: Gallery
    blocks: tuple[_Block, ...]
    log: tuple[_Segment, ...]
    used: int
    place: np.ndarray
    largest: float
    folding: tuple[int, int]

    @staticmethod
    def bytes_needed(num_rows: int, dim: int) -> int:
        """Return what a gallery takes at most, log and one block being folded included."""
        log = int(FOLD_SHARE * num_rows) + 2 * SEGMENT_ROWS
        return (num_rows + log + BLOCK_ROWS) * (dim + 1) * 4 + 13 * num_rows

    @classmethod
    def load(cls, gallery: Gallery, limit_bytes: int) -> Pinned:
        """Read a gallery into memory.

        Args:
            gallery: what to read.
            limit_bytes: the most that it may take.

        Raises:
            DataError: it would take more.
        """
        need = cls.bytes_needed(gallery.num_rows, gallery.dim)
        if need > limit_bytes:
            raise DataError(
                f"gallery of {gallery.store.path}: {gallery.num_rows:,} rows of {gallery.dim} "
                f"numbers need {need / 1e6:,.0f} MB in memory, the limit is "
                f"{limit_bytes / 1e6:,.0f} MB; raise it (--memory-mb) or search from disk "
                "(--search index or --search stream)."
            )
        blocks, largest = [], 0.0
        for start in range(0, gallery.num_rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, gallery.num_rows - start)
            vectors = np.zeros((count, gallery.dim), np.float32)
            for part in gallery.stream(np.arange(start, start + count)):
                vectors[part.rows - start] = part.vectors
            block = _Block(vectors, squared_norms(vectors))
            largest = max(largest, float(block.squared.max()))
            blocks.append(block)
        place = np.full(gallery.num_rows, -1, np.int32)
        return cls(gallery, tuple(blocks), (), 0, place, largest, (0, 0))

    @property
    def version(self) -> int:
        """Number of the store's version."""
        return self.gallery.version

    def advanced(self, gallery: Gallery, pause_s: float = 0.0) -> Pinned:
        """Return the view of a later version, reading only the rows whose state changed.

        To be called on the newest view, by one thread.

        Args:
            gallery: the same columns at a later version; cells that were filled have not changed.
            pause_s: seconds to leave to queries after every few rows.
        """
        before = np.zeros(gallery.num_rows, np.uint8)
        before[: self.gallery.num_rows] = self.gallery.states()
        changed = np.flatnonzero(gallery.states() != before)
        place = np.full(gallery.num_rows, -1, np.int32)
        place[: len(self.place)] = self.place
        log, used, largest = list(self.log), self.used, self.largest
        for part in gallery.stream(changed, batch_rows=READ_ROWS):
            squared = squared_norms(part.vectors)
            largest = max(largest, float(squared.max()))
            at = 0
            while at < len(part.rows):
                if used == len(log) * SEGMENT_ROWS:
                    log.append(_Segment(gallery.dim))
                first = used % SEGMENT_ROWS
                count = min(len(part.rows) - at, SEGMENT_ROWS - first)
                here, there = slice(first, first + count), slice(at, at + count)
                segment = log[-1]
                segment.rows[here] = part.rows[there]
                segment.vectors[here] = part.vectors[there]
                segment.squared[here] = squared[there]
                place[part.rows[there]] = np.arange(used, used + count)
                at, used = at + count, used + count
            time.sleep(pause_s)
        return replace(
            self, gallery=gallery, log=tuple(log), used=used, place=place, largest=largest
        )

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 [N, D] of rows that have a vector."""
        found = np.empty((len(rows), self.gallery.dim), np.float32)
        place = self.place[rows]
        for i, (row, entry) in enumerate(zip(rows.tolist(), place.tolist(), strict=True)):
            if entry >= 0:
                found[i] = self.log[entry // SEGMENT_ROWS].vectors[entry % SEGMENT_ROWS]
            else:
                found[i] = self.blocks[row // BLOCK_ROWS].vectors[row % BLOCK_ROWS]
        return found

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        space: Space | str,
        metric: str = "cosine",
        allowed: np.ndarray | None = None,
    ) -> Hits:
        """Return what `update.search.search` does, bit for bit.

        Args:
            queries: `[Q, D]` or `[D]`.
            k: neighbours a query.
            space: the space that the queries are in, or its id.
            metric: `cosine`, `dot` or `l2`.
            allowed: rows int64 that may be neighbours; all when None.

        Raises:
            SpaceError: the queries are of another space than the gallery is searched from.
            DataError: a query of another width, or with NaN or infinity.
        """
        where = f"gallery of {self.gallery.store.path}"
        check_query_space(space, self.gallery.space, where)
        vectors = check_queries(queries, self.gallery.dim, where)
        states = self.gallery.states()
        closed = states == ABSENT
        if allowed is not None:
            outside = np.ones(len(states), bool)
            outside[allowed] = False
            closed = closed | outside
        closed = np.flatnonzero(closed)
        step = max(1, _KEYS // max(len(states), 1))
        found = []
        for at in range(0, len(vectors), step):
            kernel = Kernel(vectors[at : at + step], metric)
            ranking = Ranking(kernel, k)
            keys = self._keys(kernel)
            if len(closed):
                keys[:, closed] = -np.inf
            slack = kernel.slack(self.largest, self.gallery.dim)
            for query in range(len(kernel)):
                best = candidates(keys[query], k, float(slack[query]))
                ranking.offer(query, best, self.vectors(best), states[best] == ENCODED)
            found.append(ranking.hits())
        rows, scores, encoded = ([getattr(h, n) for h in found] for n in Hits.__slots__)
        return Hits(np.concatenate(rows), np.concatenate(scores), np.concatenate(encoded))

    def _keys(self, kernel: Kernel) -> np.ndarray:
        keys = np.full((len(kernel), self.gallery.num_rows), -np.inf, np.float32)
        at = 0
        for block in self.blocks:
            keys[:, at : at + len(block.vectors)] = kernel.keys(block.vectors, block.squared)
            at += len(block.vectors)
        for number, segment in enumerate(self.log):
            count = min(self.used - number * SEGMENT_ROWS, SEGMENT_ROWS)
            if count <= 0:
                break
            rows = segment.rows[:count]
            found = kernel.keys(segment.vectors[:count], segment.squared[:count])
            keys[:, rows] = found  # of a row that was written twice, the last one stays
        return keys

    def folded(self) -> Pinned | None:
        """Return the same view with one more block brought up to date with the log.

        Returns:
            The view to go on with; None if the log is short.
        """
        done, upto = self.folding
        if not upto:
            if self.used <= max(FOLD_SHARE * self.gallery.num_rows, 2 * SEGMENT_ROWS):
                return None
            upto = self.used // SEGMENT_ROWS * SEGMENT_ROWS
        segments = self.log[: upto // SEGMENT_ROWS]
        covered = sum(len(block.vectors) for block in self.blocks)
        covered = max(covered, *(int(segment.rows.max()) + 1 for segment in segments))
        start = done * BLOCK_ROWS
        vectors = np.zeros((min(BLOCK_ROWS, covered - start), self.gallery.dim), np.float32)
        if done < len(self.blocks):
            old = self.blocks[done].vectors
            vectors[: len(old)] = old
        for segment in segments:
            here = (segment.rows >= start) & (segment.rows < start + len(vectors))
            vectors[segment.rows[here] - start] = segment.vectors[here]
        block = _Block(vectors, squared_norms(vectors))
        blocks = (*self.blocks[:done], block, *self.blocks[done + 1 :])
        if (done + 1) * BLOCK_ROWS < covered:
            return replace(self, blocks=blocks, folding=(done + 1, upto))
        place = np.where(self.place >= upto, self.place - upto, -1).astype(np.int32)
        return replace(
            self,
            blocks=blocks,
            log=self.log[len(segments) :],
            used=self.used - upto,
            place=place,
            folding=(0, 0),
        )
