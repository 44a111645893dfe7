"""The views of some rows: records drawn or looked up, images decoded, pixels made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.seeds import seed_for
from understudy.data.decode import decode, image_size
from understudy.data.knowledge import view_column
from understudy.data.view_verify import partner_images
from understudy.data.views import ViewPipeline
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import READ_ROWS, Batch, labels, row_blocks
from understudy.reinforce.prefetch import ordered_map

if TYPE_CHECKING:
    from understudy.data.store import Store


def seeds_of(seed: int, view_set: str, ids: Sequence[str], ks: Sequence[int]) -> np.ndarray:
    """Return the seed of each view, `uint64 [n * len(ks)]`, a row's views together."""
    return np.array([seed_for("views", seed, view_set, i, k) for i in ids for k in ks], np.uint64)


class ViewSource:
    """Makes the views that teachers are shown.

    Args:
        config: the reinforcement.
        ks: which stored views.
        fresh: which of `ks` are drawn here; the others are replayed from the store.
        rows: all rows that are reinforced; partners of mixed views come from them.
    """

    def __init__(
        self, config: ReinforceConfig, ks: Sequence[int], fresh: set[int], rows: np.ndarray
    ) -> None:
        self.config, self.ks, self.fresh, self.rows = config, list(ks), fresh, rows
        self.pipeline = ViewPipeline(config.views)

    @property
    def rows_per_batch(self) -> int:
        """Rows whose views make one batch of at most `batch_size` views (a row at least)."""
        return max(1, self.config.batch_size // max(1, len(self.ks)))

    def read(self, store: Store, rows: np.ndarray) -> Iterator[Batch]:
        """Decode, draw or look up records, make the views: `[n * ks, S, S, 3]`, row by row."""

        def groups() -> Iterator[Batch]:
            size = self.rows_per_batch
            for block in row_blocks(rows, max(size, READ_ROWS // size * size)):
                clock = Batch(block, [], {})
                with clock.time("read"):
                    table = store.take(block, ["id", self.config.image_column])
                    ids = table.column(0).to_pylist()
                    images = table.column(1).to_pylist()
                    stored = self._stored(store, block)
                for start in range(0, len(block), size):
                    part = slice(start, start + size)
                    data = {"images": images[part], "stored": stored[part], "store": store}
                    seconds = clock.seconds if start == 0 else {}
                    yield Batch(block[part], ids[part], data, seconds)

        def make(batch: Batch) -> Batch:
            with batch.time("views"):
                return self._make(batch)

        yield from ordered_map(make, groups(), self.config.threads)

    def _stored(self, store: Store, rows: np.ndarray) -> np.ndarray:
        """Return the records of the views that the store has, `[n, ks]`; others are empty."""
        params = np.zeros((len(rows), len(self.ks)), self.pipeline.dtype)
        for i, k in enumerate(self.ks):
            if k not in self.fresh:
                column = view_column(self.config.view_set, k)
                params[:, i] = self.pipeline.unpack(store.array(column, rows))
        return params

    def _make(self, batch: Batch) -> Batch:
        names = labels(batch.rows, batch.ids)
        encoded, store = batch.data.pop("images"), batch.data.pop("store")
        params = batch.data.pop("stored")
        for name, data in zip(names, encoded, strict=True):
            if data is None:
                raise DataError(f"{name}: it has no image; leave such rows out with 'rows'.")
        if self.config.views.reduced_decode:
            images: list[Any] = encoded
            sizes = [image_size(d, n) for d, n in zip(encoded, names, strict=True)]
        else:
            images = [decode(d, name=n) for d, n in zip(encoded, names, strict=True)]
            sizes = [image.shape[:2] for image in images]
        new = [i for i, k in enumerate(self.ks) if k in self.fresh]
        if new:
            params[:, new] = self._draw(store, batch, sizes, new, names)
        flat = params.reshape(-1)
        count = len(self.ks)
        repeated = [image for image in images for _ in range(count)]
        called = [name for name in names for _ in range(count)]
        partners = partner_images(store, self.config.image_column, flat, called)
        views = self.pipeline.apply(repeated, flat, partners=partners, names=called)
        batch.data = {"params": params, "views": views, "names": called}
        return batch

    def _draw(
        self, store: Store, batch: Batch, sizes: Any, new: Sequence[int], names: Sequence[str]
    ) -> np.ndarray:
        """Draw the records `[n, new]` of fresh views, each from its own seed."""
        config = self.config
        seeds = seeds_of(config.seed, config.view_set, batch.ids, [self.ks[i] for i in new])
        many = np.repeat(np.asarray(sizes, np.int64).reshape(-1, 2), len(new), axis=0)
        called = [name for name in names for _ in new]
        partners = None
        if config.views.mixes:
            partners = self._partners(store, batch, seeds, many)
        params = self.pipeline.sample(many, seeds, partners, names=called)
        return params.reshape(len(batch.rows), len(new))

    def _partners(
        self, store: Store, batch: Batch, seeds: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return each view's partner row and its size; sizes are read where a view is mixed."""
        own = np.searchsorted(self.rows, np.repeat(batch.rows, len(seeds) // len(batch.rows)))
        rows = self.rows[self.pipeline.draw_partners(seeds, len(self.rows), own)]
        # Whether a view is mixed depends on its seed alone: draw once to see, then read those.
        mixed = self.pipeline.sample(sizes, seeds, (rows, sizes))["mix"] > 0
        found = sizes.copy()
        if mixed.any():
            wanted, back = np.unique(rows[mixed], return_inverse=True)
            table = store.take(wanted, ["id", self.config.image_column])
            names = labels(wanted, table.column(0).to_pylist())
            pairs = zip(table.column(1).to_pylist(), names, strict=True)
            known = np.array([image_size(data, name) for data, name in pairs], np.int64)
            found[mixed] = known[back]
        return rows, found
