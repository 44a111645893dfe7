"""Parquet files, of ours or of others, to a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.progress import Bar
from understudy.data.card import Card
from understudy.data.importers.common import BATCH_ROWS
from understudy.data.importers.streams import RESUME, find_files
from understudy.data.importers.table_import import Batches, Source, import_table
from understudy.data.importers.tables import TableReader
from understudy.data.interchange import read_description, read_shards

if TYPE_CHECKING:
    from understudy.data.store import Store


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); {RESUME}.") from None


def _described(source: Path) -> tuple[dict[str, Card], dict[str, Any]]:
    """Return the cards and facts of an export of ours; none for files of others."""
    described = read_description(source if source.is_dir() else source.parent) or {}
    cards = {}
    if described.get("format") == "parquet" and source.is_dir():
        cards = {c: Card.from_json(json.dumps(d)) for c, d in described["cards"].items()}
        for name in read_shards(source):
            if not (source / name).is_file():
                raise DataError(
                    f"{source / name}: the manifest lists it and it is missing; {RESUME}."
                )
    return cards, described.get("meta") or {}


def _look(source: Path) -> Source:
    files = find_files(source, (".parquet",), ".parquet files", ("_*",))
    cards, facts = _described(source)
    total, schema = 0, _open(files[0]).schema_arrow
    for path in files:
        file = _open(path)
        if file.schema_arrow.names != schema.names or file.schema_arrow.types != schema.types:
            raise DataError(
                f"{path}: its columns differ from those of {files[0].name}; import them apart."
            )
        total += file.metadata.num_rows

    def batches(progress: Bar) -> Batches:
        for path in files:
            row = 0
            try:
                for batch in _open(path).iter_batches(BATCH_ROWS):
                    yield str(path), row, batch
                    row += batch.num_rows
                    progress.advance(batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: damaged after row {row} ({error}); {RESUME}.") from None

    def meta(reader: TableReader) -> dict[str, Any]:
        mixes = any(
            {"mixup", "cutmix"} & set(c.config.get("transforms", ())) for c in cards.values()
        )
        if reader.skips.counts and mixes:
            raise DataError(
                f"{source}: rows were skipped, but its views mix in rows by number (id2), which "
                "skipping shifts; mend the images, or import with check_images='none'."
            )
        return facts

    return Source(
        kind="parquet",
        schema=schema,
        batches=batches,
        make_id=lambda place, row: f"{Path(place).stem}-{row:09d}",
        total=total,
        unit="rows",
        cards=cards,
        meta=meta,
    )


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
    return import_table(
        _look,
        source,
        store,
        columns=columns,
        split=split,
        on_missing=on_missing,
        check_images=check_images,
        threads=threads,
        overwrite=overwrite,
        rows_per_fragment=rows_per_fragment,
        storage_options=storage_options,
    )
