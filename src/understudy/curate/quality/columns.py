"""Columns of scores in page batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from understudy.core.errors import DataError

SCORE = "score.quality"
"""Column of the score that decides, unless a step says otherwise."""


def scores_of(batch: pa.RecordBatch, column: str) -> np.ndarray:
    """Return float32 [N]; NaN where there is none.

    Raises:
        DataError: the column is missing or not of numbers.
    """
    if column not in batch.schema.names:
        raise DataError(
            f"pages have no column '{column}': run the scoring pass first; columns are "
            f"{', '.join(batch.schema.names)}."
        )
    values = batch.column(column)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"column '{column}': expected numbers, got {values.type}.")
    found = values.cast(pa.float32()).to_numpy(zero_copy_only=False)
    return np.asarray(found, np.float32)


def with_column(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    """Return the batch with a column added, or replaced."""
    fields = [f for f in batch.schema if f.name != name]
    arrays = [batch.column(f.name) for f in fields]
    schema = pa.schema([*fields, pa.field(name, values.type)])
    return pa.RecordBatch.from_arrays([*arrays, values], schema=schema)


def float_column(values: np.ndarray) -> pa.Array:
    """Return a float32 column; NaN becomes null."""
    return pa.array(np.asarray(values, np.float32), pa.float32(), from_pandas=True)


def texts_of(batch: pa.RecordBatch) -> pa.Array:
    """Return the texts of a batch; a missing one is empty."""
    texts = batch.column("text")
    return pc.call_function("coalesce", [texts, pa.scalar("", texts.type)])


def text_bytes(batch: pa.RecordBatch) -> int:
    """Return the UTF-8 bytes of a batch's texts."""
    lengths = pc.call_function("binary_length", [batch.column("text")])
    return pc.call_function("sum", [lengths]).as_py() or 0


def blank(texts: pa.Array) -> np.ndarray:
    """Return bool [N]: texts of white space alone."""
    trimmed = pc.call_function("utf8_trim_whitespace", [texts])
    lengths = pc.call_function("binary_length", [trimmed])
    return lengths.to_numpy(zero_copy_only=False) == 0
