"""What the nodes of a graph are: rows of a store, their vectors, numbers and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import CardError, DataError
from understudy.core.hashing import hash_data
from understudy.data.knowledge import decode_embeddings
from understudy.data.store_names import check_columns

if TYPE_CHECKING:
    from understudy.data.store import Store


def source_of(store: Store, column: str) -> str:
    """Return a hash of what a column holds: of its card, or of the rows that it came with.

    Raises:
        DataError: no such column.
    """
    check_columns([column], store.columns, store.path)
    try:
        return hash_data(store.card(column).identity())
    except CardError:
        return hash_data([store.uid, column])


def node_rows(store: Store, column: str, where: str = "") -> np.ndarray:
    """Return the rows int64 [n] in which a column is filled and that meet a condition.

    Raises:
        DataError: no such column, or fewer than two rows.
    """
    use = store.filled(column)
    if where:
        chosen = np.zeros(store.num_rows, bool)
        chosen[store.where(where)] = True
        use = use & chosen
    rows = np.flatnonzero(use)
    if len(rows) < 2:
        raise DataError(
            f"{store.path}: a graph needs two rows or more, and column '{column}' has {len(rows)}"
            f"{' where ' + where if where else ''}."
        )
    return rows


def numeric_width(store: Store, column: str) -> int:
    """Return how many numbers a row of a column holds; 1 for a plain number.

    Raises:
        DataError: no such column, or it holds no numbers of a fixed count.
    """
    check_columns([column], store.columns, store.path)
    kind = store.schema.field(column).type
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        return int(kind.list_size)
    if _is_number(kind):
        return 1
    raise DataError(
        f"column '{column}' of {store.path} holds {kind}; a graph takes numbers, such as "
        "'embed.<model>' or 'feature.<encoder>.<modality>'."
    )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def read_vectors(store: Store, column: str, rows: np.ndarray) -> np.ndarray:
    """Return float32 [n, d] of filled rows, decoded as the column's card says; tokens are flat."""
    width = numeric_width(store, column)
    stored = store.array(column, rows).reshape(len(rows), width)
    config = card_config(store, column)
    if "dtype" in config and "shape" in config:
        return decode_embeddings(stored, config).reshape(len(rows), width)
    if stored.dtype == np.uint8:
        raise DataError(
            f"column '{column}' of {store.path} holds packed bytes, not numbers to compare."
        )
    return stored.astype(np.float32)


def card_config(store: Store, column: str) -> dict[str, Any]:
    """Return the `config` of a column's card; empty for what came with the rows."""
    try:
        return store.card(column).config
    except CardError:
        return {}


def read_labels(store: Store, column: str, rows: np.ndarray, where: str = "") -> np.ndarray:
    """Return labels [n] of rows: whole numbers with -1, or text with "", where there is none.

    Args:
        store: the store.
        column: whole numbers or text; nulls and unfilled rows have no label.
        rows: rows to read.
        where: use labels of rows that meet this condition only.

    Raises:
        DataError: no such column, or of another kind.
    """
    check_columns([column], store.columns, store.path)
    kind = store.schema.field(column).type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind)):
        raise DataError(
            f"column '{column}' of {store.path} holds {kind}; labels are whole numbers or text."
        )
    values = store.take(rows, [column]).column(column).combine_chunks()
    if text:
        labels = np.array([v or "" for v in values.to_pylist()], object)
    else:
        labels = values.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).copy()
    if where:
        outside = ~np.isin(rows, store.where(where))
        labels[outside] = "" if text else -1
    return labels
