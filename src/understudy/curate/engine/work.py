"""What workers do: read a unit of input and run steps over it, or go on with a unit of pages."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.core.hashing import hash_data
from understudy.curate.engine.build import stages_of
from understudy.curate.engine.dropped import DroppedWriter
from understudy.curate.engine.inputs import InputUnit
from understudy.curate.engine.pages import BASE, Page, batch_of, page_schema
from understudy.curate.engine.stage import Count, Stage, chain
from understudy.curate.engine.units import (
    BATCH_ROWS,
    pages_schema,
    read_pages,
    text_lengths,
    write_pages,
)

READ_BYTES = 16 << 20
"""Bytes of text after which a batch of read pages is handed on."""


def read_unit(
    *,
    out: Path,
    unit: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    described: Sequence[Mapping[str, Any]],
    seed: int,
    strict: bool,
    exclusions: bool,
) -> dict[str, Any]:
    """Read a unit of input and run the first steps over its pages: a task.

    Args:
        out: where the pages go.
        unit: of input, as plain data.
        steps: as plain data.
        described: what decides the steps' results; part of the task's identity.
        seed: of the run.
        strict: stop at the first record that cannot be read.
        exclusions: keep dropped pages.

    Returns:
        Statistics: `rows`; a `Count` for reading (`read`) and for each step (`counts`); records
        that were skipped, by reason (`skipped`) and the first ones (`examples`); `given_ids`;
        `input_hash` of the bytes that were read.
    """
    from understudy.curate.text.sources import read_input
    from understudy.curate.text.sources_bad import Skipped

    found = InputUnit.from_plain(unit)
    skipped = Skipped(strict)
    fingerprint = input_hash(found)
    pages = _batches(read_input(found, skipped))
    stats = _run(Path(out), pages, {}, steps, seed, exclusions)
    stats["read"]["pages_in"] += sum(skipped.reasons.values())
    stats["read"]["bytes_in"] = found.bytes
    stats["read"]["reasons"] = dict(sorted(skipped.reasons.items()))
    return {
        **stats,
        "skipped": dict(sorted(skipped.reasons.items())),
        "examples": skipped.examples,
        "given_ids": skipped.given_ids,
        "input_hash": fingerprint,
    }


def run_steps(
    *,
    out: Path,
    folder: str,
    hash: str,
    steps: Sequence[Mapping[str, Any]],
    described: Sequence[Mapping[str, Any]],
    seed: int,
    exclusions: bool,
) -> dict[str, Any]:
    """Run steps over a unit of pages: a task.

    Args:
        out: where the pages go.
        folder: of the unit.
        hash: of its content; part of the task's identity.
        steps: as plain data.
        described: what decides the steps' results; part of the task's identity.
        seed: of the run.
        exclusions: keep dropped pages.
    """
    added = {f.name: f.type for f in pages_schema(folder) if f.name not in BASE}
    return _run(Path(out), read_pages(folder), added, steps, seed, exclusions)


def _batches(pages: Iterable[Page]) -> Iterator[pa.RecordBatch]:
    held: list[Page] = []
    size = 0
    for page in pages:
        held.append(page)
        size += len(page.text)
        if len(held) == BATCH_ROWS or size >= READ_BYTES:
            yield batch_of(held, {})
            held, size = [], 0
    if held:
        yield batch_of(held, {})


def _run(
    out: Path,
    batches: Iterable[pa.RecordBatch],
    added: Mapping[str, pa.DataType],
    steps: Sequence[Mapping[str, Any]],
    seed: int,
    exclusions: bool,
) -> dict[str, Any]:
    text = json.dumps({"steps": list(steps), "seed": seed}, sort_keys=True)
    stages: list[Stage] = stages_of(text) if steps else []
    schema = page_schema({**added, **{k: v for s in stages for k, v in s.adds.items()}})
    counts = [Count() for _ in stages]
    read = Count()
    start = time.process_time()
    with DroppedWriter(out) as writer:

        def drop(place: int, page: Page, reason: str) -> None:
            if exclusions:
                writer.write(steps[place]["number"], steps[place]["name"], page, reason)

        def done() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                result, new = chain(stages, batch, drop)
                for count, one in zip(counts, new, strict=True):
                    count.add(one)
                size = new[0].bytes_in if new else int(text_lengths(batch).sum())
                read.add(_passed(batch.num_rows, size))
                yield result

        rows = write_pages(out, done(), schema)
    # what is not a step's: reading, decoding, writing
    read.seconds = time.process_time() - start - sum(count.seconds for count in counts)
    plain = [count.to_plain() for count in counts]
    with open(out / "_stats.jsonl", "w") as file:
        for step, count in zip(steps, plain, strict=True):
            line = {"step": step["number"], "name": step["name"], **count}
            file.write(json.dumps(line) + "\n")
    return {"rows": rows, "read": read.to_plain(), "counts": plain}


def _passed(pages: int, size: int) -> Count:
    return Count(pages_in=pages, pages_out=pages, bytes_in=size, bytes_out=size)


def input_hash(unit: InputUnit) -> str:
    """Return a hash of the bytes of a unit of input; of a store, of its version and rows."""
    if unit.kind == "store":
        return hash_data([unit.state, unit.start, unit.stop])
    if unit.files:
        return hash_data([[n, _hash_range(Path(unit.path) / n, 0, -1)] for n in unit.files])
    whole = unit.kind != "lines"  # ranges of Parquet files are not of bytes
    return _hash_range(Path(unit.path), 0 if whole else unit.start, -1 if whole else unit.stop)


def _hash_range(path: Path, start: int, stop: int) -> str:
    h = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        file.seek(start)
        left = (stop if stop >= 0 else path.stat().st_size) - start
        while left > 0 and (chunk := file.read(min(left, 1 << 22))):
            h.update(chunk)
            left -= len(chunk)
    return h.hexdigest()
