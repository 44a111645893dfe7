"""TFRecord files of `tf.train.Example` messages, read and written without TensorFlow.

A record is its length (8 bytes, little endian), the length's checksum, the message, the message's
checksum; checksums are masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The message is a
protocol buffer with one map from names to lists of bytes, floats or integers
(tensorflow/core/example/example.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.importers.crc32c import crc32c, masked
from understudy.data.importers.streams import RESUME, open_stream

MAX_RECORD = 1 << 28
Values = list[bytes] | list[float] | list[int]


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 0, message) of each record.

    Raises:
        DataError: a checksum that does not fit, a record that is too long, or a file that is cut
            off; file and record are named.
    """
    stream, number = open_stream(path), 0
    try:
        while head := stream.read(12):
            where = f"{path}, record {number}"
            if len(head) < 12:
                raise DataError(f"{where}: the file is cut off; {RESUME}.")
            length, check = struct.unpack("<QI", head)
            if masked(crc32c(head[:8])) != check:
                raise DataError(
                    f"{where}: the checksum of its length does not fit: damaged, or not a TFRecord "
                    "file."
                )
            if length > MAX_RECORD:
                raise DataError(f"{where}: {length:,} bytes are more than {MAX_RECORD:,}.")
            yield number, _message(stream, length, where)
            number += 1
    except (OSError, EOFError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: damaged or cut off after record {number} ({error}); {RESUME}."
        ) from None
    finally:
        stream.close()


def _message(stream: IO[bytes], length: int, where: str) -> bytes:
    data = stream.read(length)
    tail = stream.read(4)
    if len(data) < length or len(tail) < 4:
        raise DataError(f"{where}: the file is cut off; {RESUME}.")
    if masked(crc32c(data)) != struct.unpack("<I", tail)[0]:
        raise DataError(f"{where}: the checksum of its content does not fit: it is damaged.")
    return data


def parse_example(message: bytes, where: str) -> dict[str, Values]:
    """Return the features of a `tf.train.Example`.

    Raises:
        DataError: not such a message.
    """
    found: dict[str, Values] = {}
    try:
        for number, features in _fields(message):
            if number != 1:
                continue
            for entry_number, entry in _fields(_bytes(features)):
                if entry_number != 1:
                    continue
                pair = dict(_fields(_bytes(entry)))
                found[_bytes(pair[1]).decode()] = _feature(_bytes(pair.get(2, b"")))
    except (IndexError, KeyError, ValueError, UnicodeDecodeError, struct.error):
        raise DataError(f"{where}: not a tf.train.Example message.") from None
    return found


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError
    return value


def _feature(message: bytes) -> Values:
    for kind, content in _fields(message):
        body = list(_fields(_bytes(content)))
        if kind == 1:
            return [_bytes(value) for number, value in body if number == 1]
        if kind == 2:
            packed = b"".join(_bytes(value) for _, value in body)
            return np.frombuffer(packed, "<f4").tolist()
        if kind == 3:
            out: list[int] = []
            for _, value in body:
                out += [value] if isinstance(value, int) else _varints(value)
            return [v - (1 << 64) if v >> 63 else v for v in out]
    return []


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _varints(data: bytes) -> list[int]:
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(value)
    return out


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (field number, content) of a protocol buffer; single floats come as their bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(kind, -1)
        if kind == 2:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError
        yield number, data[at : at + size]
        at += size


def write_records(path: Path, rows: Sequence[Mapping[str, Sequence[Any]]]) -> None:
    """Write rows of lists of bytes, floats or integers as a TFRecord file.

    Raises:
        DataError: values of another kind.
    """
    with open(path, "wb") as file:
        for row in rows:
            data = example(row)
            head = struct.pack("<Q", len(data))
            file.write(head + struct.pack("<I", masked(crc32c(head))))
            file.write(data + struct.pack("<I", masked(crc32c(data))))


def example(row: Mapping[str, Sequence[Any]]) -> bytes:
    """Return a row as a `tf.train.Example` message.

    Raises:
        DataError: values of another kind than bytes, floats and integers.
    """
    entries = b""
    for name, values in row.items():
        kinds = {type(v) for v in values}
        if kinds <= {bytes}:
            feature = _block(1, b"".join(_block(1, v) for v in values))
        elif kinds <= {int}:
            packed = b"".join(_to_varint(v % (1 << 64)) for v in values)
            feature = _block(3, _block(1, packed))
        elif kinds <= {float, int}:
            feature = _block(2, _block(1, np.asarray(values, "<f4").tobytes()))
        else:
            raise DataError(f"feature '{name}': expected bytes, floats or integers.")
        entries += _block(1, _block(1, name.encode()) + _block(2, feature))
    return _block(1, entries)


def _block(number: int, data: bytes) -> bytes:
    return _to_varint(number << 3 | 2) + _to_varint(len(data)) + data


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
