"""Encode a store's items with a model into an index column that names its space.

    report = encode_column(store, open_embedder("efficientnet-lite0", "image"), "new")

Writing is exactly once and resumable; rows that were added since are encoded by the same call. The
rows to encode may be a few: a sample to train a map on, or a part of a plan.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core import progress
from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store_names import check_name
from understudy.reinforce.features import read_inputs
from understudy.update.apply_plan import PREFIX
from understudy.update.embedders import Embedder

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.data.store_reader import Reader

DTYPES = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What `encode_column` did.

    Attributes:
        column: what was written.
        rows: rows of it that were asked for and are filled.
        written: rows that this call encoded.
        empty: rows left out because their text is empty.
        seconds: wall seconds of this call.
    """

    column: str
    rows: int
    written: int
    empty: int
    seconds: float

    @property
    def items_per_second(self) -> float:
        """Rows that this call encoded in a second."""
        return self.written / max(self.seconds, 1e-9)


def index_column(name: str) -> str:
    """Return the index column of a name: `embed.<name>`."""
    return check_name(name if name.startswith(PREFIX) else PREFIX + name)


def encode_card(
    store: Reader, embedder: Embedder, name: str, column: str = "", dtype: str = "float32"
) -> Card:
    """Return the card of an index column, the same for every writer of it.

    Args:
        store: whose rows.
        embedder: who encodes.
        name: of the column, with or without `embed.`.
        column: payload column of the items; empty takes the one named after the modality.
        dtype: how vectors are stored.
    """
    check_choice(dtype, DTYPES, "dtype")
    column = column or embedder.modality
    made = store.cards.get(column)
    source = {} if made is None else {"source_card": hash_data(made.identity())}
    config: dict[str, Any] = {
        **embedding_config([embedder.dim], dtype),
        "input": column,
        "modality": embedder.modality,
        "space": embedder.space.to_dict(),
        **source,
    }
    return Card(
        column=index_column(name),
        writer=embedder.space.model,
        fingerprint=embedder.space.fingerprint,
        config=config,
        versions=versions(),
        created_by="update.encode",
        facts={"model": embedder.spec},
    )


def encode_rows(
    store: Reader, embedder: Embedder, column: str, rows: np.ndarray, *, batch_size: int = 64
) -> np.ndarray:
    """Read items and return their vectors float32 [len(rows), dim].

    Args:
        store: where items are.
        embedder: who encodes.
        column: payload column of the items.
        rows: row numbers.
        batch_size: items that the model sees at once.

    Raises:
        DataError: an item that cannot be read, or whose vector is NaN, infinite or zero; it is
            named.
    """
    found = np.empty((len(rows), embedder.dim), np.float32)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        items = read_inputs(store, column, embedder.modality, some)  # type: ignore[arg-type]
        found[start : start + len(some)] = embedder(items, [f"row {row}" for row in some])
    return found


def usable_rows(
    store: Reader, column: str, modality: str, rows: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the rows that have an item, and how many texts are empty.

    Args:
        store: where items are.
        column: payload column.
        modality: image or text.
        rows: row numbers, ascending.

    Raises:
        DataError: no such column, or none of the rows has an item.
    """
    if not store.has(column):
        raise DataError(
            f"{store.path} has no column '{column}' of {modality}s to encode (columns: "
            f"{', '.join(store.columns)})."
        )
    use = np.zeros(len(rows), bool)
    at = 0
    for batch in store.scan([column], rows=rows, batch_size=4096):
        values = batch.column(0)
        if modality == "text":
            there = [v is not None and bool(v.strip()) for v in values.to_pylist()]
        else:
            there = values.is_valid().to_pylist()
        use[at : at + len(there)] = there
        at += len(there)
    if not use.any():
        raise DataError(
            f"{store.path}: none of {len(rows):,} rows has a value in '{column}' to encode."
        )
    return rows[use], int((~use).sum())


def encode_column(
    store: Store,
    embedder: Embedder,
    name: str,
    *,
    column: str = "",
    where: str = "",
    rows: np.ndarray | None = None,
    dtype: str = "float32",
    batch_size: int = 64,
    unit_rows: int = 512,
    overwrite: bool = False,
) -> EncodeReport:
    """Write `embed.<name>`; go on where an earlier call stopped.

    Args:
        store: open at its newest version.
        embedder: who encodes.
        name: of the column.
        column: payload column of the items; empty takes the one named after the modality.
        where: SQL filter of the rows to encode.
        rows: row numbers to encode; all when None.
        dtype: float32, or float16 at half the space.
        batch_size: items that the model sees at once.
        unit_rows: rows that are kept together; what a kill can cost.
        overwrite: replace what another model wrote there.

    Raises:
        CardError: the column holds another model's vectors.
        DataError: no rows, items that cannot be read, or vectors that are NaN, infinite or zero.
    """
    start = time.perf_counter()
    store.refresh()
    column = column or embedder.modality
    chosen, empty = usable_rows(store, column, embedder.modality, select_rows(store, where, rows))
    card = encode_card(store, embedder, name, column, dtype)
    types: dict[str, pa.DataType] = {card.column: embedding_type([embedder.dim], dtype)}
    written = 0
    job = store.job([card], types, rows=chosen, unit_rows=unit_rows, overwrite=overwrite)
    with job, progress.bar(f"encode {card.column}", job.num_wanted, "rows", job.num_done) as bar:
        for unit in job.todo():
            began = time.perf_counter()
            numbers = job.rows(unit)
            vectors = encode_rows(store, embedder, column, numbers, batch_size=batch_size)
            values: dict[str, pa.Array] = {card.column: encode_embeddings(vectors, dtype)}
            job.write(unit, values, seconds=time.perf_counter() - began)
            written += len(numbers)
            bar.advance(len(numbers))
    store.refresh()
    seconds = time.perf_counter() - start
    return EncodeReport(card.column, len(chosen), written, empty, seconds)


def select_rows(store: Reader, where: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Return row numbers, ascending: those given, or all, that meet an SQL filter.

    Raises:
        DataError: there are none.
    """
    numbers = np.arange(store.num_rows) if rows is None else np.unique(np.asarray(rows, np.int64))
    if where:
        numbers = numbers[np.isin(numbers, store.where(where))]
    if not len(numbers):
        raise DataError(f"{store.path}: no rows to encode{f' where {where}' if where else ''}.")
    return numbers
