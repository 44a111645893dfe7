"""Begin to read a replica's output at a line: the tail, a page before it, where a reader stopped.

Lines are numbered, so that the place is found by bisection over the files and inside of one; what
lies before it is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from understudy.launch.replica_logs import LINE_BYTES, LogLine, LogReader, segment_path, segments

_TAIL_BYTES = 4 * LINE_BYTES


def _number(line: bytes) -> int | None:
    """Return the number of a whole line; None of half a line, as a full disk leaves them."""
    head, found, _ = line.partition(b" ")
    return int(head) if found and line.endswith(b"\n") and head.isdigit() else None


def _line_from(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Return (where it begins, its number) of the first whole line that begins at or after."""
    if offset:
        file.seek(offset - 1)
        file.readline()
    else:
        file.seek(0)
    while True:
        start = file.tell()
        line = file.readline()
        if not line:
            return None
        number = _number(line)
        if number is not None:
            return start, number


def _whole_end(file: BinaryIO) -> int:
    """Return where the last whole line of a file ends."""
    size = file.seek(0, 2)
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    return start + file.read(size - start).rfind(b"\n") + 1


def _place(file: BinaryIO, wanted: int) -> int:
    """Return where the first line with at least this number begins; the end if there is none."""
    low, high = 0, _whole_end(file)
    end = high
    while low < high:
        middle = (low + high) // 2
        found = _line_from(file, middle)
        if found is None or found[1] >= wanted:
            high = middle
        else:
            low = middle + 1
    found = _line_from(file, low)
    return end if found is None else found[0]


def reader_from(folder: Path, first: int, attempt: int = 1, rank: int = 0) -> LogReader:
    """Return a reader that gives lines from number `first` on, as if it had read those before.

    Args:
        folder: of the replica.
        first: number of a line, from 1 to one after the last that is there.
        attempt: of the replica, for the lines.
        rank: of the replica, for the lines.
    """
    first = max(1, first)
    there = segments(folder)
    for number in reversed(there):
        try:
            file = open(segment_path(folder, number), "rb")
        except FileNotFoundError:
            continue  # rotated away meanwhile
        begin = _line_from(file, 0)
        if (begin is None or begin[1] > first) and number != there[0]:
            file.close()
            continue
        file.seek(_place(file, first))
        return LogReader(folder, attempt, rank, _number=number, _file=file, _seq=first - 1)
    return LogReader(folder, attempt, rank, _seq=first - 1)


def last_number(folder: Path) -> int:
    """Return the number of the last line that is there; 0 if there is none."""
    for number in reversed(segments(folder)):
        try:
            with open(segment_path(folder, number), "rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL_BYTES))
                numbers = [_number(line) for line in file.read().splitlines(keepends=True)[-64:]]
        except FileNotFoundError:
            continue
        found = [number for number in numbers if number is not None]
        if found:
            return found[-1]
    return 0


def lines_between(
    folder: Path, first: int, last: int, attempt: int = 1, rank: int = 0
) -> list[LogLine]:
    """Return the lines with numbers `first` to `last`; those that are gone are named in a note."""
    reader, found = reader_from(folder, first, attempt, rank), []
    try:
        while part := reader.read(_TAIL_BYTES):
            found += [line for line in part if line.seq <= last]
            if part[-1].seq >= last:
                break
    finally:
        reader.close()
    return found
