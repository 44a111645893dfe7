"""Pages from JSON lines, plain or compressed, whole files or ranges of bytes."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from understudy.curate.engine.pages import Page
from understudy.curate.text.sources import page_of
from understudy.curate.text.sources_bad import Skipped
from understudy.data.importers.streams import open_stream

if TYPE_CHECKING:
    from understudy.curate.engine.inputs import InputUnit

MAX_LINE = 1 << 28
"""Longest line that is read, in bytes."""
PACKED_BUFFER = 1 << 13
"""Bytes that are unpacked at a time."""


def read_lines(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield the page of each line that is not blank.

    A range holds the lines whose first byte is in it, so ranges that meet share no line.
    """
    stream = _open(Path(unit.path))
    number, offset = 0, 0
    try:
        if unit.start:
            # a line that begins before the range belongs to the range before
            stream.seek(unit.start - 1)
            offset = unit.start - 1 + len(stream.readline())
        while unit.stop < 0 or offset < unit.stop:
            line = stream.readline(MAX_LINE + 1)
            if not line:
                break
            number, start, offset = number + 1, offset, offset + len(line)
            where = _where(unit, number, start)
            if len(line) > MAX_LINE:
                skipped.bad(where, "too long", f"the line is longer than {MAX_LINE:,} bytes")
                offset += _pass_over(stream, line)
                continue
            record = _parse(line, skipped, where) if line.strip() else None
            page = None if record is None else page_of(record, unit, start, skipped, where)
            if page is not None:
                yield page
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        text = str(error).splitlines()[0]
        skipped.bad(
            f"{unit.path}, byte {offset:,} unpacked (after line {number:,})",
            "cut off",
            f"damaged or cut off ({text}); the rest of the file is lost",
        )
    finally:
        stream.close()


def _open(path: Path) -> IO[bytes]:
    stream = open_stream(path)
    if isinstance(stream, io.BufferedReader) and not isinstance(stream.raw, io.FileIO):
        # what a file that is cut off lost is the buffer that it ended in
        return io.BufferedReader(stream.detach(), PACKED_BUFFER)
    return stream


def _where(unit: InputUnit, number: int, start: int) -> str:
    # the lines before a range are not counted
    place = f"byte {start:,}" if unit.start else f"line {number:,}"
    return f"{unit.path}, {place}"


def _pass_over(stream: IO[bytes], line: bytes) -> int:
    """Read to the end of a line that is too long; return the bytes that were read."""
    passed = 0
    while line and not line.endswith(b"\n"):
        line = stream.readline(1 << 24)
        passed += len(line)
    return passed


def _parse(line: bytes, skipped: Skipped, where: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        skipped.bad(where, "not UTF-8", f"not UTF-8 at byte {error.start} of the line")
        return None
    except (ValueError, RecursionError) as error:
        skipped.bad(where, "not JSON", f"not JSON ({error})")
        return None
    if not isinstance(record, dict):
        skipped.bad(where, "no object", f"expected a JSON object, got {line[:40]!r}")
        return None
    return record
