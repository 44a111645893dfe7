"""Which rows make which batch: pure functions of (seed, step).

A sampler holds no position. Resuming is asking for the next step; the number of workers cannot
change a batch, and every rank computes its own share of the same global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng, seed_for
from understudy.data.sampler_parts import Recent as _Recent
from understudy.data.sampler_parts import check_at_least as _check_at_least
from understudy.data.sampler_parts import check_rows as _check_rows
from understudy.data.view_random import below, uniforms

ViewOrder = Literal["epoch", "random"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step trains on.

    Attributes:
        rows: row numbers `int64 [B]`.
        view: index of the stored view, one for the batch or `int64 [B]`.
        epoch: pass over the data that the step belongs to.
        step: the global step.
        size: side of the images in pixels when the step asks for one, else `None`.
    """

    rows: np.ndarray
    view: int | np.ndarray
    epoch: int
    step: int
    size: int | None = None


@runtime_checkable
class Sampler(Protocol):
    """A pure function of the step to a batch."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps in a pass over the data, `None` when there are no passes."""
        ...

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; the same for the same step, always."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream, as plain data, for run records."""
        ...


class ShuffledSampler:
    """Draw every row once an epoch, in a new order each epoch.

    Stored views: with `view_order="epoch"` all rows of an epoch use the same view, so that an epoch
    reads exactly one view's columns; views come in a new random order each cycle of `num_views`
    epochs, so after a cycle every view of every row was used once. With `"random"` each row draws
    its view (with replacement), as in arXiv 2303.08983.

    Args:
        rows: number of rows, or the row numbers to draw from.
        batch_size: rows in a batch of one rank.
        seed: seed of all orders.
        num_views: stored views; 0 when there are none (`Batch.view` is 0).
        rank: this process's number.
        world: processes that share each global batch of `batch_size * world` rows.
        drop_last: leave out the last, smaller global batch of an epoch. Otherwise its rows are
            shared out evenly and every row is used exactly once.
        view_order: "epoch" or "random".
        block: shuffle blocks of this many neighbouring rows instead of single rows, so that a
            remote store reads long runs; rows are then shuffled inside a window of blocks.
        window: blocks in a window.
    """

    def __init__(
        self,
        rows: int | Sequence[int] | np.ndarray,
        batch_size: int,
        seed: int = 0,
        *,
        num_views: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        view_order: ViewOrder = "epoch",
        block: int | None = None,
        window: int = 16,
    ) -> None:
        self.count, self.rows = _check_rows(rows)
        _check_at_least("batch_size", batch_size, 1)
        _check_at_least("num_views", num_views, 0)
        _check_at_least("world", world, 1)
        _check_at_least("window", window, 1)
        if block is not None:
            _check_at_least("block", block, 1)
        if not 0 <= rank < world:
            raise ConfigError(
                f"sampler rank: expected 0 to {world - 1} (world {world}), got {rank}."
            )
        check_choice(view_order, ("epoch", "random"), "sampler view_order")
        self.batch_size, self.seed, self.num_views = int(batch_size), int(seed), int(num_views)
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.view_order, self.block, self.window = view_order, block, window
        total = self.batch_size * world
        self.steps = self.count // total if drop_last else -(-self.count // total)
        left = self.count % total
        if self.steps == 0:
            raise ConfigError(
                f"sampler: {self.count} rows do not fill a batch of {batch_size} x {world} ranks: "
                "lower batch_size or set drop_last=False."
            )
        if not drop_last and 0 < left < world:
            raise ConfigError(
                f"sampler: {left} rows are left for {world} ranks in the last batch, so a rank "
                "would get none: set drop_last=True or change batch_size."
            )
        self._recent = _Recent(24)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return self.steps

    def batch(self, step: int) -> Batch:
        """Return this rank's batch of a global step."""
        _check_at_least("step", step, 0)
        epoch, position = divmod(int(step), self.steps)
        start = position * self.batch_size * self.world
        stop = min(start + self.batch_size * self.world, self.count)
        # Contiguous shares of the global batch; all have batch_size rows except in a partial one.
        size = stop - start
        low = start + size * self.rank // self.world
        high = start + size * (self.rank + 1) // self.world
        places = self._places(epoch, low, high)
        rows = places if self.rows is None else self.rows[places]
        return Batch(rows=rows, view=self.view(epoch, rows), epoch=epoch, step=int(step))

    def view(self, epoch: int, rows: np.ndarray) -> int | np.ndarray:
        """Return the view index of an epoch, or of each row when views are drawn."""
        if self.num_views < 2:
            return 0
        if self.view_order == "random":
            key = np.full(len(rows), seed_for("row-view", self.seed, epoch), np.uint64)
            mixed = key ^ (np.asarray(rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
            return below(uniforms(mixed, 0, 1)[:, 0], self.num_views)
        cycle, place = divmod(epoch, self.num_views)
        return int(rng("view-order", self.seed, cycle).permutation(self.num_views)[place])

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream (not the rank, which shares it)."""
        chosen = None if self.rows is None else hash_bytes(self.rows.tobytes())
        return {
            "kind": "shuffled",
            "num_rows": self.count,
            "rows_hash": chosen,
            "batch_size": self.batch_size,
            "world": self.world,
            "seed": self.seed,
            "num_views": self.num_views,
            "view_order": self.view_order,
            "drop_last": self.drop_last,
            "block": self.block,
            "window": self.window if self.block else None,
        }

    def _places(self, epoch: int, low: int, high: int) -> np.ndarray:
        """Return the places `low` to `high` of the epoch's order."""
        if self.block is None:
            order = self._recent.get(
                epoch, lambda: rng("epoch", self.seed, epoch).permutation(self.count)
            )
            return order[low:high].astype(np.int64)
        return self._block_places(epoch, low, high)

    def _block_places(self, epoch: int, low: int, high: int) -> np.ndarray:
        block = int(self.block or 1)
        blocks = -(-self.count // block)

        def plan() -> tuple[np.ndarray, np.ndarray]:
            order = rng("blocks", self.seed, epoch).permutation(blocks)
            sizes = np.minimum(block, self.count - order * block)
            edges = np.concatenate([[0], np.cumsum(sizes)])
            # First place of every window of blocks, and the end.
            return order, edges[[*range(0, blocks, self.window), blocks]]

        order, edges = self._recent.get(("plan", epoch), plan)

        def window_rows(w: int) -> np.ndarray:
            starts = order[w * self.window : (w + 1) * self.window] * block
            runs = [np.arange(s, min(s + block, self.count)) for s in starts.tolist()]
            return rng("window", self.seed, epoch, w).permutation(np.concatenate(runs))

        parts = []
        for w in range(int(np.searchsorted(edges, low, "right")) - 1, len(edges) - 1):
            if edges[w] >= high:
                break
            rows = self._recent.get((epoch, w), lambda w=w: window_rows(w))
            parts.append(rows[max(low - edges[w], 0) : high - edges[w]])
        return np.concatenate(parts).astype(np.int64)


class SequentialSampler:
    """Read rows in order, once; for evaluation. The last, smaller batch is kept.

    Args:
        rows: number of rows, or the row numbers in the order to read.
        batch_size: rows in a batch.
        view: view index of every batch.
        rank: this process's number; ranks take turns by batch.
        world: processes that share the rows.
    """

    def __init__(
        self,
        rows: int | Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        view: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.rows = _check_rows(rows)
        _check_at_least("batch_size", batch_size, 1)
        _check_at_least("world", world, 1)
        if not 0 <= rank < world:
            raise ConfigError(
                f"sampler rank: expected 0 to {world - 1} (world {world}), got {rank}."
            )
        self.batch_size, self.view_index = int(batch_size), int(view)
        self.rank, self.world = rank, world
        batches = -(-self.count // self.batch_size)
        self.steps = len(range(rank, batches, world))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of this rank."""
        return self.steps

    def batch(self, step: int) -> Batch:
        """Return a batch; `ConfigError` past the end."""
        if not 0 <= step < self.steps:
            raise ConfigError(f"sampler step: expected 0 to {self.steps - 1}, got {step}.")
        start = (step * self.world + self.rank) * self.batch_size
        places = np.arange(start, min(start + self.batch_size, self.count))
        rows = places if self.rows is None else self.rows[places]
        return Batch(rows=rows, view=self.view_index, epoch=0, step=int(step))

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        chosen = None if self.rows is None else hash_bytes(self.rows.tobytes())
        return {
            "kind": "sequential",
            "num_rows": self.count,
            "rows_hash": chosen,
            "batch_size": self.batch_size,
            "world": self.world,
            "view": self.view_index,
        }
