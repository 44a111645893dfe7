"""Files, compressed streams and tar members, read forwards and within limits."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from understudy.core.errors import DataError
from understudy.data.importers.sources import named_files

MAX_MEMBER = 1 << 29
"""Largest member of an archive that is read, in bytes."""
MAX_RATIO = 500
"""Largest ratio of unpacked to packed bytes; text reaches 10 to 50, a bomb 1,000 and more."""
_SLACK = 64 << 20
RESUME = "the download or export was interrupted: run it again, then this import"


def find_files(
    source: Path, suffixes: Sequence[str], what: str, ignored: Sequence[str] = ()
) -> list[Path]:
    """Return the files of a folder and the folders in it, sorted by path, or the one file.

    Args:
        source: a file, which is taken as it is, a folder, an `info.json` that lists files, or a
            pattern such as `shards/{0000..0127}.tar`.
        suffixes: what names end with.
        what: what the files are called where there are none.
        ignored: patterns of names to pass over, beside hidden files.

    Raises:
        DataError: there are none.
    """
    named = named_files(source)
    if named is not None:
        return named
    if source.is_file():
        return [source]
    patterns = (".*", *ignored)
    found = [
        p
        for p in source.rglob("*")
        if p.name.endswith(tuple(suffixes))
        and p.is_file()
        and not any(fnmatch(p.name, pattern) for pattern in patterns)
    ]
    if not found:
        raise DataError(f"{source}: no {what} in this folder.")
    return sorted(found, key=lambda p: p.relative_to(source).as_posix())


class _Capped(io.RawIOBase):
    """A decompressing stream that refuses to unpack to absurd sizes."""

    def __init__(self, stream: Any, packed: int, name: str) -> None:
        self._stream, self._name = stream, name
        self._left = packed * MAX_RATIO + _SLACK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._name}: unpacks to more than {MAX_RATIO} times its size; it looks like an "
                "archive bomb."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def open_stream(path: Path) -> IO[bytes]:
    """Open a file for reading; gzip and Zstandard (by their first bytes) are undone.

    Raises:
        DataError: no such file, or it unpacks (while being read) to more than 500 times its size.
    """
    try:
        raw = open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    magic = raw.read(4)
    raw.seek(0)
    packed = os.fstat(raw.fileno()).st_size
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(_Capped(gzip.GzipFile(fileobj=raw), packed, str(path)), 1 << 20)
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        inner = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        return io.BufferedReader(_Capped(inner, packed, str(path)), 1 << 20)
    return raw


class Member(NamedTuple):
    """One regular file of an archive."""

    name: str
    data: bytes
    offset: int
    size: int


def check_member(member: tarfile.TarInfo, where: str) -> bool:
    """Say whether a tar member is a regular file; refuse what could leave the archive.

    Raises:
        DataError: a link, device or sparse file, a name that leads out, or a file that is too
            large.
    """
    name = member.name
    if member.issym() or member.islnk():
        raise DataError(
            f"{where}: '{name}' is a link to '{member.linkname}'; links in archives are refused."
        )
    if member.isdir():
        return False
    if not member.isreg() or member.issparse():
        raise DataError(f"{where}: '{name}' is not a regular file; it is refused.")
    if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
        raise DataError(f"{where}: the name '{name}' leads out of the archive; it is refused.")
    if member.size > MAX_MEMBER:
        raise DataError(
            f"{where}: '{name}' has {member.size:,} bytes, more than the {MAX_MEMBER:,} that are "
            "read; it looks like an archive bomb."
        )
    return True


def _check_end(path: Path) -> None:
    """Refuse an uncompressed tar without its closing zero blocks: it was cut between members."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        if size < 1024 or size % 512 or any(file.read(1024)):
            raise DataError(f"{path}: the archive has no end mark, so it is cut off; {RESUME}.")


def tar_members(path: Path, *, contents: bool = True) -> Iterator[Member]:
    """Yield the regular files of a tar (plain, gzip or Zstandard) in order.

    Args:
        path: the archive.
        contents: read the files' bytes; without, only JSON files are read and `offset` gives where
            the others lie (plain tars only).

    Raises:
        DataError: a refused member, or an archive that is damaged or cut off.
    """
    stream = open_stream(path)
    try:
        plain = isinstance(stream.raw, io.FileIO)  # type: ignore[attr-defined]
        if plain:
            _check_end(path)
        mode = "r:" if plain and not contents else "r|"
        with tarfile.open(fileobj=stream, mode=mode, bufsize=1 << 20) as archive:  # type: ignore[call-overload]
            for member in archive:
                if not check_member(member, str(path)):
                    continue
                wanted = contents or member.name.endswith(".json")
                data = b""
                if wanted:
                    file = archive.extractfile(member)
                    data = file.read() if file is not None else b""
                    if len(data) != member.size:
                        raise tarfile.ReadError("unexpected end of data")
                yield Member(member.name, data, member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); {RESUME}.") from None
    finally:
        stream.close()


def inside(root: Path, relative: str, where: str) -> Path:
    """Return `root/relative` after checking that it stays below `root`, links followed.

    Raises:
        DataError: it leads out of the folder.
    """
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where}: the path '{relative}' leads out of {root}; it is refused.")
    return path
