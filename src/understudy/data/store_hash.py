"""One hash over a store's logical content, however it is stored."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.hashing import hash_data
from understudy.data.store_commit import card_of
from understudy.data.store_lance import Handle
from understudy.data.store_read import stream


class ColumnHash:
    """Hash of a column's values, the same however they are cut into batches.

    Validity, lengths and values go into streams of their own, so that the end of a batch leaves no
    trace; a null adds nothing but its validity.
    """

    def __init__(self) -> None:
        self._streams: dict[str, hashlib.blake2b] = {}

    def _feed(self, stream: str, data: Any) -> None:
        found = self._streams.get(stream)
        if found is None:
            found = self._streams[stream] = hashlib.blake2b(digest_size=16)
        found.update(data)

    def update(self, values: pa.Array, at: str = "") -> None:
        """Add the next values."""
        kind = values.type
        if pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
            kind = values.type
        valid = values.is_valid().cast(pa.uint8()).to_numpy()
        self._feed(f"{at}valid", valid)
        if values.null_count:
            values = values.drop_null()
        if not len(values) or pa.types.is_null(kind):
            return
        if pa.types.is_struct(kind):
            for field, child in zip(kind, values.flatten(), strict=True):
                self.update(child, f"{at}{field.name}.")
        elif pa.types.is_fixed_size_list(kind):
            self.update(values.flatten(), f"{at}item.")
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._feed(f"{at}length", values.value_lengths().cast(pa.int64()).to_numpy())
            self.update(values.flatten(), f"{at}item.")
        elif pa.types.is_boolean(kind):
            self._feed(f"{at}value", values.cast(pa.uint8()).to_numpy())
        elif kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
            self._bytes(values, at)
        else:
            width = kind.bit_width // 8
            data = values.buffers()[1]
            self._feed(f"{at}value", data.slice(values.offset * width, len(values) * width))

    def _bytes(self, values: pa.Array, at: str) -> None:
        large = values.type in (pa.large_string(), pa.large_binary())
        offsets = np.frombuffer(values.buffers()[1], np.int64 if large else np.int32)
        offsets = offsets[values.offset : values.offset + len(values) + 1].astype(np.int64)
        self._feed(f"{at}length", np.diff(offsets))
        data = values.buffers()[2]
        if data is not None:
            self._feed(f"{at}value", data.slice(offsets[0], offsets[-1] - offsets[0]))

    def digest(self) -> str:
        """Return the hash."""
        return hash_data({name: h.hexdigest() for name, h in self._streams.items()})


def column_hash(handle: Handle, column: str) -> str:
    """Return the hash of one column's values, read in a stream."""
    total = ColumnHash()
    for values in stream(handle, column):
        total.update(values)
    return total.digest()


def content_hash(handle: Handle) -> str:
    """Return the hash of rows, columns and card identities; see `Store.content_hash`."""
    columns = {}
    for field, column in zip(handle.schema, handle.columns, strict=True):
        card = card_of(handle, column)
        columns[column] = {
            "type": str(field.type),
            "values": column_hash(handle, column),
            "card": None if card is None else card.identity(),
        }
    return hash_data({"rows": handle.num_rows, "columns": columns})
