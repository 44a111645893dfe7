"""The tasks of the removal of repeated substrings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from understudy.core.files import read_json
from understudy.curate.dedup.copies import ids_of, texts_of, with_texts
from understudy.curate.dedup.repeats import first_equal, first_equal_by_suffixes, repeated, runs
from understudy.curate.dedup.words import segmented
from understudy.curate.engine.stage import Count
from understudy.curate.engine.units import Unit, read_pages, write_pages

CUTS = "cuts.arrow"
CUT_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("of_unit", pa.string()),
        ("of_row", pa.int64()),
        ("of_id", pa.string()),
    ]
)
"""Columns of the side table beside a unit's pages: each cut, in characters of the text that came,
and the page where the window that it begins with occurs first."""


def split(out: Path, folder: str, hash: str, over: str) -> dict[str, Any]:
    """Write the elements of a unit's texts and where they stand (a task).

    `values.npy`: uint8 bytes or uint64 word hashes; `sizes.npy`: elements of each page. For words
    `spans.npy`, int64 [W]: the first character of each one within its page.
    """
    values, sizes, spans = [], [], []
    rows = 0
    for batch in read_pages(folder):
        texts = texts_of(batch)
        rows += len(texts)
        if over == "bytes":
            data = [text.encode("utf-8", "surrogatepass") for text in texts]
            values.append(np.frombuffer(b"".join(data), np.uint8))
            sizes.append(np.array([len(d) for d in data], np.int64))
            continue
        for words in segmented(texts):
            values.append(words.hashes())
            sizes.append(np.bincount(words.text, minlength=words.texts))
            spans.append(words.starts - words.text_starts[words.text])
    none = np.zeros(0, np.uint8 if over == "bytes" else np.uint64)
    found = np.concatenate([*values, none])
    np.save(out / "values.npy", found)
    np.save(out / "sizes.npy", np.concatenate([*sizes, np.zeros(0, np.int64)]))
    if over == "words":
        np.save(out / "spans.npy", np.concatenate([*spans, np.zeros(0, np.int64)]))
    return {"rows": rows, "elements": len(found)}


def find(
    out: Path, index: Mapping[str, str], over: str, length: int, method: str, remove_all: bool
) -> dict[str, Any]:
    """Write the cuts of a shard's units (a task).

    For each unit `unit-N.npy`, int64 [C, 5]: row, begin and end of the cut (in characters; for
    bytes in bytes; -1 for the end of the page), and unit and row of the first occurrence.
    """
    entries = read_json(index["path"])
    folders = [Path(entry["folder"]) for entry in entries]
    sizes = [np.load(folder / "sizes.npy") for folder in folders]
    values = np.concatenate([np.load(f / "values.npy") for f in folders]) if folders else None
    if values is None:
        return {"cut": 0}
    flat = np.concatenate(sizes)
    starts = np.cumsum(flat) - flat
    equal = first_equal if method == "windows" else first_equal_by_suffixes
    first = equal(values, starts, length)
    flags = repeated(first, length, remove_all)
    if over == "bytes":
        _whole_characters(values, flags)
    del values
    unit_of = np.repeat([e["unit"] for e in entries], [len(s) for s in sizes])
    row_of = np.concatenate([np.arange(len(s)) for s in sizes])
    base, page = 0, 0
    for entry, folder, size in zip(entries, folders, sizes, strict=True):
        stop = base + int(size.sum())
        part = flags[base:stop]
        begin, end, row = _cuts(part, size)
        source = first[base:stop][begin]
        # a cut that was shortened to whole characters may begin where no window does
        source = np.where(source >= 0, source, base + begin)
        origin = np.searchsorted(starts, source, "right") - 1
        offset = (np.cumsum(size) - size)[row] if len(size) else row
        if over == "words":
            spans = np.append(np.load(folder / "spans.npy"), 0)
            last = end == (offset + size[row] if len(size) else end)
            begin_at, end_at = spans[begin], np.where(last, -1, spans[end])
        else:
            begin_at, end_at = begin - offset, end - offset
        table = np.stack([row, begin_at, end_at, unit_of[origin], row_of[origin]], 1)
        np.save(out / f"unit-{entry['unit']:05d}.npy", table.astype(np.int64))
        base, page = stop, page + len(size)
    return {"elements": len(flags), "cut": int(flags.sum())}


def _cuts(flags: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return begin, end and row of the runs of True within each page."""
    row = np.repeat(np.arange(len(sizes)), sizes)
    begin, end = runs(flags)
    # runs that go on into the next page are cut at its start
    edges = np.unique(np.cumsum(sizes))
    inner = edges[(edges < len(flags)) & (edges > 0)]
    inner = inner[flags[inner] & flags[inner - 1]]
    begin, end = np.sort(np.append(begin, inner)), np.sort(np.append(end, inner))
    return begin, end, row[begin]


