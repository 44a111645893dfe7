"""Reading index columns of a store front to back, whatever is filled, a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.knowledge import decode_embeddings
from understudy.data.spaces import SpaceError, space_of
from understudy.data.store import Store
from understudy.data.store_names import check_columns

_BYTES = 8 << 20


def uncertainty_column(mapped: str) -> str:
    """Return the column of a mapped column's uncertainties."""
    return f"{mapped}.u"


def mapped_columns(store: Store, new: str) -> list[str]:
    """Return the columns `<new>.from.<old>` of vectors that there are."""
    return [
        c
        for c, card in store.cards.items()
        if c.startswith(f"{new}.from.")
        and "shape" in card.config  # not the uncertainties, whose card names the space too
        and card.config.get("space", {}).get("kind") == "mapped"
    ]


def mapped_column_of(store: Store, new: str) -> str:
    """Return the one mapped column `<new>.from.<old>` of a store.

    Raises:
        DataError: there is none, or there are several.
    """
    found = mapped_columns(store, new)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{store.path}: no column of vectors mapped to '{new}' ('{new}.from.<old>'); apply a "
            "map first ('understudy update apply'), or name it with --mapped."
        )
    raise DataError(f"{store.path}: {', '.join(found)} are mapped to '{new}'; name one (--mapped).")


def target_of(store: Store, mapped: str, new: str) -> str:
    """Return the id of the space that a mapped column is searched from.

    Args:
        store: where the columns are.
        mapped: the mapped column.
        new: column of the new model's own vectors; it may not be there yet.

    Raises:
        DataError: the column is not a mapped one.
        SpaceError: the two columns are of two models.
    """
    space = space_of(store, mapped)
    if space.kind != "mapped":
        raise DataError(
            f"column '{mapped}' of {store.path} is {space.kind}, not mapped: there is nothing to "
            "backfill from it."
        )
    if store.has(new):
        own = space_of(store, new)
        if own.kind != "encoded" or own.id != space.target:
            raise SpaceError(
                f"column '{new}' is in space {own}, but '{mapped}' is mapped to {space.target}: "
                "name the column of the model that the map leads to."
            )
    return space.target


def vector_width(store: Store, column: str) -> int:
    """Return the width of an index column's vectors."""
    return int(np.prod(store.card(column).config["shape"]))


def scan_vectors(
    store: Store, columns: Sequence[str], wanted: np.ndarray
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield (number of wanted rows before, vectors float32 [M, D] of each column) in row order.

    Args:
        store: where the columns are.
        columns: index columns, filled in all wanted rows.
        wanted: bool [num_rows].

    Raises:
        DataError: a wanted row is not filled.
    """
    for column in columns:
        missing = wanted & ~store.filled(column)
        if missing.any():
            row = int(np.argmax(missing))
            raise DataError(
                f"column '{column}' of {store.path} is not filled in {int(missing.sum())} rows "
                f"that are needed, the first is row {row}."
            )
    configs = [store.card(column).config for column in columns]
    width = sum(vector_width(store, column) for column in columns)
    row = done = 0
    for batch in store.scan(columns, batch_size=max(64, _BYTES // (4 * width))):
        mask = wanted[row : row + batch.num_rows]
        row += batch.num_rows
        if not mask.any():
            continue
        if not mask.all():
            batch = batch.filter(pa.array(mask))
        found = [
            decode_embeddings(
                column.flatten().to_numpy().reshape(batch.num_rows, -1), config
            ).reshape(batch.num_rows, -1)
            for column, config in zip(batch.columns, configs, strict=True)
        ]
        yield done, found
        done += batch.num_rows


def scan_values(store: Store, column: str, wanted: np.ndarray) -> pa.ChunkedArray:
    """Return the values of a column of single values in wanted rows, in row order, nulls kept.

    Args:
        store: where the column is.
        column: numbers or strings.
        wanted: bool [num_rows].

    Raises:
        DataError: no such column.
    """
    check_columns([column], store.columns, store.path)
    kind = store.schema.field(column).type
    chunks, row = [], 0
    for batch in store.scan([column], batch_size=65_536):
        mask = wanted[row : row + batch.num_rows]
        row += batch.num_rows
        if mask.any():
            chunks.append(batch.column(0).filter(pa.array(mask)))
    return pa.chunked_array(chunks, kind)


class ColumnVectors:
    """An index column's rows as slices: a gallery for a ranking that never holds all of it.

    Args:
        store: where the column is.
        column: an index column, filled in all the rows.
        rows: int64 [N] row numbers.
    """

    def __init__(self, store: Store, column: str, rows: np.ndarray) -> None:
        self.store, self.column, self.rows = store, column, rows
        self.config = store.card(column).config
        self.shape = (len(rows), vector_width(store, column))

    def __getitem__(self, part: slice) -> np.ndarray:
        stored = self.store.array(self.column, self.rows[part])
        return decode_embeddings(stored, self.config).reshape(-1, self.shape[1])
