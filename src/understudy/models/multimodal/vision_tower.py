"""Images to visual tokens: a tower's last map, row by row, and the projector behind it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.image.conv import ConvConfig
from understudy.models.image.mci import MciConfig
from understudy.models.image.mci_sizes import MCI3
from understudy.models.image.mlp import MlpConfig
from understudy.models.image.pyramid import Pyramid
from understudy.models.image.vit_config import VitConfig
from understudy.models.layers import init_weights
from understudy.models.towers import ImageConfig, image_tower

FEATURES = ("last", "average", "depthwise")
PROJECTORS = ("mlp2x_gelu", "linear")
Map = Float[Tensor, "batch channels height width"]


def token_stride(config: ImageConfig, pool: int = 1) -> int:
    """Return the pixels a visual token stands for, along a side.

    Raises:
        ConfigError: a fully connected tower, which has no map.
    """
    if isinstance(config, MlpConfig):
        raise ConfigError("vision tower: a fully connected tower has no map to make tokens of.")
    if isinstance(config, VitConfig):
        return config.patch_size * pool
    return config.pyramid_strides[-1] * pool


def check_resolution(size: int, config: ImageConfig, pool: int = 1) -> None:
    """Refuse a resolution that gives no whole number of tokens.

    Raises:
        ConfigError: with the nearest legal sizes.
    """
    stride = token_stride(config, pool)
    if size < stride or size % stride:
        below = max(size // stride, 1) * stride
        above = max(-(-size // stride), 1) * stride
        near = f"{below}" if below == above else f"{below} and {above}"
        raise ConfigError(
            f"resolution: {size} pixels are not a multiple of {stride}, the stride of the visual "
            f"tokens; the nearest legal sizes are {near}."
        )


def num_tokens(size: int, config: ImageConfig, pool: int = 1) -> int:
    """Return the visual tokens of an image: (R / stride)^2, 256 at 1,024 pixels and stride 64."""
    check_resolution(size, config, pool)
    return (size // token_stride(config, pool)) ** 2


class VisionTower(nn.Module):
    """Images to visual tokens.

    Args:
        size: side R of the images in pixels.
        config: the tower; FastViTHD by default (arXiv 2412.13303).
        features: `"last"`: the last map alone, as released; `"average"` and `"depthwise"`: earlier
            stages' maps too, brought to its grid by average pooling or by strided depthwise
            convolution, one after the other along the channels (MCi towers only).
        pool: side of the squares of tokens that are averaged into one.

    Raises:
        ConfigError: a size that is no multiple of the stride, or features that the tower lacks.
    """

    def __init__(
        self,
        size: int = 1024,
        config: ImageConfig = MCI3,
        *,
        features: str = "last",
        pool: int = 1,
    ) -> None:
        super().__init__()
        check_choice(features, FEATURES, "VisionTower.features")
        if pool < 1:
            raise ConfigError(f"VisionTower.pool: expected at least 1, got {pool}.")
        check_resolution(size, config, pool)
        if features != "last" and not isinstance(config, MciConfig):
            raise ConfigError(
                f"VisionTower.features: '{features}' needs the stages of an MCi tower; a "
                f"{config.kind} tower has one map, use 'last'."
            )
        self.size, self.features, self.pool = size, features, pool
        self.tower = image_tower(config, 0)
        self.scales: nn.ModuleList | None = None
        if features == "depthwise":
            assert isinstance(config, MciConfig)
            self.scales = nn.ModuleList(
                _scale(channels, config.pyramid_strides[-1] // stride)
                for channels, stride in zip(
                    config.channels[:-1], config.pyramid_strides[:-1], strict=True
                )
            )

    @property
    def config(self) -> ImageConfig:
        """The tower's configuration."""
        return self.tower.config  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """Channels of a visual token."""
        config = self.config
        if isinstance(config, MciConfig):
            earlier = 0 if self.features == "last" else sum(config.channels[:-1])
            return config.width + earlier
        return config.width if not isinstance(config, ConvConfig) else config.channels[-1]

    @property
    def num_tokens(self) -> int:
        """Visual tokens of an image of `size` pixels."""
        return num_tokens(self.size, self.config, self.pool)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """See the tower's."""
        return self.tower.pyramid_strides  # type: ignore[return-value]

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """See the tower's."""
        return self.tower.pyramid_channels  # type: ignore[return-value]

    def pyramid(self, x: Float[Tensor, "batch 3 height width"]) -> Pyramid:
        """Return the tower's (stride, map) pairs."""
        return self.tower.pyramid(x)  # type: ignore[operator]

    def _map(self, images: Tensor) -> Map:
        tower = self.tower
        if not isinstance(self.config, MciConfig):
            return tower.stage_maps(images)[-1]  # type: ignore[operator]
        if self.features == "last":
            return tower.expanded_map(images)  # type: ignore[operator]
        maps = tower.stage_maps(images)  # type: ignore[operator]
        last = tower.expand(maps[-1])  # type: ignore[operator]
        side = last.shape[-1]
        if self.scales is None:
            earlier = [F.avg_pool2d(m, m.shape[-1] // side) for m in maps[:-1]]
        else:
            earlier = [scale(m) for scale, m in zip(self.scales, maps[:-1], strict=True)]
        return torch.cat([*earlier, last], 1)

    def tokens(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Return the visual tokens, row by row.

        Args:
            images: in [0, 1], not normalised further; sides that are multiples of the stride.

        Returns:
            [B, (R / stride)^2, channels]; 3,072 channels for FastViTHD.
        """
        found = self._map(images)
        if self.pool > 1:
            found = F.avg_pool2d(found, self.pool)
        return found.flatten(2).transpose(1, 2)

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Return `tokens`."""
        return self.tokens(images)


def _scale(channels: int, ratio: int) -> nn.Conv2d:
    """Return a strided depthwise convolution that begins as the mean of its square."""
    conv = nn.Conv2d(channels, channels, ratio, stride=ratio, groups=channels, bias=False)
    nn.init.constant_(conv.weight, 1.0 / ratio**2)
    return conv


class Projector(nn.Module):
    """Visual tokens into the language model's space.

    Args:
        in_width: channels of visual tokens.
        out_width: channels of the language model.
        kind: `"mlp2x_gelu"` (linear, GELU, linear) or `"linear"`.
    """

    def __init__(self, in_width: int, out_width: int, kind: str = "mlp2x_gelu") -> None:
        super().__init__()
        check_choice(kind, PROJECTORS, "Projector.kind")
        layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
        if kind == "mlp2x_gelu":
            layers += [nn.GELU(), nn.Linear(out_width, out_width)]
        self.layers = nn.Sequential(*layers)
        self.apply(init_weights)

    @property
    def in_width(self) -> int:
        """Channels that it takes."""
        return self.layers[0].in_features  # type: ignore[return-value]

    @property
    def out_width(self) -> int:
        """Channels that it gives."""
        return self.layers[-1].out_features  # type: ignore[return-value]

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Return the projected tokens."""
        return self.layers(x)
