"""Rows out of a store: by number, in order, or by condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.store_lance import Handle, one_line
from understudy.data.store_names import check_columns, physical, rewrite_filter

Rows = Sequence[int] | np.ndarray | range
_IO_BUFFER_BYTES = 64 << 20  # read ahead; Lance's own default is 2 GiB
_STREAM_BYTES = 8 << 20


def stream(handle: Handle, column: str) -> Iterator[pa.Array]:
    """Yield a whole column in order, in batches small enough for any width of row."""
    kind = handle.schema.field(physical(column)).type
    dtype, shape = _dtype(kind)
    size = 256  # nothing is known of the length of texts and images
    if dtype is not None:
        size = max(16, min(8192, _STREAM_BYTES // (dtype.itemsize * int(np.prod(shape)))))
    for batch in scan(handle, [column], None, None, size):
        yield batch.column(0)


def row_numbers(rows: Rows, num_rows: int, where: str) -> np.ndarray:
    """Return row numbers as int64 [N].

    Raises:
        DataError: not whole numbers, or one is outside of the store.
    """
    numbers = np.asarray(rows)
    if numbers.dtype == bool:
        if numbers.shape != (num_rows,):
            raise DataError(f"{where}: a mask of rows must be [{num_rows}], got {numbers.shape}.")
        return np.flatnonzero(numbers)
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{where}: rows must be whole numbers in one dimension, got {numbers.dtype} "
            f"{list(numbers.shape)}."
        )
    numbers = numbers.astype(np.int64, copy=False)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= num_rows:
        bad = low if low < 0 else high
        raise DataError(f"{where}: row {bad} does not exist; the store has {num_rows} rows.")
    return numbers


def check_filter(handle: Handle, text: str) -> str:
    """Return a filter with stored names."""
    return rewrite_filter(text, handle.columns)


def read_error(handle: Handle, error: BaseException) -> DataError:
    """Return the error for a read that Lance could not do."""
    return DataError(
        f"{handle.path}: could not be read ({one_line(error)}); `understudy data verify` says "
        "which file is damaged."
    )


def take(handle: Handle, rows: Rows, columns: Sequence[str]) -> pa.Table:
    """Return rows in the order asked for; see `Store.take`."""
    names = check_columns(columns, handle.columns, str(handle.path))
    numbers = row_numbers(rows, handle.num_rows, str(handle.path))
    stored = [physical(name) for name in names]
    if not len(numbers):
        table = pa.schema([handle.schema.field(name) for name in stored]).empty_table()
    else:
        try:
            table = handle.dataset.take(numbers, columns=stored)
        except (OSError, ValueError, RuntimeError) as error:
            raise read_error(handle, error) from None
    return table.select(stored).rename_columns(names).replace_schema_metadata(None)


def scan(
    handle: Handle,
    columns: Sequence[str],
    filter: str | None,
    rows: Rows | None,
    batch_size: int,
) -> Iterator[pa.RecordBatch]:
    """Yield batches in row order, or in the order of `rows`; see `Store.scan`."""
    names = check_columns(columns, handle.columns, str(handle.path))
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}.")
    if rows is not None:
        numbers = row_numbers(rows, handle.num_rows, str(handle.path))
        if filter is not None:
            numbers = numbers[np.isin(numbers, where(handle, filter))]
        for start in range(0, len(numbers), batch_size):
            table = take(handle, numbers[start : start + batch_size], names).combine_chunks()
            yield from table.to_batches()
        return
    stored = [physical(name) for name in names]
    condition = None if filter is None else check_filter(handle, filter)
    try:
        scanner = handle.dataset.scanner(
            columns=stored,
            filter=condition,
            batch_size=batch_size,
            io_buffer_size=_IO_BUFFER_BYTES,
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                yield batch.select(stored).rename_columns(names).replace_schema_metadata(None)
    except (OSError, ValueError, RuntimeError) as error:
        raise filter_error(handle, filter, error) from None


def filter_error(handle: Handle, filter: str | None, error: BaseException) -> DataError:
    """Return the error for a scan that failed, which a filter may have caused."""
    if filter is None or isinstance(error, OSError):
        return read_error(handle, error)
    return DataError(
        f'{handle.path}: filter "{filter}" is not understood ({one_line(error)}); it is an SQL '
        "condition on columns, for example \"split = 'train' AND score.quality > 0.5\"."
    )


def where(handle: Handle, filter: str) -> np.ndarray:
    """Return the numbers int64 [M] of the rows that meet a condition, ascending."""
    try:
        scanner = handle.dataset.scanner(
            columns=[], filter=check_filter(handle, filter), with_row_address=True
        )
        found = [batch.column("_rowaddr").to_numpy() for batch in scanner.to_batches()]
    except (OSError, ValueError, RuntimeError) as error:
        raise filter_error(handle, filter, error) from None
    if not found:
        return np.empty(0, np.int64)
    return np.sort(handle.rows_of(np.concatenate(found)))


def to_numpy(values: pa.Array) -> np.ndarray:
    """Return a column without nulls as NumPy: `[N]`, or `[N, size]` for fixed-size lists.

    Numbers are not copied.
    """
    if pa.types.is_fixed_size_list(values.type):
        return to_numpy(values.flatten()).reshape(len(values), values.type.list_size)
    if pa.types.is_boolean(values.type):
        return values.to_numpy(zero_copy_only=False)
    if pa.types.is_temporal(values.type):
        return values.to_numpy(zero_copy_only=False)
    return values.to_numpy(zero_copy_only=pa.types.is_primitive(values.type))


def _dtype(kind: pa.DataType) -> tuple[np.dtype | None, tuple[int, ...]]:
    """Return the NumPy dtype and the shape of one row; no dtype for what is not a number."""
    shape: tuple[int, ...] = ()
    while pa.types.is_fixed_size_list(kind):
        shape, kind = (*shape, kind.list_size), kind.value_type
    if pa.types.is_primitive(kind):
        return np.dtype(kind.to_pandas_dtype()), (int(np.prod(shape)),) if shape else ()
    return None, shape


def array(handle: Handle, column: str, rows: Rows | None) -> np.ndarray:
    """Return a column as NumPy; see `Store.array`."""
    (column,) = check_columns([column], handle.columns, str(handle.path))
    kind = handle.schema.field(physical(column)).type
    dtype, shape = _dtype(kind)
    if dtype is None and (pa.types.is_nested(kind) or shape):
        raise DataError(
            f"column '{column}' of {kind} has no fixed size; read it with take or scan."
        )
    if rows is not None:
        numbers = row_numbers(rows, handle.num_rows, str(handle.path))
        found = take(handle, numbers, [column]).column(0)
        _refuse_nulls(found, column, lambda i: int(numbers[i]))
        chunks = [to_numpy(chunk) for chunk in found.chunks]
        if len(chunks) == 1:
            return chunks[0].reshape(len(chunks[0]), *shape)
        empty = np.empty((0, *shape), dtype or object)
        return np.concatenate([c.reshape(len(c), *shape) for c in chunks] or [empty])
    whole = np.empty((handle.num_rows, *shape), dtype or object)
    at = 0
    for values in stream(handle, column):
        first = at
        _refuse_nulls(values, column, lambda i, first=first: first + i)
        whole[at : at + len(values)] = to_numpy(values).reshape(len(values), *shape)
        at += len(values)
    return whole


def _refuse_nulls(values: pa.Array | pa.ChunkedArray, column: str, row_of) -> None:
    if values.null_count:
        mask = (
            values.is_valid().to_numpy(zero_copy_only=False)
            if isinstance(values, pa.Array)
            else values.is_valid().to_numpy()
        )
        i = int(np.argmin(mask))
        raise DataError(
            f"column '{column}' is not filled in row {row_of(i)}; finish the job that writes it, "
            "or ask for filled rows only (Store.filled)."
        )
