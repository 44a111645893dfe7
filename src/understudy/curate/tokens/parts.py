"""Files of token sequences between tasks, and the tokens of pieces brought together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from understudy.core.errors import DataError

PART = "tokens.arrow"
BATCH_TOKENS = 1 << 21
"""Tokens of a record batch on its way to the store."""


def write_part(folder: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write a folder's `tokens.arrow`; batches stay as they are."""
    with ipc.new_file(str(Path(folder) / PART), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_part(folder: str | Path, numbers: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield batches of a folder's `tokens.arrow`, each read when it is asked for.

    Read, not mapped: mapping a small part of a file brings in its surroundings, so that a process
    that wants a little of every file seems to hold all of them.

    Args:
        folder: where it lies.
        numbers: which batches; all when absent.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / PART
    try:
        with pa.OSFile(str(path)) as file, ipc.open_file(file) as reader:
            wanted = range(reader.num_record_batches) if numbers is None else numbers
            for number in wanted:
                yield reader.get_batch(number)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error


def gather(flat: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return pieces of an array laid end to end.

    Args:
        flat: [T].
        start: first place of each piece, int64 [P].
        size: length of each piece, int64 [P].
    """
    if not len(start):
        return flat[:0]
    if (size == size[0]).all():
        # equal pieces are rows of one strided view, copied in one go
        view = np.lib.stride_tricks.sliding_window_view(flat, int(size[0]))
        return view[start].reshape(-1)
    stop = start + size
    return np.concatenate([flat[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)])


def spans(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the places of the members of chosen groups, group after group, int64.

    Args:
        counts: members of each group; groups lie one after the other, int64 [G].
        chosen: numbers of groups, int64 [C].
    """
    firsts = np.cumsum(counts) - counts
    sizes = counts[chosen]
    group = np.repeat(np.arange(len(chosen)), sizes)
    return np.arange(len(group)) - (np.cumsum(sizes) - sizes - firsts[chosen])[group]


def token_list(flat: np.ndarray, size: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """Return lists that lie end to end as an Arrow array.

    Args:
        flat: [T].
        size: length of each list; they add up to T.
        kind: the list type.
    """
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


def rows_for_batch(size: np.ndarray, limit: int = BATCH_TOKENS) -> list[tuple[int, int]]:
    """Return runs of rows of about `limit` tokens each, as half-open pairs."""
    if not len(size):
        return []
    ends = np.cumsum(size)
    numbers = (ends - size) // limit
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(size)]
    return list(itertools.pairwise(edges))
