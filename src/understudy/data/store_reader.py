"""The reading half of a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa

from understudy.core.errors import CardError
from understudy.data import store_commit, store_read, store_search
from understudy.data.card import Card
from understudy.data.store_batch import logical_schema
from understudy.data.store_lance import META_KEY, UID_KEY, Handle
from understudy.data.store_names import check_columns
from understudy.data.store_read import Rows


class Reader:
    """What can be read of a store; `understudy.data.store.Store` adds opening and changing.

    Attributes:
        path: local path or object-store URL.
    """

    def __init__(self, handle: Handle) -> None:
        self.path = str(handle.path)
        self._handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        # A spawned reader must see the rows and columns that its parent sees.
        handle = self._handle
        return _reopen, (type(self), handle.path, self.version, handle.storage_options)

    def __repr__(self) -> str:
        return f"Store({self.path!r}, rows={self.num_rows}, version={self.version})"

    def __len__(self) -> int:
        return self.num_rows

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self._handle.num_rows

    @property
    def version(self) -> int:
        """Number of the version that is open."""
        return self._handle.dataset.version

    @property
    def uid(self) -> str:
        """Identity of the dataset, drawn when it was created; versions of it share it."""
        return self._handle.metadata.get(UID_KEY, "")

    @property
    def columns(self) -> list[str]:
        """Logical names of all columns in order."""
        return list(self._handle.columns)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema with logical names."""
        return logical_schema(self._handle.schema)

    @property
    def meta(self) -> dict[str, Any]:
        """Plain facts about the dataset as a whole; change them with `set_meta`."""
        return json.loads(self._handle.metadata.get(META_KEY, "{}"))

    def refresh(self) -> Self:
        """Move to the newest version, unless a version is pinned, and return the store."""
        self._handle.refresh()
        return self

    def pinned(self) -> Self:
        """Return the same store open at this version for good; it can be read, not changed."""
        reopen, arguments = self.__reduce__()
        return reopen(*arguments)

    def has(self, column: str) -> bool:
        """Say whether there is such a column."""
        return column in self._handle.columns

    @property
    def cards(self) -> dict[str, Card]:
        """The cards of all knowledge columns, in column order."""
        found = {c: store_commit.card_of(self._handle, c) for c in self._handle.columns}
        return {column: card for column, card in found.items() if card is not None}

    def card(self, column: str) -> Card:
        """Return a knowledge column's card.

        Raises:
            DataError: no such column.
            CardError: the column came with the rows and has no card.
        """
        check_columns([column], self._handle.columns, self.path)
        found = store_commit.card_of(self._handle, column)
        if found is None:
            raise CardError(
                f"column '{column}' of {self.path} came with the rows and has no card; knowledge "
                f"columns are: {', '.join(self.cards) or 'none yet'}."
            )
        return found

    def filled(self, column: str) -> np.ndarray:
        """Return bool [num_rows]: where a column has values (for payload columns, everywhere)."""
        check_columns([column], self._handle.columns, self.path)
        if column in store_commit.payload_columns(self._handle):
            return np.ones(self.num_rows, bool)
        return store_commit.filled_rows(self._handle, column)

    def take(self, rows: Rows, columns: Sequence[str]) -> pa.Table:
        """Return rows by number, in the order asked for; a row may be asked for twice.

        Raises:
            DataError: no such row or column.
        """
        return store_read.take(self._handle, rows, columns)

    def array(self, column: str, rows: Rows | None = None) -> np.ndarray:
        """Return a column as NumPy, of the stored dtype and without a copy where possible.

        Args:
            column: its name.
            rows: row numbers; all rows when absent.

        Returns:
            `[N, size]` for fixed-size lists, `[N]` otherwise (objects for strings and bytes).

        Raises:
            DataError: a row is not filled (the first one is named), or no such row or column.
        """
        return store_read.array(self._handle, column, rows)

    def scan(
        self,
        columns: Sequence[str],
        *,
        filter: str | None = None,
        rows: Rows | None = None,
        batch_size: int = 1024,
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns in row order.

        Args:
            columns: their names.
            filter: SQL condition on columns, for example `"split = 'train'"`.
            rows: only these rows, in this order.
            batch_size: largest number of rows of a batch.
        """
        return store_read.scan(self._handle, columns, filter, rows, batch_size)

    def where(self, filter: str) -> np.ndarray:
        """Return the row numbers int64 [M], ascending, that meet an SQL condition."""
        return store_read.where(self._handle, filter)

    def search(
        self,
        column: str,
        query: Any,
        k: int = 10,
        *,
        metric: str = "cosine",
        filter: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest rows of each query, exactly, by streaming the column.

        Args:
            column: fixed-size lists of numbers; rows that are not filled are passed over.
            query: `[Q, size]` or `[size]`.
            k: neighbours a query.
            metric: `cosine`, `dot` (larger is nearer) or `l2` (Euclidean distance, smaller is).
            filter: SQL condition that a neighbour must meet.

        Returns:
            Row numbers int64 `[Q, k]` and scores float32 `[Q, k]`, nearest first; of equals the
            lower row comes first; where there are fewer than k, row -1 with an infinite score.
        """
        return store_search.search(self._handle, column, query, k, metric, filter)

    def indexes(self) -> dict[str, str]:
        """Return the metric of each vector column that has an index."""
        found = store_search.indexes(self._handle)
        vectors = {c: i["name"] for c, i in found.items() if i["kind"].startswith("IVF")}
        return {c: store_search.index_metric(self._handle, name) for c, name in vectors.items()}

    def search_index(
        self,
        column: str,
        query: Any,
        k: int = 10,
        *,
        filter: str | None = None,
        nprobes: int = 20,
        refine: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what `search` does, approximately and without reading the whole column.

        Args:
            column: a column with an index (`index_vectors`), whose metric counts.
            query: `[Q, size]` or `[size]`.
            k: neighbours a query.
            filter: SQL condition that a neighbour must meet.
            nprobes: partitions to look into.
            refine: rescore `refine * k` candidates with the stored vectors.
        """
        return store_search.search_index(self._handle, column, query, k, filter, nprobes, refine)


def _reopen(
    kind: type[Reader], path: str, version: int, storage_options: dict[str, str] | None
) -> Reader:
    return kind(Handle(path, version, storage_options))
