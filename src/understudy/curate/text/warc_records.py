"""Records of WARC files, from `fastwarc` or from a plain reader, and where a file is damaged."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from understudy.core.errors import DataError
from understudy.core.lazy import require
from understudy.curate.text.http import parse_headers, split_head
from understudy.data.importers.streams import open_stream

MAX_RECORD = 1 << 28
"""Largest record that is read, in bytes; larger ones are passed over."""
MAX_HEAD = 1 << 16
_READ = 1 << 18
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MEMBER = b"\x1f\x8b\x08"


class RawRecord(NamedTuple):
    """One record.

    Attributes:
        offset: where it, or the gzip member that holds it, begins in the file, in bytes.
        headers: of the record.
        block: what it holds.
    """

    offset: int
    headers: dict[str, str]
    block: bytes


class Damaged(Exception):
    """A file ends in the middle of a record, or holds something else.

    Attributes:
        offset: of the record, or of the gzip member, in bytes.
        what: what is wrong.
    """

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset, self.what = offset, what


def _open(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


class _Unpacked:
    """A file's bytes, gzip members undone, with the way back to offsets in the file."""

    def __init__(self, file: IO[bytes], gzip: bool, start: int = 0) -> None:
        self._file, self._gzip = file, gzip
        self._data, self._done = bytearray(), 0  # not yet taken; bytes taken before them
        self._unpack = zlib.decompressobj(31) if gzip else None
        self._rest, self._read, self._started = b"", 0, False
        self._ends, self._offsets = [0], [start]  # where members begin: unpacked, packed

    def offset(self) -> int:
        """Return the offset in the file of what comes next, or of the member that it is in."""
        if not self._gzip:
            return self._offsets[0] + self._done
        return self._offsets[bisect_right(self._ends, self._done) - 1]

    def _fill(self) -> bool:
        """Unpack a little more; return False at the end of the file."""
        if self._unpack is None:
            data = self._file.read(_READ)
            self._data += data
            return bool(data)
        if not self._rest:
            self._rest = self._file.read(_READ)
            self._read += len(self._rest)
        if not self._rest:
            if self._started:
                raise Damaged(self._offsets[-1], "gzip ends too early")
            return False
        self._started = True
        try:
            self._data += self._unpack.decompress(self._rest, _READ)
        except zlib.error as error:
            raise Damaged(self._offsets[-1], f"gzip: {error}") from None
        if self._unpack.eof:
            self._rest = self._unpack.unused_data
            self._unpack = zlib.decompressobj(31)
            self._started = False
            self._ends.append(self._done + len(self._data))
            self._offsets.append(self._offsets[0] + self._read - len(self._rest))
        else:
            self._rest = self._unpack.unconsumed_tail
        return True

    def peek(self, count: int) -> bytes:
        """Return up to so many bytes that come next, fewer only at the end."""
        while len(self._data) < count and self._fill():
            pass
        return bytes(self._data[:count])

    def find_head(self) -> bytes:
        """Return what comes next up to and including the first empty line, or all there is."""
        while True:
            lines_end = [
                at + len(mark)
                for mark in (b"\r\n\r\n", b"\n\n")
                if (at := self._data.find(mark)) >= 0
            ]
            if lines_end:
                return self.take(min(lines_end))
            if len(self._data) > MAX_HEAD or not self._fill():
                return bytes(self._data)

    def take(self, count: int) -> bytes:
        """Return and pass over so many bytes, fewer only at the end."""
        while len(self._data) < count and self._fill():
            pass
        found = bytes(self._data[:count])
        del self._data[:count]
        self._done += len(found)
        return found

    def skip(self, count: int) -> int:
        """Pass over so many bytes, and return how many there were."""
        left = count
        while left:
            found = len(self.take(min(left, _READ)))
            if not found:
                break
            left -= found
        return count - left


def _length(headers: dict[str, str], offset: int) -> int:
    try:
        length = int(headers["Content-Length"])
    except (KeyError, ValueError):
        raise Damaged(offset, "a record without Content-Length") from None
    if length < 0:
        raise Damaged(offset, f"a record with Content-Length {length}")
    return length


def _walk(stream: _Unpacked) -> Iterator[RawRecord]:
    while True:
        while stream.peek(1) in (b"\r", b"\n"):
            stream.take(1)
        offset = stream.offset()
        start = stream.peek(5)
        if not start:
            return
        if not b"WARC/".startswith(start[:5]):
            raise Damaged(offset, f"expected 'WARC/', got {start!r}")
        head = stream.find_head()
        lines, end = split_head(head)
        if end == len(head) and not head.endswith(b"\n"):
            raise Damaged(offset, "the header of a record is cut off")
        headers = parse_headers(lines[1:])
        length = _length(headers, offset)
        if length > MAX_RECORD:
            if stream.skip(length) < length:
                raise Damaged(offset, "a record is cut off")
            continue
        block = stream.take(length)
        if len(block) < length:
            raise Damaged(offset, f"a record of {length:,} bytes ends after {len(block):,}")
        yield RawRecord(offset, headers, block)


def plain_records(path: Path) -> Iterator[RawRecord]:
    """Yield the records of a file.

    Raises:
        Damaged: after the last whole record, if there is more.
        DataError: no such file.
    """
    with _open(path) as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _ZSTD:
            with open_stream(path) as stream:
                yield from _walk(_Unpacked(stream, gzip=False))
            return
        yield from _walk(_Unpacked(file, gzip=magic[:2] == _GZIP))


def fast_records(path: Path) -> Iterator[RawRecord]:
    """Yield the records of a file with `fastwarc`; errors as `plain_records`."""
    warc = require("fastwarc.warc", "curate", "the fast reader of WARC files")
    offset, broken = 0, ""
    with _open(path) as file:
        try:
            for record in warc.ArchiveIterator(file, parse_http=False):
                offset = record.stream_pos
                if record.content_length > MAX_RECORD:
                    continue
                block = record.reader.read()
                headers = dict(record.headers)
                length = _length(headers, offset)
                if len(block) < length:
                    raise Damaged(offset, f"a record of {length:,} bytes ends after {len(block):,}")
                yield RawRecord(offset, headers, block)
        except OSError as error:
            broken = str(error).splitlines()[0]
    _check_end(path, offset)
    if broken:
        raise Damaged(offset, broken)


def _check_end(path: Path, offset: int) -> None:
    """Read on from the last record: fastwarc ends without a word where a header is cut off."""
    with _open(path) as file:
        magic = file.read(4)
        if magic == _ZSTD:
            return
        file.seek(offset)
        gzip = magic[:2] == _GZIP
        if gzip and file.read(3) != _MEMBER:
            return  # in the middle of a member
        file.seek(offset)
        for _ in _walk(_Unpacked(file, gzip, offset)):
            pass
