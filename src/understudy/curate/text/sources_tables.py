"""Pages from tables with a column `text`: Parquet files and stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from understudy.core.errors import DataError
from understudy.curate.engine.pages import Page
from understudy.curate.text.sources import page_of
from understudy.curate.text.sources_bad import Skipped

if TYPE_CHECKING:
    from understudy.curate.engine.inputs import InputUnit

ROWS = 1_024
"""Rows that are read at a time."""


def read_parquet(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield the pages of a Parquet file, or of a range of its row groups."""
    try:
        with pq.ParquetFile(unit.path) as file:
            facts = file.metadata
            if "text" not in file.schema_arrow.names:
                raise DataError(
                    f"{unit.path}: no column 'text'; the file has "
                    f"{', '.join(file.schema_arrow.names)}."
                )
            stop = facts.num_row_groups if unit.stop < 0 else unit.stop
            row = sum(facts.row_group(i).num_rows for i in range(unit.start))
            groups = list(range(unit.start, stop))
            for batch in file.iter_batches(ROWS, row_groups=groups) if groups else ():
                yield from _pages(batch, row, unit, skipped)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        skipped.bad(unit.path, "cut off", f"damaged or cut off ({text}); the rest of it is lost")


def read_store(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield the pages of a range of a store's rows; plain facts beside them join the metadata."""
    from understudy.data.store import Store

    store = Store.open(unit.path)
    columns = [f.name for f in store.schema if f.name == "text" or _is_plain(f.type)]
    stop = store.num_rows if unit.stop < 0 else unit.stop
    row = unit.start
    for batch in store.scan(columns, rows=range(unit.start, stop), batch_size=ROWS):
        yield from _pages(batch, row, unit, skipped)
        row += batch.num_rows


def _is_plain(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
    )


def _pages(batch: pa.RecordBatch, first: int, unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    for number in range(batch.num_rows):
        record: dict[str, Any] = {name: values[number] for name, values in columns.items()}
        record["metadata"] = _metadata(record.get("metadata"))
        where = f"{unit.path}, row {first + number:,}"
        page = page_of(record, unit, first + number, skipped, where)
        if page is not None:
            yield page


def _metadata(value: Any) -> Any:
    """Return an object that is kept as JSON text, as stores of pages do, as an object."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
