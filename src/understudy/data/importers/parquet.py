"""Parquet files, of ours or of others, to a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.progress import Bar, bar
from understudy.data.card import Card
from understudy.data.importers.common import (
    BATCH_ROWS,
    Late,
    Pool,
    Skips,
    check_mode,
    import_facts,
    write_store,
)
from understudy.data.importers.streams import RESUME
from understudy.data.importers.tables import TableReader
from understudy.data.interchange import read_description, read_shards

if TYPE_CHECKING:
    from understudy.data.store import Store


def find_files(source: Path) -> list[Path]:
    """Return the Parquet files of a folder and the folders in it, sorted, or the one file."""
    if source.is_file():
        return [source]
    found = [p for p in source.rglob("*.parquet") if not p.name.startswith((".", "_"))]
    if not found:
        raise DataError(f"{source}: no .parquet files in this folder.")
    return sorted(found, key=lambda p: p.relative_to(source).as_posix())


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); {RESUME}.") from None


def import_parquet(
    source: str | Path,
    store: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of Parquet files; an export of ours gets its cards back.

    Column names that others use become ours: `key` or `uid` is the `id`, `jpg` the `image`,
    `caption` the `text`, `cls` the `label`. An image is bytes, Hugging Face's struct of bytes and
    path, or a path below the source. Other structs are stored as JSON text. Without an id column
    the id is `<file>-<row>`.

    Args:
        source: a file or a folder of files, read in sorted order.
        store: where the store is written.
        columns: {our name: the file's name}, before the usual names.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        DataError: a file is damaged, its columns differ from the first one's, an id comes again.
    """
    source = Path(source)
    check_mode(check_images)
    files = find_files(source)
    described = read_description(source if source.is_dir() else source.parent)
    cards: dict[str, Card] = {}
    if described is not None and described.get("format") == "parquet" and source.is_dir():
        cards = {c: Card.from_json(json.dumps(d)) for c, d in described["cards"].items()}
        for name in read_shards(source):
            if not (source / name).is_file():
                raise DataError(
                    f"{source / name}: the manifest lists it and it is missing; {RESUME}."
                )
    skips = Skips(on_missing or "error")
    total, schema = 0, _open(files[0]).schema_arrow
    for path in files:
        file = _open(path)
        if file.schema_arrow.names != schema.names or file.schema_arrow.types != schema.types:
            raise DataError(
                f"{path}: its columns differ from those of {files[0].name}; import them apart."
            )
        total += file.metadata.num_rows

    def make_id(place: str, row: int) -> str:
        return f"{Path(place).stem}-{row:09d}"

    reader = TableReader(
        schema, columns, source, split, skips, check_images, make_id, watch=list(cards)
    )

    def batches(progress: Bar) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        for path in files:
            row = 0
            try:
                for batch in _open(path).iter_batches(BATCH_ROWS):
                    yield str(path), row, batch
                    row += batch.num_rows
                    progress.advance(batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: damaged after row {row} ({error}); {RESUME}.") from None

    def late() -> Late:
        mixes = any(
            {"mixup", "cutmix"} & set(c.config.get("transforms", ())) for c in cards.values()
        )
        if skips.counts and mixes:
            raise DataError(
                f"{source}: rows were skipped, but its views mix in rows by number (id2), which "
                "skipping shifts; mend the images, or import with check_images='none'."
            )
        meta = {"import": import_facts("parquet", source, skips)}
        return Late({**((described or {}).get("meta") or {}), **meta}, filled=reader.marks.filled())

    with bar("import", total, "rows") as progress, Pool(threads) as pool:
        return write_store(
            store,
            reader.read(batches(progress), pool),
            reader.schema,
            cards=cards,
            late=late,
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
        )
