"""Sets of row numbers, packed small enough to travel in a column's metadata."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable

import numpy as np

from understudy.core.errors import DataError

_MAX_RANGES = 256  # above this a compressed bitmap is smaller than a list of ranges


def to_ranges(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the maximal runs of true values as half-open (start, stop) pairs.

    Args:
        mask: bool [N].
    """
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def to_mask(ranges: Iterable[tuple[int, int]], num_rows: int) -> np.ndarray:
    """Return bool [num_rows], true inside any of the half-open ranges."""
    mask = np.zeros(num_rows, dtype=bool)
    for start, stop in ranges:
        mask[start:stop] = True
    return mask


def encode(mask: np.ndarray) -> str:
    """Return the set as a short line of JSON: ranges, or a compressed bitmap if there are many."""
    ranges = to_ranges(mask)
    if len(ranges) <= _MAX_RANGES:
        return json.dumps({"ranges": ranges}, separators=(",", ":"))
    packed = zlib.compress(np.packbits(mask, bitorder="little").tobytes(), 9)
    return json.dumps({"bits": base64.b64encode(packed).decode(), "rows": len(mask)})


def decode(text: str | bytes, num_rows: int) -> np.ndarray:
    """Return bool [num_rows] from what `encode` wrote, perhaps when there were fewer rows.

    Raises:
        DataError: not a row set, or one over more rows than there are.
    """
    try:
        data = json.loads(text)
        if "ranges" in data:
            ranges = [(int(a), int(b)) for a, b in data["ranges"]]
            if any(not 0 <= a < b <= num_rows for a, b in ranges):
                raise ValueError(f"a range lies outside of {num_rows} rows")
            return to_mask(ranges, num_rows)
        count = int(data["rows"])
        if count > num_rows:
            raise ValueError(f"{count} rows, the store has {num_rows}")
        bits = np.frombuffer(zlib.decompress(base64.b64decode(data["bits"])), np.uint8)
        mask = np.zeros(num_rows, dtype=bool)
        mask[:count] = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
        return mask
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise DataError(f"unreadable set of finished rows ({error}).") from None
