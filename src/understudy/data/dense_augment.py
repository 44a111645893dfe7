"""Augmentation of pictures together with their dense labels: zoom, crop, mirror, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from understudy.core.errors import ConfigError
from understudy.data.view_random import uniforms

_STREAM = 0
_DRAWS = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseAugment:
    """Describe what happens to a picture and its labels, the same for both.

    Attributes:
        scale: range of the random zoom before the crop; (1, 1) for none. Not for depth, which
            would change with it.
        flip: probability of mirroring left and right.
        jitter: largest relative change of brightness, contrast and saturation; 0 for none.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"augment.scale: expected 0 < low <= high, got {self.scale}.")
        if not 0 <= self.flip <= 1 or not 0 <= self.jitter < 1:
            raise ConfigError(
                f"augment: expected flip in [0, 1] and jitter in [0, 1), got {self.flip} and "
                f"{self.jitter}."
            )


def draws(seeds: np.ndarray) -> np.ndarray:
    """Return the random numbers of each picture, float64 [B, 7], from its seed."""
    return uniforms(seeds, _STREAM, _DRAWS)


class Placed:
    """One picture's zoom, crop and mirror, to be applied to pixels and labels alike.

    Args:
        shape: (height, width) of the picture.
        size: side of the crop.
        augment: what may happen.
        numbers: float64 [7] in [0, 1).
    """

    def __init__(
        self, shape: tuple[int, int], size: int, augment: DenseAugment, numbers: np.ndarray
    ) -> None:
        low, high = augment.scale
        # equal chances for a zoom and for its inverse
        zoom = low * (high / low) ** float(numbers[0])
        self.shape = tuple(max(1, round(n * zoom)) for n in shape)
        self.zoomed = self.shape != tuple(shape)
        self.size = size
        self.top, self.left = (
            int(u * (max(n - size, 0) + 1))
            for n, u in zip(self.shape, numbers[1:3].tolist(), strict=True)
        )
        self.mirror = bool(numbers[3] < augment.flip)

    def apply(self, values: np.ndarray, fill: float, smooth: bool) -> np.ndarray:
        """Return [size, size(, 3)] of [H, W(, 3)], padded below and right with `fill`.

        Args:
            values: pixels or labels.
            fill: of what lies outside of the picture.
            smooth: interpolate when zooming (pixels); labels take the nearest.
        """
        if self.zoomed:
            values = _resize(values, self.shape, smooth)
        cut = values[self.top : self.top + self.size, self.left : self.left + self.size]
        if self.mirror:
            cut = cut[:, ::-1]
        high, wide = self.size - cut.shape[0], self.size - cut.shape[1]
        if high or wide:
            edges = [(0, high), (0, wide)] + [(0, 0)] * (cut.ndim - 2)
            cut = np.pad(cut, edges, constant_values=fill)
        return np.ascontiguousarray(cut)


def _resize(values: np.ndarray, shape: tuple[int, ...], smooth: bool) -> np.ndarray:
    height, width = shape
    if smooth:
        image = Image.fromarray(values)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    rows = np.minimum((np.arange(height) + 0.5) / height * values.shape[0], values.shape[0] - 1)
    columns = np.minimum((np.arange(width) + 0.5) / width * values.shape[1], values.shape[1] - 1)
    return values[rows.astype(np.int64)[:, None], columns.astype(np.int64)[None]]


def recolour(pixels: np.ndarray, augment: DenseAugment, numbers: np.ndarray) -> np.ndarray:
    """Return float32 [H, W, 3] levels with brightness, contrast and saturation changed.

    Args:
        pixels: uint8 [H, W, 3].
        augment: `jitter` is used.
        numbers: float64 [7]; the last three are used.
    """
    out = pixels.astype(np.float32)
    if not augment.jitter:
        return out
    bright, contrast, saturation = 1 + augment.jitter * (2 * numbers[4:7] - 1)
    out = out * np.float32(bright)
    out = (out - out.mean()) * np.float32(contrast) + out.mean()
    gray = (out @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.clip((out - gray) * np.float32(saturation) + gray, 0, 255)
