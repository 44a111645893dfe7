"""Changes to a Lance schema that keep its field ids: metadata, dropped and renamed fields.

A round trip through Arrow would number the fields anew and so lose the columns' data. What Lance
itself uses to copy a schema, `(constructor, (metadata JSON, one protobuf message a field))`, keeps
the numbers, so the changes are made there.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lance.fragment import FragmentMetadata
    from lance.schema import LanceSchema

_NAME, _ID, _PARENT = 2, 3, 4  # numbers of lance.file.Field's entries in its protobuf definition
_ROOT = (1 << 64) - 1  # parent_id -1
_TOMBSTONE = -2  # what Lance writes for a column of a file that no longer counts


def with_metadata(schema: LanceSchema, changes: Mapping[str, str | None]) -> LanceSchema:
    """Return the schema with keys of its metadata set, or deleted where the value is `None`."""
    constructor, (metadata, *fields) = _parts(schema)
    merged = json.loads(metadata)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = list(value.encode())
    return constructor(json.dumps(merged), *fields)


def without_fields(
    schema: LanceSchema, names: Collection[str], fragments: Sequence[FragmentMetadata]
) -> tuple[LanceSchema, list[FragmentMetadata]]:
    """Return the schema without some top-level fields, and the fragments without their files.

    Args:
        schema: the schema.
        names: stored names of the fields to drop; names that are not there are passed over.
        fragments: the dataset's fragments.
    """
    constructor, (metadata, *fields) = _parts(schema)
    dropped: set[int] = set()
    kept = []
    for message in fields:  # parents come before their children
        entries = {number: value for number, value, _, _ in _entries(message)}
        parent = entries.get(_PARENT, 0)
        top = parent == _ROOT
        if (top and entries[_NAME].decode() in names) or (not top and parent in dropped):
            dropped.add(entries.get(_ID, 0))
        else:
            kept.append(message)
    return constructor(metadata, *kept), [_without_files(f, dropped) for f in fragments]


def renamed(schema: LanceSchema, names: Mapping[str, str]) -> LanceSchema:
    """Return the schema with top-level fields renamed, `{old: new}`."""
    constructor, (metadata, *fields) = _parts(schema)
    return constructor(metadata, *(_renamed(message, names) for message in fields))


def _parts(schema: LanceSchema) -> tuple[Any, tuple[Any, ...]]:
    return schema.__reduce__()  # type: ignore[return-value]


def _renamed(message: bytes, names: Mapping[str, str]) -> bytes:
    entries = list(_entries(message))
    top = any(number == _PARENT and value == _ROOT for number, value, _, _ in entries)
    for number, value, start, stop in entries:
        if number == _NAME and top and value.decode() in names:
            new = names[value.decode()].encode()
            coded = bytes([_NAME << 3 | 2]) + _varint(len(new)) + new
            return message[:start] + coded + message[stop:]
    return message


def _without_files(fragment: FragmentMetadata, dropped: Collection[int]) -> FragmentMetadata:
    files = []
    for file in fragment.files:
        fields = [_TOMBSTONE if i in dropped else i for i in file.fields]
        if any(i != _TOMBSTONE for i in fields):
            copied = copy.copy(file)
            copied.fields = fields
            files.append(copied)
    return dataclasses.replace(fragment, files=files)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _entries(message: bytes) -> Iterator[tuple[int, Any, int, int]]:
    """Yield (number, value, start, stop) of each entry of a protobuf message."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
        else:
            width = {1: 8, 5: 4}.get(kind)
            if width is None:
                width, at = _read_varint(message, at)
            value = message[at : at + width]
            at += width
        yield number, value, start, at
