"""Maps at several resolutions from any image tower: what a dense head is put on.

A tower's *pyramid* is a list of (stride, map [batch, channels, height / stride, width / stride]),
finest first. Heights and widths must be multiples of the largest stride: padding, and cropping
what comes out, belong to the caller, who knows what padding means for his labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

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


def maps_through(layers: Iterable[Any], x: Tensor) -> list[Tensor]:
    """Return the map after each layer."""
    maps = []
    for layer in layers:
        x = layer(x)
        maps.append(x)
    return maps


class ConfiguredPyramid:
    """A tower whose configuration says what strides and channels its pyramid has."""

    config: Any

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position of each map; the configuration's."""
        return self.config.pyramid_strides

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each map; the configuration's."""
        return self.config.pyramid_channels


class StagedPyramid(ConfiguredPyramid):
    """A tower of a stem and stages, with a map after each stage."""

    stem: Any
    stages: Any

    def stage_maps(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the map after each stage."""
        return maps_through(self.stages, self.stem_map(x))

    def stem_map(self, x: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return what the first stage is given."""
        return self.stem(x)

    def pyramid(self, x: Float[Tensor, "batch 3 height width"]) -> Pyramid:
        """Return (stride, map) after each stage, without what stands between them and the head.

        Raises:
            ModelError: height or width is not a multiple of the last stride.
        """
        check_multiple(x, self.pyramid_strides[-1], "pyramid")
        return list(zip(self.pyramid_strides, self.stage_maps(x), strict=True))
