"""WebDataset tars as groups of files: one sample is a run of members with the same key."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.data.importers.sources import INFO, info_counts
from understudy.data.importers.streams import RESUME, find_files, tar_members
from understudy.data.interchange import read_shards
from understudy.data.periods_uids import SIZES, read_sizes, wrong_size

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd")


@dataclass(slots=True)
class Sample:
    """One group of a shard.

    Attributes:
        key: the members' common name, without extension.
        shard: the shard's path.
        parts: contents by lower-case extension (`jpg`, `syn.json`, ...).
        arrays: embeddings by key, where they are no file of their own.
    """

    key: str
    shard: Path
    parts: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, Any] | None = None

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
    """Return the shards of a folder and the folders in it, sorted by path, or the one shard.

    Shards are tars; where there are none, files of JSON lines.

    Raises:
        DataError: there are neither.
    """
    what = f"shards ({', '.join((*SUFFIXES, *LINES))})"
    found = find_files(source, (*SUFFIXES, *LINES), what, ("*.pth.tar", "manifest.jsonl"))
    tars = [path for path in found if path.name.endswith(SUFFIXES)]
    return tars or found


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples in order; of a tar, or of a file of JSON lines.

    Raises:
        DataError: damaged or cut off, a refused member, or a sample with the same part twice.
    """
    if path.name.endswith(LINES):
        from understudy.data.importers.reinforced_lines import read_json_shard

        yield from read_json_shard(path)
        return
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
        source: the folder, the shard, or what names several (see `named_files`); an `info.json` has
            counts of its own.
    """

    def __init__(self, source: Path) -> None:
        self._manifests: dict[Path, dict[str, dict[str, Any]]] = {}
        self._counts: dict[Path, int] = {}
        self._sizes: dict[Path, Mapping[str, int]] = {}
        if source.name == INFO and source.is_file():
            self._counts = info_counts(source)
        if source.is_dir():
            folder = source
            for name in self._manifest(folder):
                if not (folder / name).is_file():
                    raise DataError(
                        f"{folder / name}: the manifest lists it and it is missing; {RESUME}."
                    )

    def _manifest(self, folder: Path) -> dict[str, dict[str, Any]]:
        if folder not in self._manifests:
            self._manifests[folder] = read_shards(folder)
        return self._manifests[folder]

    def _sizes_of(self, folder: Path) -> Mapping[str, int]:
        if folder not in self._sizes:
            there = (folder / SIZES).is_file()
            self._sizes[folder] = read_sizes(folder) if there else {}
        return self._sizes[folder]

    def read(self, path: Path) -> Iterator[Sample]:
        """Yield a shard's samples; at the end their number must be the manifest's.

        Raises:
            DataError: the size, the checksum or the number of samples differs from the manifest's
                or from that in `sizes.json`; both are named.
        """
        entry = self._manifest(path.parent).get(path.name)
        if entry is None and path in self._counts:
            entry = {"num_uids": self._counts[path]}
        sizes = self._sizes_of(path.parent)
        if sizes and path.name not in sizes:
            raise DataError(
                f"{path}: {SIZES} does not list this shard; write {SIZES} anew, or take the shard "
                "away."
            )
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
        if sizes and count != sizes[path.name]:
            raise DataError(wrong_size(path, sizes[path.name], count))
