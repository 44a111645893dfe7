"""Units: the files of pages that tasks read and write, and steps that need all of them at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from understudy.core.errors import DataError
from understudy.curate.engine.tasks import Task

PAGES = "pages.arrow"
BATCH_ROWS = 1_024
"""Largest number of rows of a record batch on disk; what a stage sees at a time."""
BATCH_BYTES = 64 << 20
"""Bytes of text after which a record batch ends, however few its rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One complete file of pages.

    Attributes:
        key: names the unit through all steps (the input file, or fragment, it began as).
        folder: holds `pages.arrow`.
        hash: of the folder's files; an argument of the tasks that read it.
        rows: number of pages.
    """

    key: str
    folder: Path
    hash: str
    rows: int

    @classmethod
    def of(cls, task: Task, record: Mapping[str, Any], key: str = "") -> Unit:
        """Return the unit that a complete task wrote; its statistics give `rows`."""
        return cls(
            key=key or task.key,
            folder=task.out,
            hash=record["hash"],
            rows=int(record["stats"]["rows"]),
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the unit's pages."""
        return read_pages(self.folder)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the unit."""
        return pages_schema(self.folder)


def read_pages(folder: str | Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a folder's `pages.arrow`.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / PAGES
    try:
        with pa.memory_map(str(path)) as file, ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error


def pages_schema(folder: str | Path) -> pa.Schema:
    """Return the columns of a folder's `pages.arrow`.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / PAGES
    try:
        with ipc.open_file(str(path)) as reader:
            return reader.schema
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error


def text_lengths(batch: pa.RecordBatch) -> np.ndarray:
    """Return int64 [rows]: UTF-8 bytes of each text."""
    texts = batch.column("text")
    offsets = np.frombuffer(texts.buffers()[1], np.int32)
    return np.diff(offsets[texts.offset : texts.offset + len(texts) + 1]).astype(np.int64)


def write_pages(folder: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a folder's `pages.arrow`; equal pages give equal bytes however they are batched.

    Without pages, one empty batch is written, so that readers always get the columns.

    Args:
        folder: where to.
        batches: pages of that schema.
        schema: the columns.

    Returns:
        How many pages were written.
    """
    rows, waiting, held_rows, held_bytes = 0, [], 0, 0
    options = ipc.IpcWriteOptions(compression="lz4")
    with ipc.new_file(str(Path(folder) / PAGES), schema, options=options) as writer:

        def flush() -> None:
            nonlocal waiting, held_rows, held_bytes
            if waiting:
                table = pa.Table.from_batches(waiting, schema).combine_chunks()
                # taken, so that no trace of the cuts is left in offsets and unused bits
                for batch in table.take(np.arange(len(table))).to_batches():
                    writer.write_batch(batch)
            waiting, held_rows, held_bytes = [], 0, 0

        for batch in batches:
            rows += batch.num_rows
            ends = np.cumsum(text_lengths(batch))
            start = 0
            while start < batch.num_rows:
                before = ends[start - 1] if start else 0
                # the row that fills the held bytes is the last one of its batch
                full = int(np.searchsorted(ends, before + BATCH_BYTES - held_bytes)) + 1
                stop = min(batch.num_rows, start + BATCH_ROWS - held_rows, max(full, start + 1))
                waiting.append(batch.slice(start, stop - start))
                held_rows += stop - start
                held_bytes += int(ends[stop - 1] - before)
                start = stop
                if held_rows == BATCH_ROWS or held_bytes >= BATCH_BYTES:
                    flush()
        flush()
        if not rows:
            writer.write_batch(pa.RecordBatch.from_pylist([], schema))
    return rows


RunTasks = Callable[[Sequence[Task], str], list[dict[str, Any]]]
"""`run(tasks, label) -> records`, bound to an executor."""


class GlobalStep(ABC):
    """A step that must see all units, such as deduplication or a percentile.

    It plans tasks phase by phase (map, shuffle by key, reduce, apply): each phase is one call of
    `run`, whose tasks are independent of each other.

    Attributes:
        name: as statistics and configuration files call it.
    """

    name: str = ""

    @abstractmethod
    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Return the units that go on, in the same order and with the same keys.

        The records of the last phase's tasks hold a `Count` as plain data under `stats["count"]`,
        beside `stats["rows"]`; seconds of earlier phases are taken from their records.

        Args:
            units: the pages so far.
            work: folder for everything that the step writes.
            run: runs tasks.
        """

    def describe(self) -> dict[str, Any]:
        """Return what decides its result, as plain data."""
        return {"name": self.name}
