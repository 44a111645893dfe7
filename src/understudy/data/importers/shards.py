"""WebDataset tars as groups of files: one sample is a run of members with the same key."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from understudy.core.errors import DataError
from understudy.data.importers.streams import RESUME, tar_members
from understudy.data.interchange import read_shards

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")


@dataclass(slots=True)
class Sample:
    """One group of a shard.

    Attributes:
        key: the members' common name, without extension.
        shard: the shard's path.
        parts: contents by lower-case extension (`jpg`, `syn.json`, ...).
    """

    key: str
    shard: Path
    parts: dict[str, bytes] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What to call the sample in errors."""
        return f"{self.shard}, '{self.key}'"


def split_name(name: str) -> tuple[str, str] | None:
    """Return a member's (key, extension), split at the first dot of its last part.

    Hidden files and files without extension belong to no sample.
    """
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or folder.split("/")[0] == "__MACOSX":
        return None
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def find_shards(source: Path) -> list[Path]:
    """Return the tars of a folder and the folders in it, sorted by path, or the one tar.

    Raises:
        DataError: there are none.
    """
    if source.is_file():
        return [source]
    found = [p for p in source.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file()]
    found = [p for p in found if not p.name.startswith(".") and not p.name.endswith(".pth.tar")]
    if not found:
        raise DataError(f"{source}: no tar files ({', '.join(SUFFIXES)}) in this folder.")
    return sorted(found, key=lambda p: p.relative_to(source).as_posix())


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples in order.

    Raises:
        DataError: damaged or cut off, a refused member, or a sample with the same part twice.
    """
    sample: Sample | None = None
    for member in tar_members(path):
        named = split_name(member.name)
        if named is None:
            continue
        key, extension = named
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, path)
        if extension in sample.parts:
            raise DataError(f"{sample.place}: '{member.name}' occurs twice.")
        sample.parts[extension] = member.data
    if sample is not None:
        yield sample


def checksum(path: Path) -> int:
    """Return the CRC32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc


class Counted:
    """Shards checked against the manifest beside them, where there is one.

    Args:
        source: the folder or the shard.
    """

    def __init__(self, source: Path) -> None:
        folder = source if source.is_dir() else source.parent
        self._entries = read_shards(folder)
        self._folder = folder
        if source.is_dir():
            for name in self._entries:
                if not (folder / name).is_file():
                    raise DataError(
                        f"{folder / name}: the manifest lists it and it is missing; {RESUME}."
                    )

    def read(self, path: Path) -> Iterator[Sample]:
        """Yield a shard's samples; at the end their number must be the manifest's.

        Raises:
            DataError: the size, the checksum or the number of samples differs.
        """
        entry = self._entries.get(path.name) if path.parent == self._folder else None
        if entry is not None and "bytes" in entry and path.stat().st_size != entry["bytes"]:
            raise DataError(
                f"{path}: {path.stat().st_size:,} bytes, the manifest says {entry['bytes']:,}: it "
                f"is not whole; {RESUME}."
            )
        if entry is not None and "crc32" in entry and checksum(path) != entry["crc32"]:
            raise DataError(f"{path}: its checksum is not the manifest's; {RESUME}.")
        count = 0
        for sample in read_shard(path):
            count += 1
            yield sample
        if entry is not None and "num_uids" in entry and count != entry["num_uids"]:
            raise DataError(
                f"{path}: {count} samples, the manifest says {entry['num_uids']}: it is not whole; "
                f"{RESUME}."
            )
