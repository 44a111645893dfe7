"""Finished units of a column job, kept as files inside the store until they are committed.

A unit file is whole or absent (written aside, synced, renamed; object stores publish a file when it
is closed) and carries a checksum of everything in it, so a file that was cut or changed is
recognised and the unit computed again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data import store_rows
from understudy.data.store_files import Files
from understudy.data.store_lance import one_line

STAGING = "_understudy/staging"
_MAGIC = b"USUNIT1\n"
_ALIGN = 64
_NAME = re.compile(r"rows-(\d{12})-(\d{9})\.unit")


class VanishedError(DataError):
    """A staged unit was committed and removed by another process after it was listed."""


class UnitFile(NamedTuple):
    """One staged unit: rows [start, stop) of the store, finished but not committed."""

    start: int
    stop: int
    name: str

    @classmethod
    def of(cls, start: int, num_rows: int) -> UnitFile:
        """Return the entry for `num_rows` rows from `start`."""
        return cls(start, start + num_rows, f"rows-{start:012d}-{num_rows:09d}.unit")


def pack(header: dict[str, Any], table: pa.Table) -> bytes:
    """Serialise a unit: magic, header length, header JSON, Arrow stream, 16-byte checksum."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    head = json.dumps(header).encode()
    # Arrow's buffers must start at aligned addresses, also where the file is read in one piece
    head += b" " * (-(len(_MAGIC) + 4 + len(head)) % _ALIGN)
    body = b"".join([_MAGIC, len(head).to_bytes(4, "little"), head, sink.getvalue().to_pybytes()])
    return body + hashlib.blake2b(body, digest_size=16).digest()


def unpack(data: bytes) -> tuple[dict[str, Any], pa.Table]:
    """Return the header and the table of a unit file.

    Raises:
        DataError: the file is cut, changed or not a unit.
    """
    body, digest = memoryview(data)[:-16], data[-16:]
    if len(data) < len(_MAGIC) + 20 or bytes(body[: len(_MAGIC)]) != _MAGIC:
        raise DataError("not a unit file, or cut short")
    if hashlib.blake2b(body, digest_size=16).digest() != digest:
        raise DataError("checksum mismatch")
    at = len(_MAGIC) + 4
    length = int.from_bytes(body[len(_MAGIC) : at], "little")
    header = json.loads(bytes(body[at : at + length]))
    return header, pa.ipc.open_stream(pa.py_buffer(body[at + length :])).read_all()


def _spread(table: pa.Table, header: dict[str, Any], num_rows: int) -> pa.Table:
    """Return a unit's table with a row for each of its rows, null where none was finished."""
    if table.num_rows == num_rows:
        return table
    done = store_rows.decode(header["rows"], num_rows)
    if table.num_rows != int(done.sum()):
        raise DataError("wrong number of rows")
    place = np.where(done, np.cumsum(done) - 1, 0)
    return table.combine_chunks().take(pa.array(place, mask=~done))


class Staging:
    """The staged units of one job.

    Args:
        files: the store's file system.
        key: hash of everything that identifies the job.
    """

    def __init__(self, files: Files, key: str) -> None:
        self.files, self.key = files, key
        self.folder = f"{STAGING}/{key}"
        self._sound: dict[str, dict[str, Any]] = {}  # headers of units whose checksum holds

    def describe(self, facts: dict[str, Any]) -> None:
        """Leave a note on what the job is, for `info` and `verify`; written once."""
        if self.files.size(f"{self.folder}/job.json") is None:
            self.files.write(f"{self.folder}/job.json", json.dumps(facts, indent=1).encode())

    def units(self) -> list[UnitFile]:
        """Return the staged units by first row, unchecked."""
        found = []
        for name in self.files.names(self.folder):
            match = _NAME.fullmatch(name)
            if match:
                start, count = int(match[1]), int(match[2])
                found.append(UnitFile(start, start + count, name))
        return sorted(found)

    def save(self, unit: UnitFile, header: dict[str, Any], table: pa.Table) -> None:
        """Stage one unit atomically, over an earlier copy if there is one.

        Args:
            unit: which.
            header: with the finished rows of the unit under `rows`.
            table: a row for each row of the unit; only finished ones are written, so that a unit
                of few rows far apart is a small file.
        """
        done = store_rows.decode(header["rows"], table.num_rows)
        finished = table if done.all() else table.filter(pa.array(done))
        self.files.write(f"{self.folder}/{unit.name}", pack(header, finished))
        self._sound[unit.name] = header

    def load(self, unit: UnitFile, keep: bool = False) -> tuple[dict[str, Any], pa.Table]:
        """Read a unit.

        Args:
            unit: which.
            keep: leave a damaged file where it is.

        Raises:
            DataError: it is damaged; the file has then been deleted, so that the unit counts as
                not done, unless `keep`.
            VanishedError: it is not there.
        """
        name = f"{self.folder}/{unit.name}"
        try:
            header, table = unpack(self.files.read(name))
            table = _spread(table, header, unit.stop - unit.start)
        except FileNotFoundError:
            self._sound.pop(unit.name, None)
            raise VanishedError(f"staged rows {unit.start}-{unit.stop - 1} are gone") from None
        except (DataError, pa.ArrowException, ValueError, OSError) as error:
            if not keep:
                self.files.delete(name)
            raise DataError(
                f"staged rows {unit.start}-{unit.stop - 1} are damaged ({one_line(error)}) and do "
                "not count; run the same command again to compute them again."
            ) from None
        self._sound[unit.name] = header
        return header, table

    def sound_units(self) -> list[tuple[UnitFile, dict[str, Any]]]:
        """Return the staged units whose checksum holds, with headers; damaged ones are deleted."""
        sound = []
        for unit in self.units():
            header = self._sound.get(unit.name)
            if header is None:
                try:
                    header, _ = self.load(unit)
                except DataError:
                    continue
            sound.append((unit, header))
        return sound

    def drop(self, unit: UnitFile) -> None:
        """Delete one staged unit."""
        self._sound.pop(unit.name, None)
        self.files.delete(f"{self.folder}/{unit.name}")

    def tidy(self) -> None:
        """Remove what a finished job leaves, unless another process is writing units of it."""
        if not self.units():
            self.files.delete(f"{self.folder}/job.json")
            self.files.delete_empty_folder(self.folder)

    def clear(self) -> None:
        """Delete the whole folder of the job."""
        self._sound.clear()
        self.files.delete_folder(self.folder)
