"""A store as Parquet files with all its columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.data.exporters.common import chosen_columns, prepare, store_uid, write_shards
from understudy.data.store import Store


def export_parquet(
    store: Store,
    destination: str | Path,
    *,
    columns: Sequence[str] | None = None,
    rows_per_shard: int = 10_000,
    rows_per_group: int = 1_000,
    compression: str = "zstd",
    overwrite: bool = False,
) -> list[Path]:
    """Write Parquet files; columns keep their logical names and types.

    Knowledge columns are fixed-size lists (bfloat16 as the 16 bits of each number); the cards that
    say so are in `understudy.json` beside the files and in each file's own metadata.

    Args:
        store: the store.
        destination: the folder.
        columns: default all.
        rows_per_shard: rows a file.
        rows_per_group: rows a row group, the smallest unit that a reader reads.
        compression: `zstd`, `snappy`, `lz4`, `gzip` or `none`.
        overwrite: replace another export in the folder.

    Returns:
        The files in order.

    Raises:
        DataError: no such column, `id` is not among them, or another export is there.
    """
    import pyarrow.parquet as pq

    names = chosen_columns(store, columns)
    cards = {c: card.to_dict() for c, card in store.cards.items() if c in names}
    schema = pa.schema([store.schema.field(n) for n in names])
    schema = schema.with_metadata({"understudy": json.dumps({"cards": cards, "meta": store.meta})})
    description: dict[str, Any] = {
        "format": "parquet",
        "rows": store.num_rows,
        "store": [store_uid(store), store.version],
        "rows_per_shard": rows_per_shard,
        "rows_per_group": rows_per_group,
        "compression": compression,
        "columns": names,
        "meta": store.meta,
        "cards": cards,
    }
    folder = Path(destination)

    def write(path: Path, rows: range) -> None:
        with pq.ParquetWriter(path, schema, compression=compression) as writer:
            for start in range(rows.start, rows.stop, rows_per_group):
                part = range(start, min(start + rows_per_group, rows.stop))
                table = store.take(part, names).cast(schema)
                writer.write_table(table, row_group_size=rows_per_group)

    done = prepare(folder, description, overwrite)
    return write_shards(folder, store, rows_per_shard, "part-{:05d}.parquet", done, write)
