"""Stores to files that other trainers read.

Every output file is whole or absent, and a line in `manifest.jsonl` with its number of samples,
size and checksum follows it; an interrupted export goes on where it stopped when it is called
again.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError
from understudy.core.lazy import LazyTable

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["EXPORTERS", "export"]

_HERE = "understudy.data.exporters"
EXPORTERS = LazyTable(
    "format",
    {
        "webdataset": f"{_HERE}.webdataset:export_webdataset",
        "parquet": f"{_HERE}.parquet:export_parquet",
        "jsonl": f"{_HERE}.jsonl:export_jsonl",
    },
)


def export(
    store: Store, destination: str | Path, format: str = "webdataset", **options: Any
) -> list[Path]:
    """Write a store as files.

    Args:
        store: what to write.
        destination: the folder to write into; made if it is not there.
        format: `webdataset`, in the released reinforced layout, `parquet` or `jsonl`.
        **options: the format's own; see `export_webdataset`, `export_parquet` and
            `export_jsonl`.

    Returns:
        The data files in order.

    Raises:
        ConfigError: no such format or option.
        DataError: the folder holds another export, or something chosen is not in the store.

    Example:
        ```python
        export(store, "shards", "webdataset", embeddings="pth.gz", rows_per_shard=10_000)
        ```
    """
    if format not in EXPORTERS:
        raise ConfigError(f"format: '{format}' is not one of {', '.join(EXPORTERS)}.")
    writer = EXPORTERS.load(format)
    check_keys(options, list(inspect.signature(writer).parameters)[2:], f"export to {format}")
    return writer(store, destination, **options)
