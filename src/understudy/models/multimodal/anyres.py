"""Tiles of a large image: a global view and a grid of squares of the encoder's own size (AnyRes).

The grid is chosen among named sizes ("pinpoints"): the one that keeps most of the image's pixels,
then the one that wastes least. A grid of 2 x 2 squares of R pixels gives (2 * 2 + 1) (R / 64)^2
tokens and runs the encoder five times (arXiv 2412.13303, sec. 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess, fit

Pinpoint = tuple[int, int]
"""(width, height) in pixels."""


def check_pinpoints(pinpoints: Sequence[Pinpoint], size: int) -> None:
    """Refuse grids whose sides are not multiples of the encoder's size.

    Raises:
        ConfigError: none at all, or the first that does not fit.
    """
    if not pinpoints:
        raise ConfigError("AnyRes: no grid pinpoints; name at least one, such as (2048, 2048).")
    for width, height in pinpoints:
        if width < size or height < size or width % size or height % size:
            raise ConfigError(
                f"AnyRes: the pinpoint {width} x {height} is not made of squares of {size} pixels."
            )


def tiles_of(pinpoint: Pinpoint, size: int) -> int:
    """Return the encoder runs of a grid: its squares and the global view."""
    return (pinpoint[0] // size) * (pinpoint[1] // size) + 1


def best_pinpoint(height: int, width: int, pinpoints: Sequence[Pinpoint]) -> Pinpoint:
    """Return the pinpoint that keeps most of an image's pixels and then wastes least."""

    def value(pinpoint: Pinpoint) -> tuple[int, int]:
        scale = min(pinpoint[0] / width, pinpoint[1] / height)
        shown = int(width * scale) * int(height * scale)
        kept = min(shown, width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=value)


def tile(
    image: np.ndarray,
    pinpoints: Sequence[Pinpoint],
    preprocess: Preprocess,
    pinpoint: Pinpoint | None = None,
) -> list[np.ndarray]:
    """Return an image's global view and then its squares, row by row.

    Args:
        image: uint8 [H, W, 3].
        pinpoints: the grids that may be used.
        preprocess: of the encoder; `size` is the side of a square.
        pinpoint: the grid to use; None takes `best_pinpoint`.

    Returns:
        uint8 [size, size, 3] each. The image is scaled into the grid whole, the rest is black.

    Raises:
        ConfigError: a grid that is not among the pinpoints.
    """
    from PIL import Image

    size = preprocess.size
    check_pinpoints(pinpoints, size)
    if pinpoint is not None and tuple(pinpoint) not in {tuple(p) for p in pinpoints}:
        known = ", ".join(f"{w} x {h}" for w, h in pinpoints)
        raise ConfigError(
            f"AnyRes: the grid {pinpoint[0]} x {pinpoint[1]} is not among the pinpoints ({known})."
        )
    height, width = image.shape[:2]
    chosen = pinpoint or best_pinpoint(height, width, pinpoints)
    scale = min(chosen[0] / width, chosen[1] / height)
    inner = (
        max(1, min(round(width * scale), chosen[0])),
        max(1, min(round(height * scale), chosen[1])),
    )
    method = getattr(Image.Resampling, preprocess.interpolation.upper())
    small = np.asarray(Image.fromarray(image).resize(inner, method))
    canvas = np.zeros((chosen[1], chosen[0], 3), np.uint8)
    top, left = (chosen[1] - inner[1]) // 2, (chosen[0] - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    squares = [
        canvas[y : y + size, x : x + size]
        for y in range(0, chosen[1], size)
        for x in range(0, chosen[0], size)
    ]
    return [fit(image, preprocess), *squares]
