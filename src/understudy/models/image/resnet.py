"""ResNets whose last stage ends in as many channels as the embedding has numbers.

The backbones of arXiv 2112.02805 (FCT): ResNet of arXiv 1512.03385, whose last block projects to
`embed_dim` channels by its last convolution and by its shortcut, so that the pooled map is the
embedding itself and the classifier on it is one matrix without a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.image.mobileone import ConvBN
from understudy.models.image.pyramid import StagedPyramid

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth to blocks per stage; 18 has basic blocks, the others bottlenecks."""
PLANES = (64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """Describe a ResNet.

    Attributes:
        kind: always `"resnet"`.
        image_size: side of the square input it is meant for, in pixels; others work too.
        depth: 18, 50 or 101.
        embed_dim: channels that the last stage ends in, the width of the embedding; 0 takes the
            usual 512 (18) or 2,048.
        last_nonlin: whether the last block ends in a ReLU, so that embeddings are not negative.
        stem: `"imagenet"` (7x7 at stride 2, then pooling at stride 2) or `"small"` (3x3 at stride
            1), for pictures of some 32 pixels.
        head_bias: whether the final linear layer has a bias.
    """

    kind: Literal["resnet"] = "resnet"
    image_size: int = 224
    depth: int = 50
    embed_dim: int = 128
    last_nonlin: bool = True
    stem: str = "imagenet"
    head_bias: bool = False

    def __post_init__(self) -> None:
        check_choice(self.stem, ("imagenet", "small"), "ResNetConfig.stem")
        if self.depth not in BLOCKS:
            raise ConfigError(
                f"ResNetConfig.depth: expected {', '.join(map(str, BLOCKS))}, got {self.depth}."
            )
        if self.embed_dim < 0:
            raise ConfigError(
                f"ResNetConfig.embed_dim: expected at least 0 channels, got {self.embed_dim}."
            )

    @property
    def expansion(self) -> int:
        """Channels of a block over its planes: 1 of a basic block, 4 of a bottleneck."""
        return 1 if self.depth == 18 else 4

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return self.embed_dim or PLANES[-1] * self.expansion

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position after each stage."""
        first = 4 if self.stem == "imagenet" else 1
        return tuple(first * 2**stage for stage in range(len(PLANES)))

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels after each stage."""
        return (*(planes * self.expansion for planes in PLANES[:-1]), self.width)


class ResidualBlock(nn.Module):
    """ReLU(convolutions + shortcut): two 3x3 (basic), or 1x1, 3x3, 1x1 (bottleneck).

    Args:
        in_channels: channels in.
        planes: channels of the inner convolutions.
        out_channels: channels out.
        stride: of the (first) 3x3 convolution and of the shortcut.
        bottleneck: which kind.
        nonlin: whether a ReLU ends the block.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        out_channels: int,
        *,
        stride: int = 1,
        bottleneck: bool = True,
        nonlin: bool = True,
    ) -> None:
        super().__init__()
        if bottleneck:
            layers = [
                ConvBN(in_channels, planes, 1),
                ConvBN(planes, planes, 3, stride=stride),
                ConvBN(planes, out_channels, 1),
            ]
        else:  # both convolutions have the block's width, in the last block that of the embedding
            layers = [
                ConvBN(in_channels, out_channels, 3, stride=stride),
                ConvBN(out_channels, out_channels, 3),
            ]
        self.layers = nn.ModuleList(layers)
        same = in_channels == out_channels and stride == 1
        self.shortcut = None if same else ConvBN(in_channels, out_channels, 1, stride=stride)
        self.act = nn.ReLU()
        self.nonlin = nonlin

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the block's output."""
        out = x
        for place, layer in enumerate(self.layers):
            out = layer(out)
            if place < len(self.layers) - 1:
                out = self.act(out)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return self.act(out) if self.nonlin else out


def _stage(config: ResNetConfig, stage: int, in_channels: int) -> nn.Sequential:
    planes, blocks = PLANES[stage], BLOCKS[config.depth][stage]
    wide, last = planes * config.expansion, stage == len(PLANES) - 1
    parts = []
    for block in range(blocks):
        ends = last and block == blocks - 1
        out = config.width if ends else wide
        parts.append(
            ResidualBlock(
                in_channels,
                planes,
                out,
                stride=2 if stage and not block else 1,
                bottleneck=config.depth != 18,
                nonlin=config.last_nonlin or not ends,
            )
        )
        in_channels = out
    return nn.Sequential(*parts)


class ResNetTower(StagedPyramid, nn.Module):
    """Images to embeddings by residual stages and mean pooling.

    Args:
        config: the sizes.
        out_dim: number of classes; 0 returns the embedding itself.

    References:
        arXiv 1512.03385, table 1; the width of the last stage is that of arXiv 2112.02805.
    """

    def __init__(self, config: ResNetConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        imagenet = config.stem == "imagenet"
        self.stem = ConvBN(3, PLANES[0], 7 if imagenet else 3, stride=2 if imagenet else 1)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        inputs = (PLANES[0], *config.pyramid_channels[:-1])
        self.stages = nn.ModuleList(_stage(config, s, c) for s, c in enumerate(inputs))
        head = nn.Linear(config.width, out_dim, bias=config.head_bias) if out_dim else None
        self.head = nn.Identity() if head is None else head

    def stem_map(self, x: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return what the first stage is given."""
        return self.pool(self.act(self.stem(x)))

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the embedding: the mean of the last map, not normalised."""
        return self.stage_maps(x)[-1].mean((2, 3))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the logits, or the embedding where there is no head."""
        return self.head(self.features(x))
