"""One endless shuffled stream, so that few rows fill a batch of any size evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.sampler_parts import Recent, check_at_least, check_rows
from understudy.data.samplers import Batch


class StreamSampler:
    """Cut batches from shuffled passes laid end to end; no row is dropped, none is favoured.

    After s steps every row was drawn floor or ceil of s B / N times. A step is its own epoch, so
    that a row that comes twice in a few steps is augmented differently.

    Args:
        rows: number of rows, or the row numbers to draw from.
        batch_size: rows in a batch of one rank; it may be larger than the number of rows.
        seed: of all orders.
        rank: this process's number.
        world: processes that share each global batch of `batch_size * world` rows.
    """

    num_views = 0

    def __init__(
        self,
        rows: int | Sequence[int] | np.ndarray,
        batch_size: int,
        seed: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.rows = check_rows(rows)
        check_at_least("batch_size", batch_size, 1)
        check_at_least("world", world, 1)
        if not 0 <= rank < world:
            raise ConfigError(
                f"sampler rank: expected 0 to {world - 1} (world {world}), got {rank}."
            )
        self.batch_size, self.seed = int(batch_size), int(seed)
        self.rank, self.world = rank, world
        self._recent = Recent(8)

    @property
    def steps_per_epoch(self) -> None:
        """None: the stream has no end."""
        return None

    def batch(self, step: int) -> Batch:
        """Return this rank's batch of a global step."""
        check_at_least("step", step, 0)
        start = (int(step) * self.world + self.rank) * self.batch_size
        numbers = np.arange(start, start + self.batch_size)
        places = np.concatenate(
            [
                self._order(int(n))[numbers[numbers // self.count == n] % self.count]
                for n in np.unique(numbers // self.count)
            ]
        )
        rows = places if self.rows is None else self.rows[places]
        return Batch(rows=rows, view=0, epoch=int(step), step=int(step))

    def _order(self, number: int) -> np.ndarray:
        return self._recent.get(
            number, lambda: rng("stream", self.seed, number).permutation(self.count)
        )

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream (not the rank, which shares it)."""
        return {
            "kind": "stream",
            "num_rows": self.count,
            "rows_hash": None if self.rows is None else hash_bytes(self.rows.tobytes()),
            "batch_size": self.batch_size,
            "world": self.world,
            "seed": self.seed,
        }
