"""Documents repeated an exact number of times each, as one stream of token sequences.

Copies of a document lie far apart: copy k of c stands near place T (k + jitter) / c of a stream of
T tokens. The stream is cut into sequences of equal length across document boundaries (so documents
meet other neighbours each time they come). Everything is a function of (seed, step): resuming is
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.sampler_parts import check_at_least


def copy_places(counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of every copy in [0, 1), and whose it is.

    A document's copies are 1 / c apart, give or take half of that: each copy moves by itself, so
    that the order is new each time, and the first one starts anywhere, so that all of the stream
    has the same mixture of documents of different counts.

    Args:
        counts: int64 [N].
        seed: of the places.

    Returns:
        float64 [T] and int64 [T], T = counts.sum(), by document.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    draw = rng("copies", seed)
    start = draw.random(len(counts))[owner]
    jitter = draw.random(len(owner)) / 2
    return ((number + start + jitter) / counts[owner]) % 1.0, owner


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document inside a sequence.

    Attributes:
        row: number of the document.
        start: first token.
        stop: one past the last token.
    """

    row: int
    start: int
    stop: int


class CountSampler:
    """Cut a stream of exactly counted copies into sequences.

    Args:
        lengths: tokens of each document, end token included, int64 [N].
        counts: copies of each, int64 [N].
        context: inputs of a sequence; it holds context + 1 tokens, the last a target only.
        batch_size: sequences in a batch of one rank.
        seed: of all orders.
        rows: row number of each document; 0 to N - 1 when absent.
        rank: this process's number.
        world: processes that share each global batch.

    Raises:
        ConfigError: the copies do not fill one batch.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        counts: Sequence[int] | np.ndarray,
        context: int,
        batch_size: int,
        seed: int = 0,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.lengths, self.counts = np.asarray(lengths, np.int64), np.asarray(counts, np.int64)
        if self.lengths.shape != self.counts.shape:
            raise DataError(
                f"count sampler: {len(self.lengths):,} lengths, {len(self.counts):,} counts."
            )
        if (self.counts < 0).any() or (self.lengths < 1).any():
            raise DataError("count sampler: counts must not be negative, lengths at least 1.")
        for name, value in (("context", context), ("batch_size", batch_size), ("world", world)):
            check_at_least(name, value, 1)
        if not 0 <= rank < world:
            raise ConfigError(
                f"sampler rank: expected 0 to {world - 1} (world {world}), got {rank}."
            )
        self.context, self.batch_size, self.seed = int(context), int(batch_size), int(seed)
        self.rank, self.world = rank, world
        self.rows = None if rows is None else np.asarray(rows, np.int64)
        places, owner = copy_places(self.counts, self.seed)
        self.order = owner[np.lexsort((owner, places))]
        self.edges = np.concatenate([[0], np.cumsum(self.lengths[self.order])])
        first = np.zeros(len(self.order), bool)
        first[np.unique(self.order, return_index=True)[1]] = True
        self._new = np.concatenate([[0], np.cumsum(self.lengths[self.order] * first)])
        self.sequences = int((self.edges[-1] - 1) // self.context)
        self.steps = self.sequences // (self.batch_size * world)
        if self.steps < 1:
            raise ConfigError(
                f"count sampler: {int(self.edges[-1]):,} tokens do not fill a batch of "
                f"{batch_size} x {world} sequences of {context}: lower batch_size or raise counts."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the whole stream: it has no epochs."""
        return self.steps

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a global batch."""
        return self.batch_size * self.world * self.context

    def spans(self, step: int) -> list[list[Span]]:
        """Return what each sequence of this rank's batch consists of.

        Sequence j covers tokens [j context, (j + 1) context] of the stream: neighbours share one
        token, which is a target of the first and the first input of the second.

        Raises:
            ConfigError: the stream has no such step.
        """
        if not 0 <= step < self.steps:
            raise ConfigError(f"sampler step: expected 0 to {self.steps - 1}, got {step}.")
        first = (int(step) * self.world + self.rank) * self.batch_size
        return [self._sequence(first + i) for i in range(self.batch_size)]

    def _sequence(self, number: int) -> list[Span]:
        low, high = number * self.context, (number + 1) * self.context + 1
        place = int(np.searchsorted(self.edges, low, "right")) - 1
        found = []
        while self.edges[place] < high:
            begin = int(self.edges[place])
            document = int(self.order[place])
            row = document if self.rows is None else int(self.rows[document])
            stop = min(int(self.edges[place + 1]), high) - begin
            found.append(Span(row, max(low - begin, 0), stop))
            place += 1
            if place == len(self.order):
                break
        return found

    def seen(self, step: int) -> dict[str, int]:
        """Return `tokens` and `unique_tokens` of the stream up to the end of a step."""
        tokens = (step + 1) * self.tokens_per_step
        place = int(np.searchsorted(self.edges, tokens, "left"))
        return {"tokens": int(tokens), "unique_tokens": int(self._new[place])}

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream (not the rank, which shares it)."""
        facts = [self.lengths, self.counts, *([] if self.rows is None else [self.rows])]
        return {
            "kind": "counts",
            "documents": len(self.lengths),
            "documents_hash": hash_bytes(*(a.tobytes() for a in facts)),
            "copies": len(self.order),
            "context": self.context,
            "batch_size": self.batch_size,
            "world": self.world,
            "seed": self.seed,
        }
