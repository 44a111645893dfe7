"""Plain convolutional towers: stacks of 3x3 conv-BN-ReLU, for tiny images and tiny budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.fold import FoldMode, conv_with
from understudy.models.image.mobileone import ConvBN, FoldedBlock
from understudy.models.image.pyramid import (
    ConfiguredPyramid,
    Pyramid,
    check_multiple,
    maps_through,
)
from understudy.models.layers import init_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvConfig:
    """Describe a plain convolutional tower.

    Attributes:
        kind: always `"conv"`.
        image_size: side of the square input it is meant for, in pixels; others work too.
        channels: output channels of each 3x3 convolution.
        strides: stride of each convolution.
        kernel: kernel size of all of them.
        grid: side of the grid that features are averaged to before the head; 1 pools all
            positions into one, larger grids keep coarse positions (2: quadrants).
        head_bias: whether the final linear layer has a bias.
    """

    kind: Literal["conv"] = "conv"
    image_size: int = 32
    channels: tuple[int, ...] = (16, 24, 32)
    strides: tuple[int, ...] = (2, 2, 2)
    kernel: int = 3
    grid: int = 1
    head_bias: bool = False

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.strides):
            raise ConfigError(
                f"ConvConfig.strides: {len(self.strides)} values for {len(self.channels)} "
                "convolutions; give one each."
            )
        if self.grid < 1:
            raise ConfigError(f"ConvConfig.grid: expected at least 1, got {self.grid}.")

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return self.channels[-1] * self.grid**2

    @property
    def pyramid_layers(self) -> dict[int, int]:
        """Stride to the last convolution with it, counted from 0, finest first."""
        found, stride = {}, 1
        for index, step in enumerate(self.strides):
            stride *= step
            found[stride] = index
        return found

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position of each map of the pyramid: every stride once."""
        return tuple(self.pyramid_layers)

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each map of the pyramid."""
        return tuple(self.channels[index] for index in self.pyramid_layers.values())


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, kernel, stride=stride)
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the activated map."""
        return self.act(self.conv(x))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the form with batch normalisation inside the convolution."""
        conv = conv_with(self.conv.conv, *self.conv.affine())
        return FoldedBlock(conv, nn.Identity(), self.act).eval()


class ConvTower(ConfiguredPyramid, nn.Module):
    """Images to embeddings by plain convolutions and mean pooling.

    Args:
        config: the sizes.
        out_dim: width of the embedding (or number of classes); 0 returns the pooled features.
    """

    def __init__(self, config: ConvConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *config.channels[:-1])
        self.layers = nn.Sequential(
            *(
                ConvUnit(a, b, config.kernel, stride)
                for a, b, stride in zip(inputs, config.channels, config.strides, strict=True)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(config.grid) if config.grid > 1 else None
        width = config.width
        self.head = nn.Linear(width, out_dim, bias=config.head_bias) if out_dim else nn.Identity()
        self.apply(init_weights)

    def stage_maps(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the map after each convolution."""
        return maps_through(self.layers, x)

    def pyramid(self, x: Float[Tensor, "batch 3 height width"]) -> Pyramid:
        """Return (stride, map) of the last convolution of every stride.

        Raises:
            ModelError: height or width is not a multiple of the last stride.
        """
        check_multiple(x, self.pyramid_strides[-1], "pyramid")
        maps = self.stage_maps(x)
        return [(stride, maps[index]) for stride, index in self.config.pyramid_layers.items()]

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the pooled features before the head."""
        x = self.layers(x)
        return x.mean((2, 3)) if self.pool is None else self.pool(x).flatten(1)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the embedding (not normalised)."""
        return self.head(self.features(x))
