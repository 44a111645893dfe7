"""What scene sets share: picking rows, joining runs, masks by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """N scenes; every field of a subclass is an array or a list of N items.

    Attributes:
        images: uint8 [N, S, S, 3].
        texts: the alt text of each.
        captions: clean captions of each, the canonical one first.
        masks: uint8 [N, S, S]: 0 where the background is seen, j + 1 where object j is.
        counts: int64 [N], objects in the scene; whatever stands in M columns counts up to this.
        digits: int64 [N, M].
        sizes: int64 [N, M], index into `words.SIZES`.
        colours: int64 [N, M], index into `words.COLOURS`.
        boxes: int16 [N, M, 4], tight (top, left, height, width) of what is visible.
        scan_rows: int64 [N, M], rows of the scans that were drawn.
    """

    images: np.ndarray
    texts: list[str]
    captions: list[list[str]]
    masks: np.ndarray
    counts: np.ndarray
    digits: np.ndarray
    sizes: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray
    scan_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> Self:
        """Return the scenes of the given rows or of a boolean mask."""
        index = np.arange(len(self))[rows]
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            changed[name] = [value[i] for i in index] if isinstance(value, list) else value[index]
        return replace(self, **changed)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the scenes of all parts (at least one), in order."""
        joined: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            values = [getattr(part, field.name) for part in parts]
            if isinstance(values[0], list):
                joined[field.name] = [item for value in values for item in value]
            else:
                joined[field.name] = np.concatenate(values)
        return cls(**joined)

    def class_masks(self) -> np.ndarray:
        """Return uint8 [N, S, S]: 0 for background, digit + 1 where a digit is visible."""
        zero = np.zeros((len(self), 1), np.int64)
        table = np.concatenate([zero, self.digits + 1], axis=1).astype(np.uint8)
        flat = self.masks.reshape(len(self), -1).astype(np.int64)
        return np.take_along_axis(table, flat, axis=1).reshape(self.masks.shape)
