"""The store: one dataset at rest, its rows, and everything that was ever learned about them.

A store is one Lance dataset: columnar, versioned, with random access. Rows are written once and
keep their numbers; knowledge columns are added beside them by jobs (`Store.job`), each with a
provenance card (`Card`) that appears in the same commit. Reading is by row number, in a stream or
by condition; every change is a new version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.core.errors import CardError, DataError
from understudy.data import (
    store_check,
    store_commit,
    store_hash,
    store_search,
    store_write,
)
from understudy.data.card import Card
from understudy.data.store_batch import Batch
from understudy.data.store_job import UNIT_ROWS, Job, Unit
from understudy.data.store_lance import CARD_KEY, META_KEY, ROWS_KEY, Change, Handle
from understudy.data.store_names import physical
from understudy.data.store_read import Rows
from understudy.data.store_reader import Reader
from understudy.data.store_schema import without_fields
from understudy.data.store_staging import Files
from understudy.data.store_write import ROWS_PER_FRAGMENT

__all__ = ["Card", "Job", "Store", "Unit"]


class Store(Reader):
    """One dataset, open at a version; make one with `Store.create` or `Store.open`.

    Attributes:
        path: local path or object-store URL.
    """

    @classmethod
    def create(
        cls,
        path: str | Path,
        batches: Iterable[Batch],
        *,
        schema: pa.Schema | None = None,
        overwrite: bool = False,
        meta: Mapping[str, Any] | None = None,
        rows_per_fragment: int = ROWS_PER_FRAGMENT,
        storage_options: dict[str, str] | None = None,
    ) -> Store:
        """Write a new store. Killed before it ends, it leaves nothing that opens.

        Args:
            path: local path or object-store URL.
            batches: record batches, tables or dicts of lists; one string column `id`, unique.
            schema: the columns; taken from the first batch when absent.
            overwrite: replace a store that is there (it stays whole until the new one is).
            meta: plain data about the dataset as a whole.
            rows_per_fragment: rows that are stored in one file.
            storage_options: passed to Lance (credentials, end points).

        Raises:
            DataError: a store is there already, an id is doubled or missing, a batch does not fit;
                the message names it.
        """
        entries = {META_KEY: store_write.plain_meta(meta or {})}
        store_write.create(
            path,
            batches,
            schema=schema,
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
            described=lambda num_rows: entries,
        )
        return cls.open(path, storage_options=storage_options)

    @classmethod
    def open(
        cls,
        path: str | Path,
        version: int | str | None = None,
        *,
        storage_options: dict[str, str] | None = None,
    ) -> Store:
        """Open a store.

        Args:
            path: local path or object-store URL.
            version: number or tag of the version to read; such a store cannot be changed.
            storage_options: passed to Lance (credentials, end points).

        Raises:
            DataError: there is none, it is unfinished or something else, or no such version.
        """
        return cls(Handle(path, version, storage_options))

    def append(self, batches: Iterable[Batch]) -> int:
        """Add rows at the end; knowledge columns are not filled there.

        Args:
            batches: as for `create`, with the payload columns.

        Returns:
            How many rows were added.

        Raises:
            DataError: an id is there already, or a batch does not fit.
        """
        payload = store_commit.payload_columns(self._handle)
        schema = pa.schema([f for f in self.schema if f.name in payload])
        return store_write.append(self._handle, batches, schema, ROWS_PER_FRAGMENT)

    def job(
        self,
        cards: Sequence[Card],
        types: Mapping[str, pa.DataType],
        *,
        rows: Rows | None = None,
        unit_rows: int = UNIT_ROWS,
        overwrite: bool = False,
        resume: bool = True,
    ) -> Job:
        """Start, or go on with, a job that fills knowledge columns.

        Args:
            cards: one for each column; several columns are filled in lockstep.
            types: the Arrow type of each column.
            rows: row numbers (or a mask bool [num_rows]) to fill; all when absent.
            unit_rows: largest number of rows that are computed and kept at a time.
            overwrite: replace a column that another writer filled, when the job commits.
            resume: look for units that are finished and not committed. A worker that is told which
                unit to compute has no need to read them all.

        Raises:
            CardError: a column is another writer's or came with the rows.
        """
        return Job(
            self._handle,
            self._files(),
            cards,
            types,
            rows=rows,
            unit_rows=unit_rows,
            overwrite=overwrite,
            resume=resume,
        )

    def _files(self) -> Files:
        return Files(self.path, options=self._handle.storage_options)

    def drop(self, column: str) -> None:
        """Drop a knowledge column with its card in one version.

        Raises:
            DataError: no such column, or it came with the rows.
        """
        self._handle.refresh()
        self._check_knowledge(column)
        store_search.drop_index(self._handle, [column])

        def build(dataset: Any) -> Change | None:
            if column not in self._handle.columns:
                return None
            fragments = [f.metadata for f in dataset.get_fragments()]
            schema, fragments = without_fields(dataset.lance_schema, [physical(column)], fragments)
            return Change(fragments, schema, {CARD_KEY + column: None, ROWS_KEY + column: None})

        self._handle.change(build, f"drop {column}")

    def _check_knowledge(self, column: str) -> None:
        try:
            self.card(column)
        except CardError:
            raise DataError(
                f"column '{column}' came with the rows and cannot be dropped; make a new store "
                "without it."
            ) from None

    def set_meta(self, **changes: Any) -> None:
        """Set facts of `meta` in one version; `None` deletes one."""

        def build(dataset: Any) -> Change:
            merged = {k: v for k, v in {**self.meta, **changes}.items() if v is not None}
            fragments = [f.metadata for f in dataset.get_fragments()]
            text = store_write.plain_meta(merged)
            return Change(fragments, dataset.lance_schema, {META_KEY: text})

        self._handle.change(build, f"meta: {', '.join(changes)}")

    def index_vectors(
        self, column: str, *, metric: str = "cosine", kind: str = "IVF_PQ", **options: Any
    ) -> None:
        """Build Lance's index for `search_index`; filling more rows of the column drops it.

        Args:
            column: float16 or float32 vectors.
            metric: `cosine`, `dot` or `l2`.
            kind: IVF_FLAT, IVF_SQ, IVF_PQ, IVF_HNSW_SQ or IVF_HNSW_PQ.
            **options: `num_partitions`, `num_sub_vectors` and others of Lance's `create_index`.
        """
        store_search.index_vectors(self._handle, column, metric, kind, **options)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions that can be opened: number, time (ISO 8601), tags."""
        return store_check.versions(self._handle)

    def tag(self, name: str) -> None:
        """Name the open version, so that `open(path, name)` finds it and `compact` keeps it."""
        store_check.tag(self._handle, name)

    def tags(self) -> dict[str, int]:
        """Return the version number of each tag."""
        return store_check.tags(self._handle)

    def info(self) -> dict[str, Any]:
        """Return what `understudy data info` shows, as plain data."""
        return store_check.info(self._handle, self._files())

    def verify(self) -> list[str]:
        """Check files, row counts, ids, cards against rows, and staged units.

        Returns:
            One sentence a problem, with what to do; empty when all is in order.
        """
        return store_check.verify(self._handle, self._files())

    def compact(self) -> str:
        """Give back the space of old untagged versions and of staging that no job can use.

        Returns:
            A sentence on what was freed.
        """
        return store_check.compact(self._handle, self._files())

    def content_hash(self) -> str:
        """Return a hash of the logical content: rows, columns, values and card identities.

        Files, fragments, unit sizes, seconds and interruptions do not matter.
        """
        return store_hash.content_hash(self._handle)