def _whole_characters(values: np.ndarray, flags: np.ndarray) -> None:
    """Keep characters of which not all bytes are to be cut."""
    start = np.flatnonzero((values & 0xC0) != 0x80)
    if not len(start):
        return
    whole = np.logical_and.reduceat(flags, start)
    counts = np.diff(np.append(start, len(values)))
    flags[start[0] :] = np.repeat(whole, counts)


def cut(
    out: Path,
    unit: int,
    index: Mapping[str, str],
    found: Mapping[str, str],
    over: str,
    matches: bool,
) -> dict[str, Any]:
    """Write a unit's pages without the repeated parts (a task)."""
    units = read_json(index["path"])
    here = units[unit]
    cuts = np.load(Path(found["folder"]) / f"unit-{unit:05d}.npy")
    schema = Unit(key="", folder=Path(here["folder"]), hash=here["hash"], rows=0).schema
    by_row: dict[int, list[tuple[int, int]]] = {}
    for row, begin, end, _, _ in cuts.tolist():
        by_row.setdefault(row, []).append((begin, end))
    count, spans = Count(), []
    written = write_pages(out, _cut_pages(here["folder"], by_row, over, count, spans), schema)
    if matches:
        _write_cuts(out, units, unit, cuts, np.array(spans, np.int64).reshape(-1, 2))
    return {"rows": written, "cuts": len(cuts), "count": count.to_plain()}


def _cut_pages(
    folder: str,
    by_row: Mapping[int, list[tuple[int, int]]],
    over: str,
    count: Count,
    spans: list[tuple[int, int]],
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in read_pages(folder):
        texts, kept = texts_of(batch), np.ones(batch.num_rows, bool)
        for row, text in enumerate(texts):
            if start + row not in by_row:
                continue
            places = [_characters(text, pair, over) for pair in by_row[start + row]]
            spans += places
            left, done = [], 0
            for begin, end in places:
                left.append(text[done:begin])
                done = end
            texts[row] = "".join([*left, text[done:]])
            if not texts[row].strip():
                kept[row] = False
                count.reasons["nothing left"] += 1
        start += batch.num_rows
        yield with_texts(batch, texts, kept, count)


def _characters(text: str, place: tuple[int, int], over: str) -> tuple[int, int]:
    """Return a cut in characters."""
    begin, end = place
    if over == "words":
        return begin, len(text) if end < 0 else end
    if text.isascii():
        return begin, end
    data = text.encode("utf-8", "surrogatepass")
    first = len(data[:begin].decode("utf-8", "surrogatepass"))
    return first, first + len(data[begin:end].decode("utf-8", "surrogatepass"))


def _write_cuts(
    out: Path, units: list[dict[str, Any]], unit: int, cuts: np.ndarray, spans: np.ndarray
) -> None:
    of_unit, of_row = cuts[:, 3], cuts[:, 4]
    of_id = np.empty(len(cuts), object)
    for number in np.unique(of_unit).tolist():
        mine = of_unit == number
        of_id[mine] = ids_of(units[number]["folder"], of_row[mine])
    ids = ids_of(units[unit]["folder"], cuts[:, 0]) if len(cuts) else []
    table = pa.table(
        {
            "row": cuts[:, 0],
            "id": pa.array(ids, pa.string()),
            "start": spans[:, 0],
            "end": spans[:, 1],
            "of_unit": pa.array([units[u]["key"] for u in of_unit.tolist()], pa.string()),
            "of_row": of_row,
            "of_id": pa.array(of_id.tolist(), pa.string()),
        },
        schema=CUT_SCHEMA,
    )
    with ipc.new_file(str(out / CUTS), CUT_SCHEMA) as writer:
        writer.write_table(table)
