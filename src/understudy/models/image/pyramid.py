"""Maps at several resolutions from any image tower: what a dense head is put on.

A tower's *pyramid* is a list of (stride, map [batch, channels, height / stride, width / stride]),
finest first. Heights and widths must be multiples of the largest stride: padding, and cropping
what comes out, belong to the caller, who knows what padding means for his labels.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ModelError

Pyramid = list[tuple[int, Tensor]]


@runtime_checkable
class HasPyramid(Protocol):
    """An image tower that can be the backbone of a dense head."""

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position of each map, in the order of `pyramid`."""
        ...

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each map, in the order of `pyramid`."""
        ...

    def pyramid(self, x: Tensor) -> Pyramid:
        """Return (stride, map) pairs."""
        ...


def check_multiple(x: Float[Tensor, "batch 3 height width"], stride: int, what: str) -> None:
    """Refuse pixels whose sides are not multiples of a stride.

    Raises:
        ModelError: with the nearest sizes that would do.
    """
    height, width = x.shape[-2:]
    if height % stride or width % stride or not height or not width:
        down, up = (
            " x ".join(str(max(stride, (side + add) // stride * stride)) for side in x.shape[-2:])
            for add in (0, stride - 1)
        )
        raise ModelError(
            f"{what}: {height} x {width} pixels are not multiples of {stride}, the stride of the "
            f"last map; pad to {up} or crop to {down}."
        )
