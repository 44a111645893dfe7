"""A reader of binary files that checks every length before it believes it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from understudy.core.errors import DataError


class Bytes:
    """A file as mapped bytes with a position.

    Args:
        path: the file.
        what: what it should be, for messages ("a fastText model").

    Raises:
        DataError: missing, or empty.
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.path, self.what, self.at = Path(path), what, 0
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file; expected {what} there.")
        self.size = self.path.stat().st_size
        if self.size == 0:
            raise DataError(f"{self.path}: empty, expected {what}.")
        self.data = np.memmap(self.path, np.uint8, "r")

    def fail(self, why: str) -> DataError:
        """Return an error that says where the file stops making sense."""
        return DataError(f"{self.path}: not {self.what} that can be read: {why} (byte {self.at}).")

    def take(self, layout: str, name: str) -> tuple[int | float, ...]:
        """Read little-endian numbers, for example `"iq"`."""
        layout = "<" + layout
        size = struct.calcsize(layout)
        self.need(size, name)
        values = struct.unpack(layout, self.data[self.at : self.at + size].tobytes())
        self.at += size
        return values

    def integer(self, layout: str, name: str, low: int, high: int) -> int:
        """Read one integer that must lie between `low` and `high`."""
        value = int(self.take(layout, name)[0])
        if not low <= value <= high:
            self.at -= struct.calcsize("<" + layout)
            raise self.fail(f"{name} is {value}, expected {low} to {high:,}")
        return value

    def flag(self, name: str) -> bool:
        """Read a byte that must be 0 or 1."""
        return bool(self.integer("B", name, 0, 1))

    def word(self, name: str, longest: int = 1 << 20) -> bytes:
        """Read bytes up to a zero byte."""
        window = 256
        while True:
            piece = self.data[self.at : self.at + window].tobytes()
            end = piece.find(b"\0")
            if end >= 0:
                self.at += end + 1
                return piece[:end]
            if len(piece) < window or window > longest:
                raise self.fail(f"{name} has no end")
            window *= 8

    def array(self, dtype: str, count: int, name: str) -> np.ndarray:
        """Return `count` numbers as a view of the mapped file (maybe unaligned)."""
        kind = np.dtype(dtype)
        self.need(count * kind.itemsize, name)
        out = np.frombuffer(self.data, kind, count, self.at) if count else np.zeros(0, kind)
        self.at += count * kind.itemsize
        return out

    def need(self, size: int, name: str) -> None:
        """Check that `size` more bytes are there."""
        if size < 0 or self.at + size > self.size:
            raise self.fail(
                f"{name} needs {size:,} bytes and {self.size - self.at:,} are left; the file is "
                "cut off or of another kind"
            )
