r"""A replica's output as stamped lines in numbered files, and how to read and follow them.

A line is `number time stream text`: the number counts a replica's lines over both streams from 1,
time is in seconds since 1970, the stream is `o` (stdout) or `e` (stderr). A full file is followed
by one with the next number and never renamed, so that a reader cannot miss or repeat a line; of old
files only the newest few are kept.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

SEGMENT_BYTES = 64_000_000
SEGMENTS = 4
LINE_BYTES = 65_536
"""Longer lines are cut into several."""
_SEGMENT = re.compile(r"log-(\d{6})\.txt")


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of a number, from 1."""
    return folder / f"log-{number:06d}.txt"


def segments(folder: Path) -> list[int]:
    """Return the numbers of the files that are there, ascending."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(m.group(1)) for m in map(_SEGMENT.fullmatch, names) if m)


class LogWriter:
    """Stamps lines and writes them; a full disk costs lines, never the job.

    Args:
        folder: of the replica.
        segment_bytes: size at which a file is full.
        keep: files kept, the current one among them.
        tee: also write the bare lines to this file descriptor.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = SEGMENT_BYTES,
        keep: int = SEGMENTS,
        tee: int | None = None,
    ) -> None:
        self.folder, self.segment_bytes, self.keep, self.tee = folder, segment_bytes, keep, tee
        self._secrets: list[bytes] = []
        self._rest: dict[str, bytes] = {"o": b"", "e": b""}
        self._number, self._size, self._handle = 0, 0, -1
        self.lines = 0
        self.dropped = 0

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these values by `***` from now on."""
        self._secrets = sorted((s.encode() for s in secrets if s), key=len, reverse=True)

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes of a stream (`o` or `e`) and write the lines that are whole."""
        *whole, rest = (self._rest[stream] + data).split(b"\n")
        while len(rest) >= LINE_BYTES:
            whole.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest[stream] = rest
        self._write(stream, whole)

    def say(self, text: str) -> None:
        """Write a line of the wrapper itself."""
        self._write("e", text.encode().splitlines())

    def close(self) -> None:
        """Write what is left of unfinished lines."""
        for stream, rest in self._rest.items():
            if rest:
                self._write(stream, [rest])
            self._rest[stream] = b""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _write(self, stream: str, lines: Iterable[bytes]) -> None:
        out: list[bytes] = []
        room = self.segment_bytes - self._size
        for line in lines:
            line = line.removesuffix(b"\r")
            for secret in self._secrets:
                line = line.replace(secret, b"***")
            for start in range(0, max(len(line), 1), LINE_BYTES):
                self.lines += 1
                stamp = f"{self.lines} {time.time():.3f} {stream} ".encode()
                out.append(stamp + line[start : start + LINE_BYTES] + b"\n")
                room -= len(out[-1])
            if room <= 0:
                self._put(out)
                out, room = [], self.segment_bytes
        self._put(out)

    def _put(self, lines: list[bytes]) -> None:
        if not lines:
            return
        data = b"".join(lines)
        try:
            if self._handle < 0 or self._size >= self.segment_bytes:
                self._next()
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError:
            # Part of a line may be on the disk; a new file keeps later lines whole.
            self.dropped += len(lines)
            self._size = self.segment_bytes
            return
        self._size += len(data)
        if self.tee is not None:
            bare = b"".join(line.split(b" ", 3)[3] for line in lines)
            try:
                os.write(self.tee, bare)
            except OSError:
                self.tee = None

    def _next(self) -> None:
        path = segment_path(self.folder, self._number + 1)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._size = handle, 0
        self._number += 1
        if self._number > self.keep:
            segment_path(self.folder, self._number - self.keep).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    Attributes:
        attempt: of which attempt.
        rank: of which replica.
        seq: its number in the replica, from 1; 0 for a note about lines that are gone.
        t: when, seconds since 1970.
        stream: `stdout`, `stderr` or `note`.
        text: the line without its end.
    """

    attempt: int
    rank: int
    seq: int
    t: float
    stream: str
    text: str


@dataclass(slots=True)
class LogReader:
    """Reads a replica's lines, each once, however often it is asked and whatever is rotated.

    Attributes:
        folder: of the replica.
        attempt: its attempt, for the lines.
        rank: its rank, for the lines.
    """

    folder: Path
    attempt: int = 1
    rank: int = 0
    _number: int = 0
    _file: BinaryIO | None = None
    _tail: bytes = b""
    _seq: int = 0
    _found: list[LogLine] = field(default_factory=list)

    def read(self, most: int = -1) -> list[LogLine]:
        """Return the whole lines since the last call.

        Args:
            most: stop after about so many bytes; call again until there is nothing.
        """
        self._found = []
        while True:
            if self._file is None and not self._open_next():
                break
            assert self._file is not None
            # Asked before reading: the writer begins a file only after finishing the one before.
            finished = any(n > self._number for n in segments(self.folder))
            data = self._file.read(most)
            *whole, self._tail = (self._tail + data).split(b"\n")
            for line in whole:
                self._take(line)
            if len(data) == most:
                if self._found:
                    break
                continue
            if not finished:
                break
            self._file.close()
            self._file, self._tail = None, b""
        return self._found

    def _open_next(self) -> bool:
        while True:
            later = [n for n in segments(self.folder) if n > self._number]
            if not later:
                return False
            try:
                self._file = open(segment_path(self.folder, later[0]), "rb")
            except FileNotFoundError:
                continue  # rotated away meanwhile
            self._number = later[0]
            return True

    def _take(self, line: bytes) -> None:
        try:
            number, t, stream, text = line.split(b" ", 3)
            seq, when = int(number), float(t)
        except ValueError:
            return  # half a line, from a full disk
        if seq > self._seq + 1:
            gone = f"[{seq - self._seq - 1} lines are gone: rotated away, or the disk was full]"
            self._found.append(LogLine(self.attempt, self.rank, 0, when, "note", gone))
        self._seq = seq
        self._found.append(
            LogLine(
                self.attempt,
                self.rank,
                seq,
                when,
                "stdout" if stream == b"o" else "stderr",
                text.decode("utf-8", "replace"),
            )
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
