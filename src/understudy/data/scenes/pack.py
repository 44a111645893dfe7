"""Scenes at rest: PNG bytes, label maps as PNG, and tables of them for a store."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.core.errors import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTH_STEPS = 65535


@dataclass(frozen=True, kw_only=True)
class SceneTable:
    """Rows of a scene set that are ready for a store.

    Attributes:
        columns: payload and facts by column name; `id` is among them.
        captions: clean captions of each row, or None; they become `caption.template`.
        meta: plain facts about the whole set.
    """

    columns: dict[str, pa.Array]
    captions: list[list[str]] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def batch(self) -> pa.RecordBatch:
        """Return the columns as one record batch."""
        return pa.RecordBatch.from_arrays(list(self.columns.values()), list(self.columns))


def png(image: np.ndarray, level: int = 1) -> bytes:
    """Return the PNG file of `uint8 [h, w, 3]`, `uint8 [h, w]` or `uint16 [h, w]`.

    The file has no optional parts and does not depend on any image library, so equal pixels are
    equal bytes everywhere (up to the zlib in use).
    """
    kinds = {("u1", 3): (8, 2), ("u1", 2): (8, 0), ("u2", 2): (16, 0)}
    kind = kinds.get((image.dtype.str[1:], image.ndim))
    if kind is None or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(f"cannot write {image.dtype} {list(image.shape)} as PNG.")
    height, width = image.shape[:2]
    big = image.astype(">u2") if kind[0] == 16 else image
    rows = np.ascontiguousarray(big).view(np.uint8).reshape(height, -1)
    raw = np.zeros((height, rows.shape[1] + 1), np.uint8)  # filter type 0 before every row
    raw[:, 1:] = rows
    header = struct.pack(">IIBBBBB", width, height, *kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(raw.tobytes(), level)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in parts
    ]
    return _SIGNATURE + b"".join(chunks)


def pngs(images: np.ndarray) -> pa.Array:
    """Return the PNG files of `[N, h, w(, 3)]` as a binary column."""
    return pa.array([png(image) for image in images], pa.binary())


def _gray(data: bytes) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(data)))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"not a packed mask or depth map: {error}.") from None


def unpack_masks(files: Sequence[bytes]) -> np.ndarray:
    """Return `uint8 [N, h, w]` of a `mask` column: 0 is background, j + 1 is object j."""
    return np.stack([_gray(data).astype(np.uint8) for data in files])


def pack_depth(depth: np.ndarray) -> pa.Array:
    """Return depth `[N, h, w]` in [0, 1] as a column of 16-bit PNG files (step 1/65535)."""
    if depth.size and not (0 <= depth.min() and depth.max() <= 1):
        raise DataError(f"depth must lie in [0, 1], got {depth.min():.3g} to {depth.max():.3g}.")
    return pngs(np.round(depth * DEPTH_STEPS).astype(np.uint16))


def unpack_depth(files: Sequence[bytes]) -> np.ndarray:
    """Return float32 `[N, h, w]` in [0, 1] of a `depth` column."""
    return np.stack([_gray(data).astype(np.float32) / DEPTH_STEPS for data in files])


def list_column(values: np.ndarray, counts: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return the first `counts[i]` items of `values[i]` as a list column of `kind`."""
    return pa.array([v[:n].tolist() for v, n in zip(values, counts, strict=True)], pa.list_(kind))


def word_column(ids: np.ndarray, counts: np.ndarray, words: Sequence[str]) -> pa.Array:
    """Return the words that the first `counts[i]` numbers of `ids[i]` stand for."""
    named = [[words[j] for j in row[:n]] for row, n in zip(ids, counts, strict=True)]
    return pa.array(named, pa.list_(pa.string()))


def ids(name: str, split: str, start: int, count: int) -> pa.Array:
    """Return row ids such as `pairs/train/000041`."""
    return pa.array([f"{name}/{split}/{i:06d}" for i in range(start, start + count)], pa.string())


def constant(value: str, count: int) -> pa.Array:
    """Return a column of one repeated word."""
    return pa.array([value] * count, pa.string())
