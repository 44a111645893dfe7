"""Hugging Face `datasets` saved on disk (`save_to_disk`) to a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError, MissingExtraError
from understudy.core.progress import Bar
from understudy.data.importers.common import BATCH_ROWS
from understudy.data.importers.table_import import Batches, Source, import_table
from understudy.data.importers.tables import TableReader

if TYPE_CHECKING:
    from understudy.data.store import Store


def _load(source: Path) -> dict[str, Any]:
    """Return the data sets by split; a single one is under the empty name."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "reading Hugging Face data sets needs the package `datasets`: pip install datasets."
        ) from None
    try:
        found = datasets.load_from_disk(str(source))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{source}: not a whole `save_to_disk` folder ({error}).") from None
    if isinstance(found, dict):
        return {str(name): data for name, data in found.items()}
    return {"": found}


def _look(source: Path, split: str | None) -> Source:
    parts = {name: data.with_format("arrow") for name, data in _load(source).items()}
    first_name, first = next(iter(parts.items()))
    schema = first.features.arrow_schema.remove_metadata()
    for name, data in parts.items():
        if data.features.arrow_schema.remove_metadata() != schema:
            raise DataError(
                f"{source}: part '{name}' has other columns than '{first_name}'; import them apart."
            )
    by_part = split is None and first_name != "" and "split" not in schema.names
    if by_part:
        schema = schema.append(pa.field("split", pa.string()))

    def batches(progress: Bar) -> Batches:
        for name, data in parts.items():
            row = 0
            for table in data.iter(BATCH_ROWS):
                if by_part:
                    table = table.append_column("split", pa.array([name] * len(table)))
                table = table.select(schema.names).cast(schema)
                for batch in table.combine_chunks().to_batches():
                    yield name or source.name, row, batch
                    row += batch.num_rows
                progress.advance(len(table))

    def meta(reader: TableReader) -> dict[str, Any]:
        theirs = next((t for t, ours in reader.names.items() if ours == "label"), None)
        classes = getattr(first.features.get(theirs), "names", None) if theirs else None
        return {"classes": list(classes)} if classes else {}

    return Source(
        kind="hf",
        schema=schema,
        batches=batches,
        make_id=lambda place, row: f"{place}-{row:09d}",
        total=sum(len(data) for data in parts.values()),
        unit="rows",
        meta=meta,
    )


def import_hf(
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
    """Make a store of a data set that `datasets` saved with `save_to_disk`.

    Names are brought to ours as for Parquet; the parts of a `DatasetDict` become `split`; the names
    of a `ClassLabel` become `store.meta["classes"]`.

    Args:
        source: the folder.
        store: where the store is written.
        columns: {our name: the data set's}, before the usual names.
        split: written into every row's `split`, over the data set's own.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: not such a folder, parts with different columns, an id that comes again.
    """
    return import_table(
        lambda path: _look(path, split),
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
