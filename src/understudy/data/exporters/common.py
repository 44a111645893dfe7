"""A folder of shards that an export can be killed in and go on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import atomic_path, write_text
from understudy.core.hashing import hash_data
from understudy.core.progress import bar
from understudy.data.importers.shards import checksum
from understudy.data.interchange import (
    AUGMENTATION,
    DESCRIPTION,
    SHARDS,
    add_shard,
    read_description,
    read_shards,
    write_description,
)
from understudy.data.store_lance import UID_KEY

if TYPE_CHECKING:
    from understudy.data.store import Store

Write = Callable[[Path, range], None]


def store_uid(store: Store) -> str:
    """Return what tells a store's rows from those of every other store."""
    return store._handle.metadata.get(UID_KEY, "")


def chosen_columns(store: Store, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to write; all when none are named.

    Raises:
        DataError: one is not in the store, or `id` is not among them.
    """
    names = list(columns) if columns is not None else store.columns
    for name in names:
        if not store.has(name):
            raise DataError(
                f"columns: '{name}' is not in the store; it has: {', '.join(store.columns)}."
            )
    if "id" not in names:
        raise DataError("columns: 'id' must be among them, it says which row is which.")
    return names


def prepare(folder: Path, description: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
    """Make the folder ready for an export, new or interrupted.

    Returns:
        The manifest's entries of shards that are finished.

    Raises:
        DataError: the folder holds another export, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: exists and is not a folder; choose another place.")
    there = read_description(folder) if folder.is_dir() else None
    identity = hash_data(dict(description))
    if there is not None and there.get("identity") != identity:
        if not overwrite:
            raise DataError(
                f"{folder}: holds an export of another store, version or choice of options; choose "
                "another folder, or pass overwrite=True to replace it."
            )
        for name in (*read_shards(folder), SHARDS, DESCRIPTION, AUGMENTATION):
            if Path(name).name == name:  # a manifest must not reach beyond its folder
                (folder / name).unlink(missing_ok=True)
        there = None
    if there is None:
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise DataError(f"{folder}: holds other files; choose an empty or a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        write_description(folder, {**description, "identity": identity})
    for stray in folder.glob(".*.tmp"):
        stray.unlink()
    found = read_shards(folder)
    kept = {n: e for n, e in found.items() if _whole(folder / n, e)}
    if (folder / SHARDS).exists():
        lines = "".join(json.dumps(e) + "\n" for e in kept.values())
        write_text(folder / SHARDS, lines)
    return kept


def _whole(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry.get("bytes")


def shard_rows(num_rows: int, rows_per_shard: int) -> Iterator[range]:
    """Yield the row numbers of each shard.

    Raises:
        ConfigError: `rows_per_shard` is below 1.
    """
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard: expected at least 1, got {rows_per_shard}.")
    for start in range(0, num_rows, rows_per_shard):
        yield range(start, min(start + rows_per_shard, num_rows))


def write_shards(
    folder: Path,
    store: Store,
    rows_per_shard: int,
    name: str,
    done: Mapping[str, Any],
    write: Write,
) -> list[Path]:
    """Write the shards that are not there, each atomically, its manifest line after it.

    Args:
        folder: where.
        store: what is exported.
        rows_per_shard: rows a shard.
        name: file name with a place for the shard's number.
        done: finished shards.
        write: writes the rows of a range to a path.

    Returns:
        All shards in order.
    """
    paths = []
    finished = sum(e["num_uids"] for e in done.values())
    with bar("export", store.num_rows, "rows", done=finished) as progress:
        for number, rows in enumerate(shard_rows(store.num_rows, rows_per_shard)):
            path = folder / name.format(number)
            paths.append(path)
            if path.name in done:
                continue
            with atomic_path(path) as temporary:
                try:
                    write(temporary, rows)
                except OSError as error:
                    raise DataError(
                        f"{path}: could not be written ({error.strerror or error}); finished "
                        "shards are kept, so mend it and run the same export again."
                    ) from error
            entry = {"shard": path.name, "num_uids": len(rows)}
            size = path.stat().st_size
            add_shard(folder, {**entry, "bytes": size, "crc32": checksum(path)})
            progress.advance(len(rows))
    return paths
