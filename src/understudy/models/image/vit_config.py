"""What a ViT tower looks like: the two stems, the two kinds of position table, the taps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.config import LATER, check_choice
from understudy.core.errors import ConfigError

STEMS = ("conv", "patch")
INTERPOLATIONS = ("bilinear", "bicubic")
CONV_STRIDE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """Describe a ViT.

    Attributes:
        kind: always `"vit"`.
        image_size: side of the square input of the position table, in pixels, a multiple of
            `patch_size`; other sizes work too.
        width: channels of the transformer.
        depth: number of blocks.
        num_heads: attention heads.
        ffn_ratio: feed-forward width over `width`.
        stem: `"conv"` for three convolutions of stride 16 in all (MobileCLIP-B), `"patch"` for one
            convolution without bias (CLIP).
        patch_size: stride of the stem in pixels; 16 for `"conv"`.
        stem_padding: zeros around the input of the first 4x4 convolution of `"conv"`. The released
            original checkpoints were trained with 1; OpenCLIP and timm run the same weights with 0.
        pre_norm: whether a layer normalisation precedes the blocks (CLIP).
        class_position: whether the class token has a position too (CLIP), the table's first.
        position_interpolation: how the position table is resized to another grid: `"bilinear"` or
            `"bicubic"`. Its own grid is never resized.
        norm_eps: epsilon of the layer normalisations (original 1e-5; OpenCLIP and timm 1e-6 for
            MobileCLIP-B, 1e-5 for CLIP's).
        drop_path: drop rate of the last block; rates grow linearly with depth.
        head_bias: whether the final linear layer has a bias.
        taps: the blocks, counted from 0, whose outputs are the pyramid; none: `default_taps`.
    """

    kind: Literal["vit"] = "vit"
    image_size: int = 224
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    ffn_ratio: float = 4.0
    stem: str = field(default="conv", metadata=LATER)
    patch_size: int = field(default=CONV_STRIDE, metadata=LATER)
    stem_padding: int = 1
    pre_norm: bool = field(default=False, metadata=LATER)
    class_position: bool = field(default=False, metadata=LATER)
    position_interpolation: str = field(default="bilinear", metadata=LATER)
    norm_eps: float = 1e-5
    drop_path: float = 0.0
    head_bias: bool = False
    taps: tuple[int, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        check_choice(self.stem, STEMS, "VitConfig.stem")
        check_choice(
            self.position_interpolation, INTERPOLATIONS, "VitConfig.position_interpolation"
        )
        if self.stem == "conv" and self.patch_size != CONV_STRIDE:
            raise ConfigError(
                f"VitConfig.patch_size: the convolutional stem has stride {CONV_STRIDE}, got "
                f"{self.patch_size}; use stem 'patch'."
            )
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise ConfigError(
                f"VitConfig.image_size: {self.image_size} is not a multiple of {self.patch_size}, "
                "the stride of the stem."
            )
        if self.width % self.num_heads:
            raise ConfigError(
                f"VitConfig.num_heads: {self.num_heads} does not divide width {self.width}."
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(f"VitConfig.drop_path: expected [0, 1), got {self.drop_path}.")
        wrong = [tap for tap in self.taps if not 0 <= tap < self.depth]
        if wrong:
            raise ConfigError(
                f"VitConfig.taps: there is no block {wrong[0]}; blocks are 0 to {self.depth - 1}."
            )

    @property
    def grid(self) -> int:
        """Positions along a side of the table's grid."""
        return self.image_size // self.patch_size

    @property
    def pyramid_taps(self) -> tuple[int, ...]:
        """The tapped blocks, counted from 0."""
        return self.taps or default_taps(self.depth)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position of each tapped map: all equal, a ViT has one resolution."""
        return (self.patch_size,) * len(self.pyramid_taps)

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each tapped map."""
        return (self.width,) * len(self.pyramid_taps)


def default_taps(depth: int) -> tuple[int, ...]:
    """Return four evenly spaced blocks: after a third, a half, two thirds and all of the depth.

    3, 5, 7, 11 of 12 blocks and 7, 11, 15, 23 of 24, as in the usual transfer of ViTs to dense
    tasks (arXiv 2106.08254). Fewer than six blocks repeat some; none at all has none.
    """
    ends = (depth // 3, depth // 2, depth * 2 // 3, depth)
    return tuple(max(end, 1) - 1 for end in ends) if depth else ()


VIT_B16 = VitConfig()
"""MobileCLIP-B (arXiv 2311.17049): 86.3 M parameters with a head of 512."""
VIT_L14 = VitConfig(
    width=1024,
    depth=24,
    num_heads=16,
    stem="patch",
    patch_size=14,
    pre_norm=True,
    class_position=True,
    drop_path=0.1,
)
"""CLIP's ViT-L/14 (arXiv 2103.00020) with the drop path of MobileCLIP2-L: 303,966,208 parameters
with a head of 768. The 304.3 M of arXiv 2508.20691's table is the count at 336 pixels, whose table
has 577 positions instead of 257: 304,293,888."""
VIT_NANO16 = VitConfig(
    image_size=256, width=128, depth=5, num_heads=4, ffn_ratio=3.875, stem="patch"
)
"""About 1.1 M parameters at stride 16: the plain ViT beside `MCI_NANO5`, equal within 2 %."""
