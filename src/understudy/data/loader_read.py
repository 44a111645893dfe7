"""Reading: the columns of several batches with one take.

Lance needs some 30 microseconds a row and column for scattered rows and a few for many at once, so
the batches of the next thousand rows are read together, in row order, and handed out from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.knowledge import decode_embeddings
from understudy.data.loader_plan import Plan, Want, row_name

if TYPE_CHECKING:
    from understudy.data.store import Store


class Column:
    """A column of all rows of a read."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        array = values.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
        self.array = array

    @cached_property
    def valid(self) -> np.ndarray | None:
        """Where there is a value; `None` if everywhere."""
        if not self.array.null_count:
            return None
        return self.array.is_valid().to_numpy(zero_copy_only=False)

    @cached_property
    def numbers(self) -> np.ndarray:
        """`[N]`, or `[N, size]` for fixed-size lists."""
        array, size = self.array, None
        if pa.types.is_fixed_size_list(array.type):
            size = array.type.list_size
            # `values`, unlike `flatten`, keeps the places of nulls, so that rows stay aligned.
            array = array.values.slice(array.offset * size, len(array) * size)
        out = array.to_numpy(zero_copy_only=False)
        return out if size is None else out.reshape(-1, size)


def vectors(stored: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return what `decode_embeddings` does, float32 `[N, *shape]`.

    torch widens float16 some ten times as fast as NumPy, to the same bits.
    """
    if stored.dtype != np.float16:
        return decode_embeddings(stored, config)
    import torch

    wide = torch.from_numpy(stored).float().numpy()
    return decode_embeddings(wide, {**config, "dtype": "float32"})


class Cells:
    """One column in some rows of a batch, in the order that was asked for.

    Args:
        column: the rows that were read.
        index: places in them.
    """

    def __init__(self, column: Column, index: np.ndarray) -> None:
        self.column, self.index = column, index

    @property
    def type(self) -> pa.DataType:
        """The column's Arrow type."""
        return self.column.array.type

    def numpy(self) -> np.ndarray:
        """Return `[n]`, or `[n, size]` for fixed-size lists; a copy."""
        return self.column.numbers[self.index]

    def to_pylist(self) -> list[Any]:
        """Return Python objects."""
        return self.column.array.take(pa.array(self.index)).to_pylist()

    def refuse_nulls(self, store: Store, name: str, rows: np.ndarray) -> None:
        """Raise `DataError` naming the first row without a value."""
        valid = self.column.valid
        if valid is None:
            return
        missing = ~valid[self.index]
        if missing.any():
            row = int(rows[int(np.argmax(missing))])
            raise DataError(
                f"column '{name}' has no value in {row_name(store, row)}: finish the job that "
                "writes it, or draw filled rows only (Store.filled)."
            )


def read(
    store: Store, plans: Sequence[Plan], wanted: Sequence[Sequence[Want]]
) -> list[list[Cells]]:
    """Read what some batches want.

    Columns that are wanted in the same rows come with one take: one in all while every row of the
    batches uses the same view.

    Args:
        store: where.
        plans: the batches.
        wanted: what each of them wants.

    Returns:
        For every batch its cells, in the order of its wants.
    """
    uses: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for i, (plan, wants) in enumerate(zip(plans, wanted, strict=True)):
        for j, want in enumerate(wants):
            uses.setdefault(want.column, []).append((i, j, want.numbers(plan)))
    takes: dict[bytes, tuple[np.ndarray, list[str]]] = {}
    places: dict[str, np.ndarray] = {}
    for column, parts in uses.items():
        rows, places[column] = np.unique(
            np.concatenate([rows for _, _, rows in parts]), return_inverse=True
        )
        takes.setdefault(rows.tobytes(), (rows, []))[1].append(column)
    out: list[list[Any]] = [[None] * len(wants) for wants in wanted]
    for rows, columns in takes.values():
        table = store.take(rows, columns)
        for name in columns:
            column, at = Column(table.column(name)), 0
            for i, j, part in uses[name]:
                out[i][j] = Cells(column, places[name][at : at + len(part)])
                at += len(part)
    return out
