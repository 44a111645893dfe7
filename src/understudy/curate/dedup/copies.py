"""What exact and MinHash deduplication share: verdicts on copies, and pages without them.

Documents are numbered through all units in order. A verdict is three aligned arrays over the
documents that have copies: their numbers in ascending order (`rows.npy`), the number of the copy
that stands for each (`heads.npy`) and how many pages all copies together stand for (`counts.npy`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_data
from understudy.curate.engine.stage import Count
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import RunTasks, Unit, read_pages, write_pages

DUP_COUNT = "dup_count"
"""Column: pages that a kept page stands for, itself included."""
MATCHES = "matches.arrow"
MATCH_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("of_unit", pa.string()),
        ("of_row", pa.int64()),
        ("of_id", pa.string()),
    ]
)
"""Columns of the side table beside a unit's pages: each copy and what it is a copy of."""


def listing(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write a list that many tasks read, and return the arguments that name it.

    Args:
        path: of the JSON file.
        entries: plain data; must determine the contents of the folders that they name.
    """
    write_json(path, list(entries))
    return {"path": str(path), "hash": hash_data(list(entries))}


def unit_listing(work: Path, units: Sequence[Unit]) -> dict[str, str]:
    """Write the listing of the units, with the number of each one's first document."""
    start, entries = 0, []
    for unit in units:
        facts = {"key": unit.key, "folder": str(unit.folder), "hash": unit.hash}
        entries.append({**facts, "start": start, "rows": unit.rows})
        start += unit.rows
    return listing(work / "units.json", entries)


def map_units(
    units: Sequence[Unit], work: Path, run: RunTasks, call: str, args: Mapping[str, Any], label: str
) -> list[dict[str, Any]]:
    """Run one task a unit, and return what to list about each: folder, hash, start, statistics."""
    tasks = [
        Task(
            key=f"{label}: {unit.key}",
            call=call,
            args={"folder": str(unit.folder), "hash": unit.hash, **args},
            out=work / f"unit-{number:05d}",
        )
        for number, unit in enumerate(units)
    ]
    start, found = 0, []
    for unit, task, record in zip(units, tasks, run(tasks, label) if tasks else [], strict=True):
        facts = {"folder": str(task.out), "hash": record["hash"], "stats": record["stats"]}
        found.append({**facts, "start": start, "rows": unit.rows})
        start += unit.rows
    return found


def texts_of(batch: pa.RecordBatch) -> list[str]:
    """Return the texts of a batch; a missing one is empty."""
    return [text or "" for text in batch.column("text").to_pylist()]


def with_texts(
    batch: pa.RecordBatch, texts: list[str], kept: np.ndarray, count: Count
) -> pa.RecordBatch:
    """Return the batch with other texts, without the rows that are not kept; count both."""
    at = batch.schema.get_field_index("text")
    left = batch.set_column(at, batch.schema.field(at), pa.array(texts, pa.string()))
    left = left.filter(pa.array(kept))
    count.pages_in += batch.num_rows
    count.pages_out += left.num_rows
    count.bytes_in += text_bytes(batch)
    count.bytes_out += text_bytes(left)
    return left


def weights_of(batch: pa.RecordBatch) -> np.ndarray:
    """Return how many pages each page of a batch stands for, int64 [rows]."""
    if DUP_COUNT not in batch.schema.names:
        return np.ones(batch.num_rows, np.int64)
    return pc.fill_null(batch.column(DUP_COUNT), 1).to_numpy(zero_copy_only=False).astype(np.int64)


def write_verdicts(out: Path, rows: np.ndarray, heads: np.ndarray, counts: np.ndarray) -> None:
    """Write a verdict into a folder; the rows may come in any order."""
    order = np.argsort(rows, kind="stable")
    for name, values in (("rows", rows), ("heads", heads), ("counts", counts)):
        np.save(out / f"{name}.npy", values[order].astype(np.int64))


def apply_verdicts(
    units: Sequence[Unit],
    work: Path,
    run: RunTasks,
    verdicts: Sequence[Mapping[str, str]],
    *,
    name: str,
    keep: str,
    matches: bool,
) -> list[Unit]:
    """Run the last phase: one task a unit, which drops copies and counts them.

    Args:
        units: the pages.
        work: folder for the listing and the outputs.
        run: runs tasks.
        verdicts: `{"folder", "hash"}` of each folder of `write_verdicts`.
        name: of the step.
        keep: `"none"` drops all copies; anything else keeps those that stand for others.
        matches: write the side table.
    """
    index = unit_listing(work, units)
    judged = listing(work / "verdicts.json", list(verdicts))
    tasks = [
        Task(
            key=f"{name}: {unit.key}",
            call=f"{__name__}:drop_copies",
            args={
                "unit": number,
                "index": index,
                "verdicts": judged,
                "name": name,
                "keep": keep,
                "matches": matches,
            },
            out=work / "pages" / f"unit-{number:05d}",
        )
        for number, unit in enumerate(units)
    ]
    records = run(tasks, name) if tasks else []
    triples = zip(units, tasks, records, strict=True)
    return [Unit.of(task, record, unit.key) for unit, task, record in triples]


def drop_copies(
    out: Path,
    unit: int,
    index: Mapping[str, str],
    verdicts: Mapping[str, str],
    name: str,
    keep: str,
    matches: bool,
) -> dict[str, Any]:
    """Write a unit's pages without copies, with the column `dup_count` (a task)."""
    units = read_json(index["path"])
    here = units[unit]
    rows, heads, counts = _verdict_on(verdicts, here["start"], here["start"] + here["rows"])
    kept = np.ones(here["rows"], bool)
    kept[rows - here["start"]] = (heads == rows) & (keep != "none")
    number = np.full(here["rows"], -1, np.int64)
    number[rows - here["start"]] = counts
    count = Count(pages_in=here["rows"])
    schema = _with_count(next(iter(read_pages(here["folder"])), None), here["folder"])
    written = write_pages(out, _keep(here["folder"], kept, number, schema, count), schema)
    count.pages_out = written
    if here["rows"] > written:
        count.reasons[name] = here["rows"] - written
    if matches:
        other = heads != rows
        _write_matches(out, units, unit, rows[other], heads[other])
    return {"rows": written, "count": count.to_plain()}


def _verdict_on(
    verdicts: Mapping[str, str], start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, heads and counts of the documents in a range, by row."""
    found: list[list[np.ndarray]] = [[], [], []]
    for entry in read_json(verdicts["path"]):
        folder = Path(entry["folder"])
        rows = np.load(folder / "rows.npy", mmap_mode="r")
        part = slice(*np.searchsorted(rows, [start, stop]))
        for values, name in zip(found, ("rows", "heads", "counts"), strict=True):
            values.append(np.array(np.load(folder / f"{name}.npy", mmap_mode="r")[part]))
    if not found[0]:
        none = np.zeros(0, np.int64)
        return none, none, none
    rows, heads, counts = (np.concatenate(values) for values in found)
    order = np.argsort(rows, kind="stable")
    return rows[order], heads[order], counts[order]


def _with_count(batch: pa.RecordBatch | None, folder: str) -> pa.Schema:
    schema = Unit(key="", folder=Path(folder), hash="", rows=0).schema if batch is None else None
    schema = batch.schema if schema is None and batch is not None else schema
    assert schema is not None
    if DUP_COUNT in schema.names:
        return schema
    return schema.append(pa.field(DUP_COUNT, pa.int32()))


def _keep(
    folder: str, kept: np.ndarray, number: np.ndarray, schema: pa.Schema, count: Count
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in read_pages(folder):
        part = slice(start, start + batch.num_rows)
        start += batch.num_rows
        total = np.where(number[part] >= 0, number[part], weights_of(batch))
        columns = {n: batch.column(n) for n in batch.schema.names}
        columns[DUP_COUNT] = pa.array(total.astype(np.int32), pa.int32())
        full = pa.RecordBatch.from_arrays([columns[n] for n in schema.names], schema=schema)
        left = full.filter(pa.array(kept[part]))
        count.bytes_in += text_bytes(batch)
        count.bytes_out += text_bytes(left)
        yield left


def text_bytes(batch: pa.RecordBatch) -> int:
    """Return the UTF-8 bytes of a batch's texts."""
    lengths = pc.call_function("binary_length", [batch.column("text")])
    return pc.call_function("sum", [lengths]).as_py() or 0


def ids_of(folder: str, rows: np.ndarray) -> list[str]:
    """Return the ids of some pages of a unit."""
    columns = [batch.column("id") for batch in read_pages(folder)]
    return pa.chunked_array(columns, pa.string()).take(pa.array(rows)).to_pylist()


def _write_matches(
    out: Path, units: Sequence[Mapping[str, Any]], unit: int, rows: np.ndarray, heads: np.ndarray
) -> None:
    here = units[unit]
    starts = np.array([u["start"] for u in units], np.int64)
    # empty units share their start with the next one: the last of equals holds the document
    owner = np.searchsorted(starts, heads, "right") - 1
    of_id, of_unit = np.empty(len(rows), object), np.empty(len(rows), object)
    for number in np.unique(owner).tolist():
        mine = owner == number
        of_id[mine] = ids_of(units[number]["folder"], heads[mine] - units[number]["start"])
        of_unit[mine] = units[number]["key"]
    local = rows - here["start"]
    table = pa.table(
        {
            "row": local,
            "id": ids_of(here["folder"], local) if len(local) else pa.array([], pa.string()),
            "of_unit": pa.array(of_unit.tolist(), pa.string()),
            "of_row": heads - starts[owner],
            "of_id": pa.array(of_id.tolist(), pa.string()),
        },
        schema=MATCH_SCHEMA,
    )
    with ipc.new_file(str(out / MATCHES), MATCH_SCHEMA) as writer:
        writer.write_table(table)


def read_matches(folder: str | Path) -> pa.Table:
    """Return the side table of a unit that a step wrote."""
    with pa.memory_map(str(Path(folder) / MATCHES)) as file:
        return ipc.open_file(file).read_all()
