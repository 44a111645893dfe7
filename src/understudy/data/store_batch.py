"""Batches of rows on their way into a store: schemas with stored names, and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.store_lance import one_line
from understudy.data.store_names import check_name, logical, missing, physical

Batch = pa.RecordBatch | pa.Table | Mapping[str, Any]


def stored_schema(schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Return a logical schema with stored names."""
    fields = [schema.field(i).with_name(physical(n)) for i, n in enumerate(schema.names)]
    return pa.schema(fields, metadata=dict(metadata or {}))


def logical_schema(schema: pa.Schema) -> pa.Schema:
    """Return a stored schema with logical names and without metadata."""
    return pa.schema([f.with_name(logical(f.name)).remove_metadata() for f in schema])


def check_schema(schema: pa.Schema) -> None:
    """Refuse a schema without a string column `id`, with doubled or with unusable names."""
    for name in schema.names:
        check_name(name)
        if schema.names.count(name) > 1:
            raise DataError(f"column '{name}' is given twice.")
        if pa.types.is_null(schema.field(name).type):
            raise DataError(
                f"column '{name}' has no value in the first batch, so its type is not known; pass "
                "the schema."
            )
    if "id" not in schema.names:
        raise missing("id", schema.names, "every row needs a unique string 'id': the first batch")
    kind = schema.field("id").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"column 'id' must hold strings, got {kind}.")


def as_table(batch: Batch, schema: pa.Schema | None, number: int) -> pa.Table:
    """Return a batch as a table, cast to `schema` if there is one.

    Raises:
        DataError: not a batch, or columns or values that do not fit; the message names them.
    """
    where = f"batch {number}"
    try:
        if isinstance(batch, pa.RecordBatch):
            table = pa.Table.from_batches([batch])
        elif isinstance(batch, Mapping):
            arrays = {
                name: pa.array(values, schema.field(name).type)
                if schema is not None and name in schema.names and isinstance(values, list)
                else values
                for name, values in batch.items()
            }
            table = pa.table(arrays)
        else:
            table = batch
        if not isinstance(table, pa.Table):
            raise DataError(
                f"{where}: expected a RecordBatch, a Table or a dict of lists, got "
                f"{type(batch).__name__}."
            )
        if schema is None:
            return table
        for name in schema.names:
            if name not in table.column_names:
                raise missing(name, table.column_names, where)
        for name in table.column_names:
            if name not in schema.names:
                raise DataError(
                    f"{where}: column '{name}' is not in the store's schema "
                    f"({', '.join(schema.names)}); drop it, or add it with a column job."
                )
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{where}: does not fit the schema ({one_line(error)}).") from None
