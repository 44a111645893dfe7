"""The two-stage shuffle: every sequence to a random cell on disk, then each cell shuffled alone.

Uniform cells and a uniform order inside of each give a uniform order of everything, while no
process holds more than one unit or one cell. How many cells there are follows from how much memory
a process may use for tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.curate.tokens.parts import (
    gather,
    read_part,
    rows_for_batch,
    token_list,
    write_part,
)
from understudy.data.tokens import flat_tokens

INDEX = "cells.npy"
UNIT_SHARE, CELL_SHARE = 16, 4
"""A unit takes memory / 16 of tokens, so that small data still make several; a cell memory / 4:
its rows are held as they lie on disk, laid together, and in their new order."""
ROW_BYTES = 128
"""What a row costs beside its tokens: ids and facts."""
_SIGMAS = 6


def units_by_tokens(lengths: np.ndarray, itemsize: int, memory: int) -> list[tuple[int, int]]:
    """Cut documents into runs that fit into a worker's memory; workers do not matter.

    Args:
        lengths: tokens of each document, int [N].
        itemsize: bytes of a token.
        memory: bytes of tokens that a process may hold.

    Raises:
        ConfigError: one document alone needs more.
    """
    limit = max(1, memory // UNIT_SHARE // itemsize)
    largest = int(lengths.max()) if len(lengths) else 0
    if largest * itemsize * CELL_SHARE > memory:
        raise ConfigError(
            f"memory: {memory:,} bytes, and a document of {largest:,} tokens alone needs "
            f"{largest * itemsize * CELL_SHARE:,}; raise memory."
        )
    ends = np.cumsum(lengths, dtype=np.int64)
    edges, start = [0], 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(ends, before + limit, "right")))
        edges.append(start)
    return list(itertools.pairwise(edges))


def plan_cells(rows: int, row_bytes: int, memory: int) -> int:
    """Return how many cells keep the largest one within memory / 4.

    Cells fill at random: with m rows on average the largest has at most m + 6 sqrt(m), but for one
    run in millions.

    Args:
        rows: sequences.
        row_bytes: bytes of the longest one.
        memory: bytes of tokens that a process may hold.

    Raises:
        ConfigError: the memory holds too few sequences to plan with.
    """
    fits = memory // CELL_SHARE // row_bytes
    if rows <= fits:
        return 1
    if fits < 4 * _SIGMAS**2:
        raise ConfigError(
            f"memory: {memory:,} bytes hold {fits:,} sequences of {row_bytes:,} bytes a cell, too "
            f"few to shuffle with; use {4 * _SIGMAS**2 * CELL_SHARE * row_bytes:,} or more."
        )
    # m + s sqrt(m) <= fits
    root = (-_SIGMAS + math.sqrt(_SIGMAS**2 + 4 * fits)) / 2
    return math.ceil(rows / root**2)


def draw_cells(
    buckets: np.ndarray, cells: Mapping[int, int], seed: int, unit: int | str
) -> np.ndarray:
    """Return the cell of each row, int64 [R]: a function of (seed, unit, row) alone.

    Args:
        buckets: bucket of each row, int [R].
        cells: how many cells each bucket has.
        seed: of the shuffle.
        unit: number of the unit.
    """
    counts = np.zeros(int(buckets.max(initial=0)) + 1, np.int64)
    for bucket, count in cells.items():
        if bucket < len(counts):
            counts[bucket] = count
    return rng("token-cell", seed, unit).integers(0, np.maximum(counts[buckets], 1))


def groups(buckets: np.ndarray, cells: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (bucket, cell, numbers of its rows) in order."""
    order = np.lexsort((cells, buckets))
    keys = np.stack([buckets[order], cells[order]])
    edges = np.flatnonzero(np.any(np.diff(keys, axis=1), axis=0)) + 1
    for rows in np.split(order, edges) if len(order) else ():
        yield int(buckets[rows[0]]), int(cells[rows[0]]), rows


def write_cells(
    folder: Path, found: Iterator[tuple[int, int, pa.RecordBatch]], schema: pa.Schema
) -> None:
    """Write one record batch a cell, and which is which.

    Args:
        folder: where to.
        found: bucket, cell and rows.
        schema: of the rows.
    """
    index: list[tuple[int, int, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for bucket, cell, batch in found:
            index.append((bucket, cell, batch.num_rows))
            yield batch

    write_part(folder, batches(), schema)
    np.save(folder / INDEX, np.array(index, np.int64).reshape(-1, 3))


def shuffle_cell(
    *,
    out: Path,
    parts: Sequence[str],
    hashes: Sequence[str],
    bucket: int,
    cell: int,
    seed: int,
    memory: int,
) -> dict[str, Any]:
    """Bring a cell's rows together and shuffle them: a task.

    Args:
        out: where `tokens.arrow` goes.
        parts: folders of all units, in order.
        hashes: of their contents; part of the task's identity.
        bucket: of the cell.
        cell: its number.
        seed: of the shuffle.
        memory: bytes of tokens that a process may hold.

    Raises:
        DataError: the cell is larger than planned.
    """
    found: list[pa.RecordBatch] = []
    for part in parts:
        index = np.load(Path(part) / INDEX)
        numbers = np.flatnonzero((index[:, 0] == bucket) & (index[:, 1] == cell))
        found += read_part(part, numbers.tolist())
    rows = sum(batch.num_rows for batch in found)
    if not rows:
        return {"rows": 0, "bytes": 0}
    size = sum(batch.nbytes for batch in found)
    if size > memory:
        raise DataError(
            f"cell {bucket}.{cell}: {size:,} bytes, more than the memory of {memory:,}; raise "
            "memory and run again."
        )
    table = pa.Table.from_batches(found)
    order = rng("token-shuffle", seed, bucket, cell).permutation(rows)
    flat, lengths = flat_tokens(table.column("tokens"))
    starts, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    others = table.drop_columns(["tokens"]).take(pa.array(order)).combine_chunks()
    kind = table.schema.field("tokens").type

    def batches() -> Iterator[pa.RecordBatch]:
        for low, high in rows_for_batch(lengths):
            window = slice(low, high)
            tokens = gather(flat, starts[window], lengths[window])
            arrays = {
                name: others.column(name).slice(low, high - low).combine_chunks()
                for name in others.column_names
            }
            arrays["tokens"] = token_list(tokens, lengths[window], kind)
            yield pa.RecordBatch.from_arrays(
                [arrays[name] for name in table.schema.names], schema=table.schema
            )

    write_part(out, batches(), table.schema)
    return {"rows": rows, "bytes": size}
