"""Maps of a tower at several strides, and the neck that prepares them for a head.

Convolutional towers give their natural maps (strides 4, 8, 16, 32 and, with five stages, 64). A
plain tower, such as a ViT, gives maps of one stride; transposed convolutions bring them to a
quarter, a half, the whole and twice of it (arXiv 2106.08254, arXiv 2111.06377).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError
from understudy.models.image.pyramid import HasPyramid
from understudy.models.layers import ChannelLayerNorm

SCALES = 4
"""Maps that a plain tower's are brought to."""


def is_plain(tower: HasPyramid) -> bool:
    """Say whether all maps of a tower have one stride."""
    return len(set(tower.pyramid_strides)) == 1


def map_sizes(tower: nn.Module) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return (strides, channels) of the maps that a head gets, finest first.

    Raises:
        ConfigError: a plain tower is tapped at other than one or four places.
        ModelError: the tower gives no maps, or maps whose strides do not double.
    """
    if not isinstance(tower, HasPyramid):
        raise ModelError(f"{type(tower).__name__} gives no maps at several strides (no pyramid).")
    strides, channels = tuple(tower.pyramid_strides), tuple(tower.pyramid_channels)
    if is_plain(tower):
        if len(strides) not in (1, SCALES):
            raise ConfigError(
                f"HeadConfig.taps: {len(strides)} taps of a plain tower; give {SCALES}, or one "
                "whose map serves all scales."
            )
        side = strides[0]
        return (side / 4, side / 2, float(side), 2.0 * side), (channels[-1],) * SCALES
    if any(b != 2 * a for a, b in pairwise(strides)):
        raise ModelError(
            f"{type(tower).__name__} has maps of strides {list(strides)}; heads need each to be "
            "twice the one before."
        )
    return tuple(float(s) for s in strides), channels


def map_norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation of one tapped map: `batch`, `layer` or `none`."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return ChannelLayerNorm(channels) if kind == "layer" else nn.Identity()


def _rescale(channels: int) -> nn.ModuleList:
    """Return what brings four maps of one stride to a quarter, a half, one and two of it."""
    up = nn.Sequential(
        nn.ConvTranspose2d(channels, channels, 2, stride=2),
        nn.BatchNorm2d(channels),
        nn.GELU(),
        nn.ConvTranspose2d(channels, channels, 2, stride=2),
    )
    twice = nn.ConvTranspose2d(channels, channels, 2, stride=2)
    return nn.ModuleList([up, twice, nn.Identity(), nn.MaxPool2d(2, 2)])


class Neck(nn.Module):
    """One normalisation for each tapped map, and rescaling for a plain tower.

    Args:
        tower: decides strides and channels.
        norm: see `map_norm`.

    Attributes:
        strides: pixels per position of each map, finest first.
        channels: of each map.
        multiple: sides of the input must be multiples of this.
    """

    def __init__(self, tower: nn.Module, norm: str) -> None:
        super().__init__()
        self.strides, self.channels = map_sizes(tower)
        assert isinstance(tower, HasPyramid)
        self.multiple = int(self.strides[-1])
        self.norms = nn.ModuleList(map_norm(norm, c) for c in tower.pyramid_channels)
        self.scales = _rescale(self.channels[0]) if is_plain(tower) else None

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps at `strides` with `channels`, finest first."""
        found = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        if self.scales is None:
            return found
        if len(found) == 1:
            found = found * len(self.scales)
        return [scale(m) for scale, m in zip(self.scales, found, strict=True)]
