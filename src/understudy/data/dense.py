"""Dense labels at rest: class masks, object masks and depth maps, decoded and checked.

A mask is an 8- or 16-bit PNG of indices. It holds classes, or objects whose classes stand in a list
column (`objects`): then 0 is background and index j + 1 is object j. Depth is a 16-bit PNG of
millimetres, or a `.npy` file of metres, unless `scale` says otherwise.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from understudy.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from understudy.data.store import Store

IGNORE = 255
"""Label of pixels that do not count."""
MEDIAN_M = (0.05, 20.0)
"""Depths whose median lies outside of this are not in metres."""
_UNIT_ROWS = 32
_NPY = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSpec:
    """Say where masks are and what their numbers mean.

    Attributes:
        column: encoded index masks.
        objects: column of lists of class numbers, when the mask's indices are objects; class c of
            an object is then number c + 1 of `classes`, and 0 is the background.
        classes: names of the classes by number, the background among them if there is one.
        ignore: label of pixels that do not count.
    """

    column: str = "mask"
    objects: str = ""
    classes: tuple[str, ...] = ()
    ignore: int = IGNORE

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ConfigError(
                f"masks: {len(self.classes)} class names; name at least two, in the order of their "
                "numbers (the background first, if there is one)."
            )
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError("masks: a class name is there twice.")
        if 0 <= self.ignore < len(self.classes):
            raise ConfigError(
                f"masks: the ignored label {self.ignore} is also class "
                f"'{self.classes[self.ignore]}'; choose a number that is no class."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a mask takes."""
        return (self.column, self.objects) if self.objects else (self.column,)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthSpec:
    """Say where depth maps are and what their numbers mean.

    Attributes:
        column: encoded depth maps.
        scale: metres of one stored unit; 0 takes 0.001 for whole numbers (millimetres) and 1 for
            floating-point ones (metres).
        low: smallest depth that counts, in metres.
        high: largest depth that counts, in metres.
    """

    column: str = "depth"
    scale: float = 0.0
    low: float = 1e-3
    high: float = 10.0

    def __post_init__(self) -> None:
        if self.scale < 0 or not 0 < self.low < self.high:
            raise ConfigError(
                f"depth: expected scale >= 0 and 0 < low < high, got {self.scale}, {self.low} and "
                f"{self.high}."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a depth map takes."""
        return (self.column,)


def decode_mask(data: bytes, name: str = "mask") -> np.ndarray:
    """Return the indices of an encoded mask, int64 [H, W].

    Raises:
        DataError: it does not decode, or it holds colours instead of indices.
    """
    try:
        image = Image.open(io.BytesIO(data))
        values = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name}: not a mask that can be decoded ({error}).") from None
    if values.ndim != 2:
        raise DataError(
            f"{name}: the mask is a picture of colours (mode {image.mode}), expected an index per "
            "pixel; convert its palette to class numbers (one channel, 8 or 16 bit) first."
        )
    if image.format == "JPEG":
        raise DataError(f"{name}: the mask is a JPEG, which blurs indices; write it as PNG.")
    return values.astype(np.int64)


def semantic(
    mask: np.ndarray, spec: MaskSpec, objects: Sequence[int] | None, name: str = "mask"
) -> np.ndarray:
    """Return class numbers int64 [H, W] of an index mask, checked.

    Args:
        mask: int64 [H, W] as `decode_mask` gives it.
        spec: what its numbers mean.
        objects: class of each object, where `spec.objects` is set.
        name: what to call it in errors.

    Raises:
        DataError: an index that is neither a class (or an object) nor ignored.
    """
    count = len(spec.classes)
    if spec.objects:
        table = np.array([0, *(int(c) + 1 for c in objects or ())], np.int64)
        _check_values(mask, len(table), spec.ignore, name, "objects in the row")
        ignored = mask == spec.ignore
        mask = np.where(ignored, spec.ignore, table[np.where(ignored, 0, mask)])
    _check_values(mask, count, spec.ignore, name, "classes")
    return mask


def _check_values(mask: np.ndarray, count: int, ignore: int, name: str, what: str) -> None:
    bad = ((mask < 0) | (mask >= count)) & (mask != ignore)
    if bad.any():
        value = int(mask[bad][0])
        raise DataError(
            f"{name}: value {value} is neither below {count} ({what}) nor {ignore} (ignored); the "
            "mask was made for other classes, or its ignored label is another number."
        )


def decode_depth(
    data: bytes, spec: DepthSpec, name: str = "depth"
) -> tuple[np.ndarray, np.ndarray]:
    """Return depth in metres, float32 [H, W], and where it counts, bool [H, W].

    Zeros, NaN and depths outside of [low, high] do not count.

    Raises:
        DataError: it does not decode, or is not one number per pixel.
    """
    try:
        if data[:6] == _NPY:
            values = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            values = np.asarray(Image.open(io.BytesIO(data)))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"{name}: not a depth map that can be decoded ({error}).") from None
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError(
            f"{name}: expected one number per pixel, got {values.dtype} {list(values.shape)}."
        )
    scale = spec.scale or (0.001 if values.dtype.kind in "ui" else 1.0)
    depth = values.astype(np.float32) * np.float32(scale)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(depth) & (depth >= spec.low) & (depth <= spec.high)
    return depth, valid


def check_unit(store: Store, spec: DepthSpec, rows: np.ndarray) -> float:
    """Return the median depth in metres of the first rows, if it can be one.

    Raises:
        DataError: the median is below 0.05 or above 20 m, so the unit is another one.
    """
    files = store.take(rows[:_UNIT_ROWS], [spec.column]).column(0).to_pylist()
    wide = DepthSpec(column=spec.column, scale=spec.scale, low=1e-12, high=1e12)
    parts = []
    for row, data in zip(rows.tolist(), files, strict=False):
        depth, valid = decode_depth(data, wide, f"{store.path}, row {row}, {spec.column}")
        parts.append(depth[valid])
    found = np.concatenate(parts)
    if not len(found):
        raise DataError(f"{store.path}: the first depth maps hold no depth at all.")
    median = float(np.median(found))
    if not MEDIAN_M[0] <= median <= MEDIAN_M[1]:
        raise DataError(
            f"{store.path}: the median of '{spec.column}' would be {median:.4g} m; give the unit, "
            "as metres of one stored number (depth scale: 0.001 for millimetres, 1 for metres)."
        )
    return median


def check_same_classes(head: Sequence[str], data: Sequence[str]) -> None:
    """Refuse data whose classes are numbered in another way than a head's.

    Raises:
        DataError: the lists differ; the message names the first difference.
    """
    for i in range(max(len(head), len(data))):
        ours, theirs = (names[i] if i < len(names) else None for names in (head, data))
        if ours != theirs:
            raise DataError(
                f"classes: class {i} is {ours!r} for the head and {theirs!r} for the data; the "
                "masks mean different things. Give the classes in the head's order, or train a new "
                "head."
            )


def check_sizes(image: np.ndarray, label: np.ndarray, name: str, what: str) -> None:
    """Raise `DataError` unless an image [H, W, 3] and its label [H, W] have the same size."""
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{name}: the image is {image.shape[0]}x{image.shape[1]} and its {what} "
            f"{label.shape[0]}x{label.shape[1]} pixels (height x width); they must be equal."
        )


def present_classes(store: Store, spec: MaskSpec, rows: np.ndarray) -> np.ndarray:
    """Return pixels of each class in the masks of some rows, int64 [C].

    Raises:
        DataError: a mask does not fit `spec`; the row is named.
    """
    counts = np.zeros(len(spec.classes), np.int64)
    for _, mask in masks_of(store, spec, rows):
        counts += np.bincount(mask[mask != spec.ignore], minlength=len(counts))
    return counts


def masks_of(store: Store, spec: MaskSpec, rows: np.ndarray, size: int = 256) -> Any:
    """Yield (row number, class mask int64 [H, W]) of some rows, in their order."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        table = store.take(part, list(spec.columns))
        objects = table.column(spec.objects).to_pylist() if spec.objects else [None] * len(part)
        for row, data, own in zip(
            part.tolist(), table.column(spec.column).to_pylist(), objects, strict=True
        ):
            name = f"{store.path}, row {row}, {spec.column}"
            yield row, semantic(decode_mask(data, name), spec, own, name)
