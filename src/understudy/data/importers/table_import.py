"""From a columnar source to a store: what importers of JSON lines, Parquet and `datasets` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.progress import Bar, bar
from understudy.data.card import Card
from understudy.data.importers.common import (
    Late,
    Pool,
    Skips,
    check_mode,
    import_facts,
    write_store,
)
from understudy.data.importers.tables import TableReader

if TYPE_CHECKING:
    from understudy.data.store import Store

Batches = Iterator[tuple[str, int, pa.RecordBatch]]
"""(file, number of the batch's first row in it, batch)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A columnar source that was looked at and not yet read.

    Attributes:
        kind: of the import.
        schema: the source's.
        batches: reads it and tells the progress.
        make_id: gives rows ids from (file, row number in it) where the source has none.
        total: where the progress ends.
        unit: what the progress counts.
        cards: of the knowledge columns that it brings.
        meta: called when all rows are read: facts for the store's `meta`; may refuse the rows.
    """

    kind: str
    schema: pa.Schema
    batches: Callable[[Bar], Batches]
    make_id: Callable[[str, int], str]
    total: float
    unit: str
    cards: Mapping[str, Card] = field(default_factory=dict)
    meta: Callable[[TableReader], Mapping[str, Any]] = lambda reader: {}


def import_table(
    look: Callable[[Path], Source],
    source: str | Path,
    store: str | Path,
    *,
    columns: Mapping[str, str] | None,
    split: str | None,
    on_missing: str | None,
    check_images: str,
    threads: int,
    overwrite: bool,
    rows_per_fragment: int | None,
    storage_options: dict[str, str] | None,
) -> Store:
    """Make a store of a columnar source.

    Args:
        look: finds out what there is at a path.
        source: the file or folder.
        store: where the store is written.
        columns: {our name: the source's name}, before the usual names.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        ConfigError: an unknown way to treat images.
        DataError: the source cannot be read, or a row does not fit.
    """
    source = Path(source)
    check_mode(check_images)
    skips = Skips(on_missing or "error")
    found = look(source)
    reader = TableReader(
        found.schema,
        columns,
        source,
        split,
        skips,
        check_images,
        found.make_id,
        watch=list(found.cards),
    )

    def late() -> Late:
        meta = {**found.meta(reader), "import": import_facts(found.kind, source, skips)}
        return Late(meta, filled=reader.marks.filled())

    with bar("import", found.total, found.unit) as progress, Pool(threads) as pool:
        return write_store(
            store,
            reader.read(found.batches(progress), pool),
            reader.schema,
            cards=found.cards,
            late=late,
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
        )
