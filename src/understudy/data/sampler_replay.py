"""Batches of the current time step and of replayed old ones: uniform over their union.

Old samples are not drawn more often than new ones; how many there are is the plan's business
(`understudy.data.sampler_replay_plan`). Without replacement every row is used once an epoch;
with replacement, as released runs draw their shards, rows are drawn one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.sampler_parts import check_at_least
from understudy.data.sampler_replay_plan import ReplayMix, ReplayPlan
from understudy.data.samplers import Batch, ShuffledSampler, ViewOrder

__all__ = ["ReplayMix", "ReplayPlan", "ReplaySampler"]


class ReplaySampler:
    """Draw batches uniformly from the union of the current step's rows and the replayed ones.

    A pure function of (seed, step); every rank computes its share of the same global batch.

    Args:
        mix: what to draw from; the parts must be disjoint.
        batch_size: rows in a batch of one rank.
        seed: of the order.
        replacement: draw with replacement instead of passing over all rows.
        num_views: stored views, see `ShuffledSampler`.
        rank: this process's number.
        world: processes that share each global batch.
        view_order: see `ShuffledSampler`.

    Raises:
        DataError: a row is in two parts.
        ConfigError: fewer rows than a batch, or a bad option.
    """

    def __init__(
        self,
        mix: ReplayMix,
        batch_size: int,
        seed: int = 0,
        *,
        replacement: bool = False,
        num_views: int = 0,
        rank: int = 0,
        world: int = 1,
        view_order: ViewOrder = "epoch",
    ) -> None:
        self.rows = mix.rows
        if len(np.unique(self.rows)) < len(self.rows):
            twice = self.rows[1:][self.rows[1:] == self.rows[:-1]][0]
            raise DataError(f"replay: row {twice} is in two time steps; they must be disjoint.")
        self.mix, self.count, self.replacement = mix, len(self.rows), bool(replacement)
        self.batch_size, self.seed, self.num_views = int(batch_size), int(seed), int(num_views)
        self.rank, self.world, self.view_order = rank, world, view_order
        if num_views and replacement and view_order == "epoch":
            raise ConfigError(
                "replay: draws with replacement have no epochs to change views with; set "
                "view_order=random, or replacement=False."
            )
        # It checks the options and, without replacement, makes the batches.
        self._passes = ShuffledSampler(
            self.rows,
            batch_size,
            seed,
            num_views=num_views,
            rank=rank,
            world=world,
            view_order=view_order,
        )

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps in a pass over the union; None when rows are drawn with replacement."""
        return None if self.replacement else self._passes.steps

    def batch(self, step: int) -> Batch:
        """Return this rank's batch of a global step."""
        if not self.replacement:
            return self._passes.batch(step)
        check_at_least("step", step, 0)
        whole = rng("replay-draw", self.seed, int(step)).integers(
            self.count, size=self.batch_size * self.world
        )
        mine = whole[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
        rows = self.rows[mine]
        # Every step is an epoch of its own, so that views and captions are drawn anew.
        return Batch(
            rows=rows, view=self._passes.view(int(step), rows), epoch=int(step), step=int(step)
        )

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream (not the rank, which shares it)."""
        return {
            "kind": "replay",
            "num_rows": self.count,
            "rows_hash": hash_bytes(self.rows.tobytes()),
            "current": len(self.mix.current),
            "replayed": self.mix.counts,
            "replacement": self.replacement,
            "batch_size": self.batch_size,
            "world": self.world,
            "seed": self.seed,
            "num_views": self.num_views,
            "view_order": self.view_order,
        }
