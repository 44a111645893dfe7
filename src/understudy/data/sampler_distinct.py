"""Batches without repeated groups, so that no sample is a false negative of another.

Two pairs with one caption in a contrastive batch punish the model for being right. This sampler
never puts two rows of one group (equal captions, equal images) into one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.sampler_parts import Recent, check_at_least, check_rows
from understudy.data.samplers import Batch


class DistinctSampler:
    """Draw batches whose rows are of different groups.

    An epoch has as many full batches S as the groups allow: the largest S with
    `sum_g min(n_g, S) >= S * batch_size`. Rows that do not fit are left out, others each epoch.
    A pure function of (seed, step), like all samplers.

    Args:
        rows: number of rows, or the row numbers to draw from.
        groups: [rows] the group of each; equal numbers never meet.
        batch_size: rows in a batch.
        seed: of all orders.

    Raises:
        ConfigError: fewer groups than `batch_size`.
    """

    def __init__(
        self,
        rows: int | Sequence[int] | np.ndarray,
        groups: Sequence[int] | np.ndarray,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.count, self.rows = check_rows(rows)
        check_at_least("batch_size", batch_size, 1)
        self.groups = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        if len(self.groups) != self.count:
            raise ConfigError(f"sampler: {len(self.groups)} groups for {self.count} rows.")
        self.batch_size, self.seed = int(batch_size), int(seed)
        sizes = np.bincount(self.groups)
        if len(sizes) < batch_size:
            raise ConfigError(
                f"sampler: {len(sizes)} different groups do not fill a batch of {batch_size}; "
                "lower batch_size, or allow repeats with multi-positive labels."
            )
        self.steps = _most_batches(sizes, self.batch_size)
        self._recent = Recent(2)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.steps

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        check_at_least("step", step, 0)
        epoch, position = divmod(int(step), self.steps)
        places = self._recent.get(epoch, lambda: self._epoch(epoch))[position]
        rows = places if self.rows is None else self.rows[places]
        return Batch(rows=rows, view=0, epoch=epoch, step=int(step))

    def _epoch(self, epoch: int) -> np.ndarray:
        """Return [steps, batch_size] places."""
        draw = rng("distinct", self.seed, epoch)
        order = draw.permutation(self.count)
        # A group may fill at most one place of each batch: keep `steps` random members.
        by_group = order[np.argsort(self.groups[order], kind="stable")]
        sorted_groups = self.groups[by_group]
        first = np.searchsorted(sorted_groups, sorted_groups)
        kept = by_group[np.arange(self.count) - first < self.steps]
        surplus = len(kept) - self.steps * self.batch_size
        kept = np.delete(kept, draw.choice(len(kept), surplus, replace=False))
        # Dealt out like cards, group after group: its members land in different batches.
        names = draw.permutation(self.groups.max() + 1)
        dealt = kept[np.argsort(names[self.groups[kept]], kind="stable")]
        batches = dealt.reshape(self.batch_size, self.steps).T
        batches = draw.permuted(batches, axis=1)
        return batches[draw.permutation(self.steps)].astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        return {
            "kind": "distinct",
            "num_rows": self.count,
            "rows_hash": None if self.rows is None else hash_bytes(self.rows.tobytes()),
            "groups_hash": hash_bytes(self.groups.astype(np.int64).tobytes()),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def _most_batches(sizes: np.ndarray, batch_size: int) -> int:
    low, high = 1, int(sizes.sum()) // batch_size
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(sizes, middle).sum() >= middle * batch_size:
            low = middle
        else:
            high = middle - 1
    return low


def group_ids(keys: Sequence[str]) -> np.ndarray:
    """Return int64 numbers, equal where the texts are equal but for case and spaces."""
    plain = [" ".join(key.lower().split()) for key in keys]
    return np.unique(np.array(plain, dtype=object).astype(str), return_inverse=True)[1].astype(
        np.int64
    )
