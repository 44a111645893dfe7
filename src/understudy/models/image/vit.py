"""ViT towers: with a convolutional stem (MobileCLIP-B) or with plain patches (CLIP's ViT-L/14).

arXiv 2311.17049, sec. 4, for the first; its early convolutions are those of arXiv 2106.14881 and
its positions are added to the patches only. arXiv 2103.00020 for the second: the class token has a
position, and a layer normalisation precedes the blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.attention import TransformerBlock
from understudy.models.fold import FoldMode, conv_with
from understudy.models.image.mobileone import ConvBN, FoldedBlock
from understudy.models.image.pyramid import ConfiguredPyramid, Pyramid, check_multiple
from understudy.models.image.vit_config import VitConfig
from understudy.models.layers import INIT_STD, LayerNormFP32, init_weights


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


def stem_of(config: VitConfig) -> nn.Sequential:
    """Build the stem: images [B, 3, H, W] to a map [B, width, H / stride, W / stride]."""
    width = config.width
    if config.stem == "patch":
        size = config.patch_size
        return nn.Sequential(nn.Conv2d(3, width, size, stride=size, bias=False))
    quarter = max(32, width // 4)
    return nn.Sequential(
        StemUnit(3, quarter, 4, config.stem_padding),
        StemUnit(quarter, quarter, 2, 0),
        nn.Conv2d(quarter, width, 2, stride=2),
    )


class VitTower(ConfiguredPyramid, nn.Module):
    """Images to embeddings: stem, blocks, final norm, class token, linear head.

    Args:
        config: the sizes.
        out_dim: width of the embedding (or number of classes); 0 returns the class token.
    """

    def __init__(self, config: VitConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        width, eps = config.width, config.norm_eps
        self.grid = config.grid
        self.stem = stem_of(config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        rows = self.grid**2 + config.class_position
        self.positions = nn.Parameter(torch.zeros(1, rows, width))
        self.pre_norm = LayerNormFP32(width, eps=eps) if config.pre_norm else nn.Identity()
        last = max(config.depth - 1, 1)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    width,
                    config.num_heads,
                    config.ffn_ratio,
                    norm_eps=eps,
                    drop_path=config.drop_path * i / last,
                )
                for i in range(config.depth)
            )
        )
        self.norm = LayerNormFP32(width, eps=eps)
        self.head = nn.Linear(width, out_dim, bias=config.head_bias) if out_dim else nn.Identity()
        self.apply(init_weights)
        nn.init.trunc_normal_(self.class_token, std=INIT_STD)
        nn.init.trunc_normal_(self.positions, std=width**-0.5)

    def position_table(self, height: int, width: int) -> Float[Tensor, "1 positions channels"]:
        """Return the patches' positions for a grid, interpolated if it isn't the table's own."""
        table = self.positions[:, 1:] if self.config.class_position else self.positions
        if (height, width) == (self.grid, self.grid):
            return table
        square = table.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        # half precisions would round the weights of the interpolation
        resized = F.interpolate(
            square.to(torch.promote_types(square.dtype, torch.float32)),
            size=(height, width),
            mode=self.config.position_interpolation,
            align_corners=False,
        )
        return resized.to(table.dtype).flatten(2).transpose(1, 2)

    def embed(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch positions channels"]:
        """Return what the blocks take, the class token first."""
        x = self.stem(x)
        batch, _, height, width = x.shape
        x = x.flatten(2).transpose(1, 2) + self.position_table(height, width)
        first = self.class_token
        if self.config.class_position:
            first = first + self.positions[:, :1]
        return self.pre_norm(torch.cat([first.expand(batch, -1, -1), x], 1))

    def tokens(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch positions channels"]:
        """Return the normalised tokens, the class token first."""
        return self.norm(self.blocks(self.embed(x)))

    def _map(self, tokens: Tensor, pixels: Tensor) -> Float[Tensor, "batch channels height width"]:
        height, width = (side // self.config.patch_size for side in pixels.shape[-2:])
        patches = tokens[:, 1:].transpose(1, 2)
        return patches.reshape(patches.shape[0], -1, height, width)

    def stage_maps(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the normalised patch tokens as one map."""
        return [self._map(self.tokens(x), x)]

    def pyramid(self, x: Float[Tensor, "batch 3 height width"]) -> Pyramid:
        """Return (stride, map) of the tapped blocks: raw outputs, without the class token.

        All maps have the stem's stride; to make strides 4, 8, 16 and 32 of them is the head's.

        Raises:
            ModelError: height or width is not a multiple of the stride.
        """
        check_multiple(x, self.config.patch_size, "pyramid")
        tokens, maps = self.embed(x), []
        for block in self.blocks:
            tokens = block(tokens)
            maps.append(tokens)
        taps = (self._map(maps[tap], x) for tap in self.config.pyramid_taps)
        return list(zip(self.pyramid_strides, taps, strict=True))

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels"]:
        """Return the class token before the head."""
        return self.tokens(x)[:, 0]

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the embedding (not normalised)."""
        return self.head(self.features(x))
