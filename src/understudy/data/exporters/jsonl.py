"""A store as JSON lines, for tools that read one object a line."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.core.config import check_choice
from understudy.data.exporters.common import chosen_columns, prepare, store_uid, write_shards
from understudy.data.store import Store

COMPRESSIONS = ("zstd", "gzip", "none")
_SUFFIX = {"zstd": ".zst", "gzip": ".gz", "none": ""}
_BATCH = 256


def export_jsonl(
    store: Store,
    destination: str | Path,
    *,
    columns: Sequence[str] | None = None,
    rows_per_shard: int = 10_000,
    compression: str = "zstd",
    overwrite: bool = False,
) -> list[Path]:
    """Write JSON lines: one object a row, columns under their logical names.

    Bytes (images) become base64, which `data import` reads back; vectors become lists of numbers,
    bfloat16 as its 16 bits; what a column lacks in a row is left out. The cards are in
    `understudy.json` beside the files.

    Args:
        store: the store.
        destination: the folder.
        columns: default all.
        rows_per_shard: rows a file.
        compression: `zstd`, `gzip` or `none`.
        overwrite: replace another export in the folder.

    Returns:
        The files in order.

    Raises:
        DataError: no such column, `id` is not among them, or another export is there.
        ConfigError: an unknown compression.
    """
    check_choice(compression, COMPRESSIONS, "compression")
    names = chosen_columns(store, columns)
    description: dict[str, Any] = {
        "format": "jsonl",
        "rows": store.num_rows,
        "store": [store_uid(store), store.version],
        "rows_per_shard": rows_per_shard,
        "compression": compression,
        "columns": names,
        "meta": store.meta,
        "cards": {c: card.to_dict() for c, card in store.cards.items() if c in names},
    }
    folder = Path(destination)

    def write(path: Path, rows: range) -> None:
        with open(path, "wb") as raw, _packed(raw, compression) as file:
            for start in range(rows.start, rows.stop, _BATCH):
                part = range(start, min(start + _BATCH, rows.stop))
                for row in store.take(part, names).to_pylist():
                    file.write(_line(dict(zip(names, row.values(), strict=True))))

    done = prepare(folder, description, overwrite)
    name = "part-{:05d}.jsonl" + _SUFFIX[compression]
    return write_shards(folder, store, rows_per_shard, name, done, write)


def _packed(raw: Any, compression: str) -> Any:
    if compression == "zstd":
        return pa.CompressedOutputStream(raw, "zstd")
    if compression == "gzip":
        return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
    return io.BufferedWriter(raw)


def _line(row: dict[str, Any]) -> bytes:
    found = {name: _plain(value) for name, value in row.items() if value is not None}
    return (json.dumps(found, ensure_ascii=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
