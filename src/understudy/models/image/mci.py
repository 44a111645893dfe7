"""The MCi image towers: a FastViT derivative with RepMixer stages and attention at the end.

arXiv 2311.17049, sec. 4 and appendix (MCi0-2: four stages); arXiv 2508.20691 (five stages, layer
normalisation in the attention blocks, no scale branch in the stem). One configuration describes
both families and the nano sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.image.mci_blocks import AttentionMixer, LargeKernelConv
from understudy.models.image.mobileone import MobileOneBlock
from understudy.models.image.pyramid import StagedPyramid, check_multiple
from understudy.models.image.repmixer import RepCPE, RepMixerBlock, ResidualFFN
from understudy.models.layers import init_weights

Map = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MciConfig:
    """Describe an MCi tower.

    Attributes:
        kind: always `"mci"`.
        image_size: side of the square input it is meant for, in pixels; others work too.
        channels: channels per stage.
        blocks: blocks per stage.
        mixers: `"repmixer"` or `"attention"` per stage.
        ffn_ratio: feed-forward width over channels.
        se_downsample: per stage, squeeze-excite in the down-sampler that enters it (the first
            entry has no effect: nothing enters the first stage but the stem).
        positions: per stage, a conditional positional encoding before its blocks.
        attention_norm: `"batch"` or `"layer"` normalisation before attention.
        stem_scale_branch: whether the stem's blocks have 1x1 branches.
        head_dim: channels per attention head.
        mixer_kernel: kernel of the RepMixers.
        expansion: channels of the last convolution over those of the last stage.
        layer_scale: starting value of the layer scales.
        drop_path: drop rate of the last block; rates grow linearly with depth.
        head_bias: whether the final linear layer has a bias.
    """

    kind: Literal["mci"] = "mci"
    image_size: int = 256
    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 6, 10, 2)
    mixers: tuple[str, ...] = ("repmixer", "repmixer", "repmixer", "attention")
    ffn_ratio: float = 3.0
    se_downsample: tuple[bool, ...] = (False, False, True, True)
    positions: tuple[bool, ...] = (False, False, False, True)
    attention_norm: str = "batch"
    stem_scale_branch: bool = True
    head_dim: int = 32
    mixer_kernel: int = 3
    expansion: float = 2.0
    layer_scale: float = 1e-5
    drop_path: float = 0.0
    head_bias: bool = False

    def __post_init__(self) -> None:
        check_choice(self.attention_norm, ("batch", "layer"), "MciConfig.attention_norm")
        for name in ("blocks", "mixers", "se_downsample", "positions"):
            given = len(getattr(self, name))
            if given != len(self.channels):
                raise ConfigError(
                    f"MciConfig.{name}: {given} values for {len(self.channels)} stages; "
                    "give one a stage."
                )
        for mixer, channels in zip(self.mixers, self.channels, strict=True):
            check_choice(mixer, ("repmixer", "attention"), "MciConfig.mixers")
            if mixer == "attention" and channels % self.head_dim:
                raise ConfigError(
                    f"MciConfig.head_dim: {self.head_dim} does not divide {channels} channels."
                )
        for before, after in pairwise(self.channels):
            if after % before:
                raise ConfigError(
                    f"MciConfig.channels: {after} is not a multiple of {before}, which the "
                    "depthwise-grouped down-sampler needs."
                )
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(f"MciConfig.drop_path: expected [0, 1), got {self.drop_path}.")

    @property
    def width(self) -> int:
        """Channels of the expanded map and of the pooled features."""
        return int(self.channels[-1] * self.expansion)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position after each stage: 4, 8, 16, 32 (and 64)."""
        return tuple(4 * 2**stage for stage in range(len(self.channels)))

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels after each stage."""
        return self.channels


class AttentionBlock(nn.Sequential):
    """Attention over all positions, then the residual feed-forward."""

    def __init__(self, channels: int, config: MciConfig, drop_path: float) -> None:
        super().__init__()
        self.mixer = AttentionMixer(
            channels,
            config.head_dim,
            norm=config.attention_norm,
            layer_scale=config.layer_scale,
            drop_path=drop_path,
        )
        self.ffn = ResidualFFN(
            channels,
            int(channels * config.ffn_ratio),
            layer_scale=config.layer_scale,
            drop_path=drop_path,
        )


class Stage(nn.Module):
    """Down-sample (but for the first stage), encode positions, then the blocks."""

    def __init__(self, index: int, rates: list[float], config: MciConfig) -> None:
        super().__init__()
        channels = config.channels[index]
        self.downsample: nn.Module = nn.Identity()
        if index:
            self.downsample = nn.Sequential(
                LargeKernelConv(
                    config.channels[index - 1], channels, se=config.se_downsample[index]
                ),
                MobileOneBlock(channels, channels, 1),
            )
        self.positions = RepCPE(channels) if config.positions[index] else nn.Identity()
        if config.mixers[index] == "attention":
            blocks = [AttentionBlock(channels, config, rate) for rate in rates]
        else:
            blocks = [
                RepMixerBlock(
                    channels,
                    config.ffn_ratio,
                    mixer_kernel=config.mixer_kernel,
                    layer_scale=config.layer_scale,
                    drop_path=rate,
                )
                for rate in rates
            ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Map) -> Map:
        """Return the stage's map."""
        return self.blocks(self.positions(self.downsample(x)))


class MciTower(StagedPyramid, nn.Module):
    """Images to embeddings.

    Args:
        config: the sizes.
        out_dim: width of the embedding (or number of classes); 0 returns the pooled features.
    """

    def __init__(self, config: MciConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        first, last = config.channels[0], config.channels[-1]
        scale = config.stem_scale_branch
        self.stem = nn.Sequential(
            MobileOneBlock(3, first, 3, stride=2, scale_branch=scale),
            MobileOneBlock(first, first, 3, stride=2, groups=first, scale_branch=scale),
            MobileOneBlock(first, first, 1),
        )
        total = sum(config.blocks)
        rates = [config.drop_path * i / max(total - 1, 1) for i in range(total)]
        stages, start = [], 0
        for index, count in enumerate(config.blocks):
            stages.append(Stage(index, rates[start : start + count], config))
            start += count
        self.stages = nn.ModuleList(stages)
        width = config.width
        hidden = max(1, int(width * 0.0625))
        self.expand = MobileOneBlock(last, width, 3, groups=last, se_hidden=hidden)
        self.head = nn.Linear(width, out_dim, bias=config.head_bias) if out_dim else nn.Identity()
        self.apply(init_weights)

    def expanded_map(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features height_out width_out"]:
        """Return the map of the last convolution, which `features` pools.

        Its positions, row by row, are the visual tokens of arXiv 2412.13303: (R / 64)^2 of them
        for a square of R pixels and five stages, 3,072 channels wide for FastViTHD.

        Raises:
            ModelError: height or width is not a multiple of the last stride.
        """
        check_multiple(x, self.pyramid_strides[-1], "expanded_map")
        return self.expand(self.stage_maps(x)[-1])

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the pooled features before the head."""
        return self.expand(self.stage_maps(x)[-1]).mean((2, 3))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the embedding (not normalised)."""
        return self.head(self.features(x))
