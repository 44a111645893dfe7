"""The files of dataset reinforcement's reference, found by index.

A part is a folder of `<index>.pth.tar` and a `config.pth.tar`, or a tar of one, in any order.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.importers.safe_arrays import load_torch
from understudy.data.importers.streams import RESUME, inside, tar_members

CONFIG = "config.pth.tar"
_RECORD = re.compile(r"(\d{1,12})\.pth\.tar(?:\.jb)?|(\d{1,12})\.jb")
_LIMIT = 1 << 28


def _index(name: str) -> int | None:
    found = _RECORD.fullmatch(name.rsplit("/", 1)[-1])
    return int(found[1] or found[2]) if found else None


class FolderPart:
    """A part that lies unpacked in a folder."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._names = {}
        for entry in os.scandir(folder):
            index = _index(entry.name)
            if entry.is_symlink():
                inside(folder, entry.name, self.name)
            if index is not None:
                if index in self._names:
                    raise DataError(f"{folder}: index {index} has two files.")
                self._names[index] = entry.name
        config = folder / CONFIG
        self.config = load_torch(config.read_bytes(), str(config)) if config.is_file() else None
        self.indices = np.array(sorted(self._names), np.int64)

    def read(self, index: int) -> tuple[bytes, str]:
        """Return a record's bytes and what to call it."""
        file = self._folder / self._names[index]
        return file.read_bytes(), str(file)

    def close(self) -> None:
        """Nothing to close."""


class TarPart:
    """A part that lies in a tar: a plain one is read in place, others are unpacked to one file.

    Args:
        path: the archive.
        spool: folder for the unpacked records.
    """

    def __init__(self, path: Path, spool: Path) -> None:
        self.name = str(path)
        self.config: Any = None
        with open(path, "rb") as file:
            plain = file.read(4)[:2] != b"\x1f\x8b" and not path.name.endswith(".zst")
        place = path if plain else spool / f"{path.name}.{os.getpid()}.records"
        out = None if plain else open(place, "wb")
        rows: list[tuple[int, int, int]] = []
        at = 0
        try:
            for member in tar_members(path):
                if member.name.rsplit("/", 1)[-1] == CONFIG:
                    self.config = load_torch(member.data, f"{path}, {member.name}")
                index = _index(member.name)
                if index is None:
                    continue
                rows.append((index, member.offset if out is None else at, member.size))
                if out is not None:
                    at += out.write(member.data)
        finally:
            if out is not None:
                out.close()
        rows.sort()
        table = np.array(rows, np.int64).reshape(-1, 3)
        self.indices, self._places = table[:, 0], table[:, 1:]
        again = np.flatnonzero(np.diff(self.indices) == 0)
        if len(again):
            raise DataError(f"{path}: index {int(self.indices[again[0]])} has two files.")
        self._file = os.open(place, os.O_RDONLY)

    def read(self, index: int) -> tuple[bytes, str]:
        """Return a record's bytes and what to call it."""
        offset, size = map(int, self._places[np.searchsorted(self.indices, index)])
        return os.pread(self._file, size, offset), f"{self.name}, {index}.pth.tar"

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Parts:
    """Parts side by side: the union of their reinforcements, in sorted order of the parts.

    Args:
        sources: folders or tars; a folder without records of its own stands for the folders and
            tars in it.
        beside: a folder on the disk where compressed tars are unpacked for the time of the import.

    Raises:
        DataError: no records, or parts that do not cover the same indices (the first that differs
            is named).
    """

    def __init__(self, sources: Sequence[Path], beside: Path) -> None:
        self._spool = Path(tempfile.mkdtemp(prefix=".understudy-import-", dir=beside))
        self.parts: list[FolderPart | TarPart] = []
        try:
            for place in _places(sources):
                part = FolderPart(place) if place.is_dir() else TarPart(place, self._spool)
                if len(part.indices):
                    self.parts.append(part)
            if not self.parts:
                shown = ", ".join(map(str, sources))
                raise DataError(f"{shown}: no files <index>.pth.tar.")
            self._check_same()
        except BaseException:
            self.close()
            raise
        self.indices = self.parts[0].indices

    def _check_same(self) -> None:
        first = self.parts[0]
        for part in self.parts[1:]:
            differ = np.setxor1d(first.indices, part.indices)
            if len(differ):
                index = int(differ[0])
                lacks = part if index in first.indices else first
                raise DataError(
                    f"{lacks.name}: index {index} is missing, the other parts have it; {RESUME}."
                )

    def close(self) -> None:
        """Close all parts and delete what was unpacked."""
        for part in self.parts:
            part.close()
        self.parts = []
        shutil.rmtree(self._spool, ignore_errors=True)


def _places(sources: Sequence[Path]) -> list[Path]:
    places: list[Path] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder.")
        if source.is_file() or any(_index(e.name) is not None for e in os.scandir(source)):
            places.append(source)
            continue
        inner = sorted(source.iterdir())
        for path in inner:
            folder = path.is_dir() and any(_index(e.name) is not None for e in os.scandir(path))
            tar = path.is_file() and path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst"))
            if folder or (tar and not path.name.endswith(".pth.tar")):
                inside(source, path.name, str(source))
                places.append(path)
    return places
