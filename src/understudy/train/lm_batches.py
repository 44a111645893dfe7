"""Batches for language models: rows of tokens to inputs, targets and document numbers.

What draws rows (`understudy.data.samplers` and its neighbours) knows row numbers alone; what holds
tokens (`understudy.data.tokens.TokenStore`, or several, or arrays in memory) knows rows alone. A
batch's rows have one length; where they do not, the short ones are filled up with targets that do
not count. Different batches may have different lengths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.data.samplers import Sampler
from understudy.objectives.language import IGNORE

AHEAD = 4
"""Batches that may wait for the model."""


class TokenRows(Protocol):
    """Rows of tokens: what `TokenStore` is to a batch."""

    @property
    def lengths(self) -> np.ndarray:
        """Input tokens of each row, int32 [rows]; a row holds one token more."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the tokens."""
        ...

    def take(self, rows: Any) -> list[np.ndarray]:
        """Return the tokens of rows."""
        ...

    def segments(self, rows: Any) -> list[np.ndarray]:
        """Return the lengths of the documents inside of rows; they add up to a row's tokens."""
        ...


class MemoryTokens:
    """Rows of tokens in memory.

    Args:
        rows: token ids of each row; its last one is only a target.
        segments: lengths of the documents inside of each row; None for one each.

    Raises:
        DataError: segments that do not add up.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int] | np.ndarray],
        segments: Sequence[Sequence[int] | np.ndarray] | None = None,
    ) -> None:
        self._rows = [np.asarray(row) for row in rows]
        given = [[len(row)] for row in self._rows] if segments is None else segments
        self._segments = [np.asarray(parts, np.int32) for parts in given]
        for i, (row, parts) in enumerate(zip(self._rows, self._segments, strict=True)):
            if int(parts.sum()) != len(row):
                raise DataError(
                    f"row {i}: segments of {parts.tolist()} tokens, but it has {len(row)}."
                )

    @property
    def lengths(self) -> np.ndarray:
        """Input tokens of each row, int32 [rows]."""
        return np.array([len(row) - 1 for row in self._rows], np.int32)

    @property
    def fingerprint(self) -> str:
        """Hash of the tokens and documents."""
        parts = [row.astype("<u4").tobytes() for row in (*self._rows, *self._segments)]
        return hash_bytes(self.lengths.tobytes(), *parts)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the tokens of rows."""
        return [self._rows[int(row)] for row in rows]

    def segments(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the lengths of the documents inside of rows."""
        return [self._segments[int(row)] for row in rows]


class JoinedTokens:
    """Several sources laid end to end, addressed by one row number.

    Args:
        sources: by name, in order.

    Attributes:
        offsets: first row number of each source; what `MixtureSampler` takes as `offsets`.

    Raises:
        ConfigError: no source.
    """

    def __init__(self, sources: Mapping[str, TokenRows]) -> None:
        if not sources:
            raise ConfigError("JoinedTokens: expected at least one source.")
        self.sources = dict(sources)
        counts = [len(source.lengths) for source in self.sources.values()]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self.offsets = dict(zip(self.sources, self._starts[:-1].tolist(), strict=True))

    @property
    def lengths(self) -> np.ndarray:
        """Input tokens of each row, int32 [rows]."""
        return np.concatenate([source.lengths for source in self.sources.values()])

    @property
    def fingerprint(self) -> str:
        """Hash of all tokens and of the order of the sources."""
        parts = [f"{name}:{source.fingerprint}" for name, source in self.sources.items()]
        return hash_bytes(*(part.encode() for part in parts))

    def take(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the tokens of rows."""
        return self._collect(rows, "take")

    def segments(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the lengths of the documents inside of rows."""
        return self._collect(rows, "segments")

    def _collect(self, rows: Sequence[int] | np.ndarray, what: str) -> list[np.ndarray]:
        numbers = np.asarray(rows, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self._starts[-1]:
            raise DataError(
                f"rows {numbers.min()} to {numbers.max()}: there are 0 to {self._starts[-1] - 1} "
                f"in {', '.join(self.sources)}."
            )
        owner = np.searchsorted(self._starts, numbers, "right") - 1
        found: list[Any] = [None] * len(numbers)
        for i, source in enumerate(self.sources.values()):
            places = np.flatnonzero(owner == i)
            if len(places):
                own = getattr(source, what)(numbers[places] - self._starts[i])
                for place, value in zip(places.tolist(), own, strict=True):
                    found[place] = value
        return found


def lm_batch(
    tokens: Sequence[np.ndarray], segments: Sequence[np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Return a batch of rows.

    Args:
        tokens: token ids of each row; inputs are all but the last one, targets all but the first.
        segments: lengths of the documents inside of each row. With them the first token of a
            document is no target of the document before it.

    Returns:
        `ids` and `targets` int64 [B, L]; with `segments`, where a row has more than one document,
        also `segments` int32 [B, L]. Short rows are filled up with id 0 and target -100, which
        changes nothing: no token sees those after it.

    Raises:
        DataError: a row has no target.
    """
    sizes = [len(row) - 1 for row in tokens]
    if not sizes or min(sizes) < 1:
        short = sizes.index(min(sizes)) if sizes else 0
        raise DataError(
            f"row {short} of the batch has {len(tokens[short]) if sizes else 0} tokens; training "
            "needs at least 2, an input and a target. Leave such rows out."
        )
    longest = max(sizes)
    batch: dict[str, np.ndarray]
    if min(sizes) == longest:
        block = np.stack(tokens).astype(np.int64)
        batch = {"ids": block[:, :-1].copy(), "targets": block[:, 1:].copy()}
    else:
        batch = {
            "ids": np.zeros((len(sizes), longest), np.int64),
            "targets": np.full((len(sizes), longest), IGNORE, np.int64),
        }
        for i, (row, size) in enumerate(zip(tokens, sizes, strict=True)):
            batch["ids"][i, :size], batch["targets"][i, :size] = row[:-1], row[1:]
    if segments is not None and max(map(len, segments)) > 1:
        numbers = np.empty((len(sizes), longest), np.int32)
        for i, (parts, size) in enumerate(zip(segments, sizes, strict=True)):
            own = np.repeat(np.arange(len(parts), dtype=np.int32), parts)
            numbers[i, :size] = own[:-1]
            numbers[i, size:] = len(parts)
            batch["targets"][i, :size][own[1:] != own[:-1]] = IGNORE
        batch["segments"] = numbers
    return batch


class LMBatches:
    """A sampler's batches, by number; a loader of `understudy.train.loop.fit`.

    Args:
        tokens: what the rows hold.
        sampler: what draws them.
        mask_documents: give document numbers, so that documents in a row do not see each other.
        workers: threads that make batches ahead; 0 makes them in between.
    """

    def __init__(
        self,
        tokens: TokenRows,
        sampler: Sampler,
        *,
        mask_documents: bool = False,
        workers: int = 1,
    ) -> None:
        self.tokens, self.sampler = tokens, sampler
        self.mask_documents, self.workers = mask_documents, workers

    def load(self, number: int) -> dict[str, Any]:
        """Return one batch: `ids`, `targets`, `rows`, and `segments` where they apply."""
        rows = self.sampler.batch(number).rows
        parts = self.tokens.segments(rows) if self.mask_documents else None
        try:
            made = lm_batch(self.tokens.take(rows), parts)
        except DataError as error:
            raise DataError(f"batch {number} (rows {_some(rows)}): {error}") from None
        found: dict[str, Any] = {key: torch.from_numpy(value) for key, value in made.items()}
        return {**found, "rows": torch.from_numpy(np.asarray(rows, np.int64).copy())}

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield batches `start` to `start + count - 1`."""
        numbers = iter(range(start, start + count))
        if not self.workers:
            yield from map(self.load, numbers)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="understudy-lm")
        waiting: deque[Future[dict[str, Any]]] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(self.load, number))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream: a resumed run must find it unchanged."""
        return {
            "sampler": self.sampler.describe(),
            "tokens": self.tokens.fingerprint,
            "mask_documents": self.mask_documents,
        }


def _some(rows: np.ndarray, shown: int = 4) -> str:
    more = ", ..." if len(rows) > shown else ""
    return ", ".join(map(str, np.asarray(rows)[:shown].tolist())) + more
