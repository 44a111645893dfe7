"""ViT whose patch embedding is a convolutional stem (the image tower of MobileCLIP-B).

arXiv 2311.17049, sec. 4; the early convolutions are those of arXiv 2106.14881. Positions are
learned and added to the patches only, never to the class token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.attention import TransformerBlock
from understudy.models.fold import FoldMode, conv_with
from understudy.models.image.mobileone import ConvBN, FoldedBlock
from understudy.models.layers import INIT_STD, LayerNormFP32, init_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """Describe a ViT with a convolutional stem of stride 16.

    Attributes:
        kind: always `"vit"`.
        image_size: side of the square input of the position table, in pixels, a multiple of 16.
        width: channels of the transformer.
        depth: number of blocks.
        num_heads: attention heads.
        ffn_ratio: feed-forward width over `width`.
        stem_padding: zeros around the input of the first 4x4 convolution. The released original
            checkpoints were trained with 1; OpenCLIP and timm run the same weights with 0.
        norm_eps: epsilon of the layer normalisations (original 1e-5; OpenCLIP and timm 1e-6).
        drop_path: drop rate of the last block; rates grow linearly with depth.
        head_bias: whether the final linear layer has a bias.
    """

    kind: Literal["vit"] = "vit"
    image_size: int = 224
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    ffn_ratio: float = 4.0
    stem_padding: int = 1
    norm_eps: float = 1e-5
    drop_path: float = 0.0
    head_bias: bool = False

    def __post_init__(self) -> None:
        if self.image_size % 16:
            raise ConfigError(
                f"VitConfig.image_size: {self.image_size} is not a multiple of 16, the stride of "
                "the stem."
            )
        if self.width % self.num_heads:
            raise ConfigError(
                f"VitConfig.num_heads: {self.num_heads} does not divide width {self.width}."
            )


class StemUnit(nn.Module):
    """Strided convolution, batch normalisation, GELU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, kernel, stride=kernel, padding=padding)
        self.act = nn.GELU()

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the activated map."""
        return self.act(self.conv(x))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the form with batch normalisation inside the convolution."""
        conv = conv_with(self.conv.conv, *self.conv.affine())
        return FoldedBlock(conv, nn.Identity(), self.act).eval()


class VitTower(nn.Module):
    """Images to embeddings: stem, blocks, final norm, class token, linear head.

    Args:
        config: the sizes.
        out_dim: width of the embedding (or number of classes); 0 returns the class token.
    """

    def __init__(self, config: VitConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        width, quarter = config.width, max(32, config.width // 4)
        self.grid = config.image_size // 16
        self.stem = nn.Sequential(
            StemUnit(3, quarter, 4, config.stem_padding),
            StemUnit(quarter, quarter, 2, 0),
            nn.Conv2d(quarter, width, 2, stride=2),
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, self.grid**2, width))
        last = max(config.depth - 1, 1)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    width,
                    config.num_heads,
                    config.ffn_ratio,
                    norm_eps=config.norm_eps,
                    drop_path=config.drop_path * i / last,
                )
                for i in range(config.depth)
            )
        )
        self.norm = LayerNormFP32(width, eps=config.norm_eps)
        self.head = nn.Linear(width, out_dim, bias=config.head_bias) if out_dim else nn.Identity()
        self.apply(init_weights)
        nn.init.trunc_normal_(self.class_token, std=INIT_STD)
        nn.init.trunc_normal_(self.positions, std=width**-0.5)

    def position_table(self, height: int, width: int) -> Float[Tensor, "1 positions channels"]:
        """Return the position table for a grid, interpolated (bilinear) if it isn't its own."""
        if (height, width) == (self.grid, self.grid):
            return self.positions
        table = self.positions.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(height, width), mode="bilinear", align_corners=False)
        return table.flatten(2).transpose(1, 2)

    def tokens(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch positions channels"]:
        """Return the normalised tokens, the class token first."""
        x = self.stem(x)
        batch, _, height, width = x.shape
        x = x.flatten(2).transpose(1, 2) + self.position_table(height, width)
        x = torch.cat([self.class_token.expand(batch, -1, -1), x], 1)
        return self.norm(self.blocks(x))

    def stage_maps(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the patch tokens as one map of stride 16."""
        height, width = x.shape[-2] // 16, x.shape[-1] // 16
        patches = self.tokens(x)[:, 1:].transpose(1, 2)
        return [patches.reshape(patches.shape[0], -1, height, width)]

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels"]:
        """Return the class token before the head."""
        return self.tokens(x)[:, 0]

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the embedding (not normalised)."""
        return self.head(self.features(x))


VIT_B16 = VitConfig()
