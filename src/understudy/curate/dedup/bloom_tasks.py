"""The tasks of Bloom deduplication."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from understudy.core.files import atomic_path, read_json
from understudy.core.seeds import seed_for
from understudy.curate.dedup.bloom import BloomFilter
from understudy.curate.dedup.bloom_pass import removed_paragraphs
from understudy.curate.dedup.copies import texts_of, with_texts
from understudy.curate.dedup.hashing import gram_hashes, mix64
from understudy.curate.dedup.words import Words, segmented
from understudy.curate.engine.stage import Count
from understudy.curate.engine.units import Unit, read_pages, write_pages

REMOVED = "removed.arrow"
REMOVED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("paragraph", pa.int32()),
        ("ngrams", pa.int32()),
        ("seen", pa.int32()),
    ]
)
"""Columns of the side table beside a unit's pages: each removed paragraph, counted from 0, with its
n-grams and how many of them had been seen. Paragraphs of a document that was dropped whole are
listed if they would have gone by themselves."""


def paragraph_grams(
    words: Words, min_ngram: int, max_ngram: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the n-grams of the paragraphs of texts.

    A paragraph is a line. One with fewer words than `max_ngram`, but at least `min_ngram`, is one
    n-gram; shorter ones have none.

    Returns:
        Hashes uint64 [G] in order of paragraphs, the n-grams of each paragraph that has any,
        int64 [P], and the number of its first word, int64 [P].
    """
    values, line = words.hashes(), words.line
    grams, first = gram_hashes(values, line, max_ngram)
    if min_ngram < max_ngram:
        starts = np.flatnonzero(np.diff(line, prepend=-1))
        lengths = np.diff(np.append(starts, len(line)))
        extra, places = [grams], [first]
        for length in range(min_ngram, max_ngram):
            mine = starts[lengths == length]
            total = np.zeros(len(mine), np.uint64)
            for shift in range(length):
                total = mix64(total) + values[mine + shift]
            extra.append(mix64(total))
            places.append(mine)
        first = np.concatenate(places)
        order = np.argsort(first, kind="stable")
        grams, first = np.concatenate(extra)[order], first[order]
    new = np.flatnonzero(np.diff(line[first], prepend=-1))
    return grams, np.diff(np.append(new, len(first))), first[new]


def hash_paragraphs(
    out: Path, folder: str, hash: str, min_ngram: int, max_ngram: int, shards: int
) -> dict[str, Any]:
    """Write the n-grams of a unit's paragraphs (a task)."""
    grams, sizes, rows, numbers = [np.zeros(0, np.uint64)], [], [], []
    shard: list[int] = []
    done = 0
    for batch in read_pages(folder):
        shard += [seed_for("bloom shard", i or "") % shards for i in batch.column("id").to_pylist()]
        for words in segmented(texts_of(batch)):
            found, size, first = paragraph_grams(words, min_ngram, max_ngram)
            text = words.text[first]
            grams.append(found)
            sizes.append(size)
            rows.append(done + words.first + text.astype(np.int64))
            numbers.append(words.line[first] - words.first_lines[text])
        done += batch.num_rows
    none = np.zeros(0, np.int64)
    size, row = np.concatenate([*sizes, none]), np.concatenate([*rows, none])
    part = np.array(shard, np.int64)[row]
    np.save(out / "ngrams.npy", np.concatenate(grams))
    np.save(out / "sizes.npy", size.astype(np.uint32))
    np.save(out / "rows.npy", row.astype(np.uint32))
    np.save(out / "paragraphs.npy", np.concatenate([*numbers, none]).astype(np.uint32))
    np.save(out / "shards.npy", part.astype(np.uint32))
    counted = np.bincount(part, weights=size, minlength=shards).astype(np.int64)
    return {"rows": done, "ngrams": counted.tolist()}


def _shard_part(folder: Path, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n-grams and sizes of a unit's paragraphs that belong to a shard (-1: all)."""
    sizes = np.load(folder / "sizes.npy").astype(np.int64)
    grams = np.load(folder / "ngrams.npy", mmap_mode="r")
    if part < 0:
        return np.array(grams), sizes
    mine = np.load(folder / "shards.npy") == part
    return grams[np.repeat(mine, sizes)], sizes[mine]


def pass_shard(
    out: Path,
    index: Mapping[str, str],
    part: int,
    items: int,
    eps: float,
    threshold: float,
    state: str,
) -> dict[str, Any]:
    """Decide on the paragraphs of a shard's units in order (a task).

    The number of seen n-grams of each paragraph is put beside the task's folder as soon as a unit
    is done. After a kill, the filter is made again from the paragraphs of these units that stayed
    (insertion order does not matter to a filter), and the pass goes on at the next unit.
    """
    filter, known = BloomFilter(items, eps), Path(state)
    known.mkdir(parents=True, exist_ok=True)
    entries = read_json(index["path"])
    removed = resumed = 0
    for entry in entries:
        grams, sizes = _shard_part(Path(entry["folder"]), part)
        path = known / f"unit-{entry['unit']:05d}.npy"
        if path.is_file():
            seen = np.load(path)
            gone = seen / np.maximum(sizes, 1) > threshold
            filter.add(grams[np.repeat(~gone, sizes)])
            resumed += 1
        else:
            gone, seen = removed_paragraphs(filter, grams, sizes, threshold)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, seen)
        removed += int(gone.sum())
    for entry in entries:
        name = f"unit-{entry['unit']:05d}.npy"
        shutil.copy(known / name, out / name)
    set_bits = int(np.bitwise_count(filter.data).sum(dtype=np.int64))
    return {
        "ngrams": items,
        "filter_bytes": len(filter.data),
        "filled": round(set_bits / filter.bits, 6),
        "removed_paragraphs": removed,
        "resumed_units": resumed,
    }


def drop_paragraphs(
    out: Path,
    folder: str,
    hash: str,
    unit: int,
    ngrams: Mapping[str, str],
    decided: Sequence[Mapping[str, str]],
    by_document: bool,
    name: str,
    threshold: float,
    matches: bool,
) -> dict[str, Any]:
    """Write a unit's pages without removed paragraphs (a task)."""
    known = Path(ngrams["folder"])
    sizes = np.load(known / "sizes.npy").astype(np.int64)
    rows, paragraphs = np.load(known / "rows.npy"), np.load(known / "paragraphs.npy")
    seen = _seen(known, len(sizes), unit, decided, by_document)
    gone = seen / np.maximum(sizes, 1) > threshold
    pages = Unit(key="", folder=Path(folder), hash=hash, rows=0)
    total = np.bincount(rows, weights=sizes, minlength=1)
    contained = np.bincount(rows, weights=seen, minlength=1)
    dropped = set(np.flatnonzero(contained / np.maximum(total, 1) > threshold).tolist())
    lost: dict[int, list[int]] = {}
    for row, paragraph in zip(rows[gone].tolist(), paragraphs[gone].tolist(), strict=True):
        lost.setdefault(row, []).append(paragraph)
    count = Count()
    written = write_pages(out, _cut(folder, dropped, lost, count), pages.schema)
    if matches:
        facts = {"row": rows[gone], "paragraph": paragraphs[gone], "ngrams": sizes[gone]}
        _write_removed(out, folder, {**facts, "seen": seen[gone]})
    return {"rows": written, "removed_paragraphs": int(gone.sum()), "count": count.to_plain()}


def _seen(
    known: Path,
    paragraphs: int,
    unit: int,
    decided: Sequence[Mapping[str, str]],
    by_document: bool,
) -> np.ndarray:
    """Return how many n-grams of each paragraph of a unit had been seen, int64 [P]."""
    seen = np.zeros(paragraphs, np.int64)
    shard = np.load(known / "shards.npy")
    for number, entry in enumerate(decided):
        found = np.load(Path(entry["folder"]) / f"unit-{unit:05d}.npy")
        seen[shard == number if by_document else slice(None)] = found
    return seen


def _cut(
    folder: str, dropped: set[int], lost: Mapping[int, list[int]], count: Count
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in read_pages(folder):
        texts, kept = texts_of(batch), np.ones(batch.num_rows, bool)
        for row, text in enumerate(texts):
            if start + row in dropped:
                kept[row] = False
                count.reasons["document seen"] += 1
            elif start + row in lost:
                # the line end belongs to the paragraph behind it
                first, *others = text.split("\n")
                gone, pieces = set(lost[start + row]), [first, *("\n" + o for o in others)]
                texts[row] = "".join(p for i, p in enumerate(pieces) if i not in gone)
                if not texts[row].strip():
                    kept[row] = False
                    count.reasons["nothing left"] += 1
        start += batch.num_rows
        yield with_texts(batch, texts, kept, count)


def _write_removed(out: Path, folder: str, facts: Mapping[str, np.ndarray]) -> None:
    columns = [batch.column("id") for batch in read_pages(folder)]
    row = facts["row"].astype(np.int64)
    ids = pa.chunked_array(columns, pa.string()).take(pa.array(row)).combine_chunks()
    table = pa.table(
        {
            "row": row,
            "id": ids,
            **{n: facts[n].astype(np.int32) for n in ("paragraph", "ngrams", "seen")},
        },
        schema=REMOVED_SCHEMA,
    )
    with ipc.new_file(str(out / REMOVED), REMOVED_SCHEMA) as writer:
        writer.write_table(table)
