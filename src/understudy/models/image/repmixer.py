"""RepMixer token mixing, convolutional feed-forward and positional encoding, and their folds.

arXiv 2303.14189 (FastViT), as used by arXiv 2311.17049. The same blocks serve images, with square
kernels, and text, with (1, k) kernels on [batch, width, 1, length].
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.fold import (
    FoldMode,
    batchnorm_affine,
    conv_with,
    depthwise,
    fuse_conv_bn,
    identity_kernel,
)
from understudy.models.image.mobileone import ConvBN, MobileOneBlock, Size, pair
from understudy.models.layers import INIT_STD, DropPath, LayerScale

Map = Float[Tensor, "batch channels height width"]


class RepMixer(nn.Module):
    """x + g (Mix(x) - Norm(x)): Mix a depthwise MobileOne block, Norm one batch normalisation.

    Args:
        channels: number of channels.
        kernel: kernel of the depthwise mixing.
        scale_branch: give Mix a 1x1 branch (images do, text does not).
        layer_scale: starting value of g.
    """

    def __init__(
        self,
        channels: int,
        kernel: int | Size = 3,
        *,
        scale_branch: bool = True,
        layer_scale: float = 1e-5,
    ) -> None:
        super().__init__()
        self.mix = MobileOneBlock(
            channels,
            channels,
            kernel,
            groups=channels,
            activation=False,
            scale_branch=scale_branch,
        )
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = LayerScale(channels, layer_scale)

    def forward(self, x: Map) -> Map:
        """Return the mixed map."""
        return x + self.layer_scale(self.mix(x) - self.norm(x))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return one depthwise convolution: W = E + g (W_mix - W_norm), b = g (b_mix - b_norm)."""
        conv = self.mix.conv.conv
        kernel, bias = self.mix.affine()
        size = (kernel.shape[-2], kernel.shape[-1])
        same = identity_kernel(conv.in_channels, conv.groups, size, conv.weight)
        scale, shift = batchnorm_affine(self.norm)
        g = self.layer_scale.gamma.double()
        kernel = same + g.unsqueeze(-1) * (kernel - same * scale.reshape(-1, 1, 1, 1))
        return depthwise(kernel, g.flatten() * (bias - shift), conv.weight)


class ConvFFN(nn.Module):
    """Depthwise convolution and BN, then 1x1, GELU, 1x1.

    Args:
        channels: number of channels in and out.
        hidden: width between the two 1x1 convolutions.
        kernel: kernel of the depthwise convolution.
    """

    def __init__(self, channels: int, hidden: int, kernel: int | Size = 7) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels, kernel, groups=channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        for conv in (self.conv.conv, self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=INIT_STD)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Map) -> Map:
        """Return the feed-forward output (no residual)."""
        return self.fc2(self.act(self.fc1(self.conv(x))))


class FoldedFFN(nn.Module):
    """A feed-forward with its residual: batch normalisation and layer scale are in the weights."""

    def __init__(self, conv: nn.Conv2d, fc1: nn.Conv2d, fc2: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.fc1, self.act, self.fc2 = conv, fc1, nn.GELU(), fc2

    def forward(self, x: Map) -> Map:
        """Return x plus its feed-forward."""
        return x + self.fc2(self.act(self.fc1(self.conv(x))))


class ResidualFFN(nn.Module):
    """x + drop(g ConvFFN(x)).

    Args:
        channels: number of channels.
        hidden: width between the two 1x1 convolutions.
        kernel: kernel of the depthwise convolution.
        layer_scale: starting value of g.
        drop_path: probability of dropping the branch.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel: int | Size = 7,
        *,
        layer_scale: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.ffn = ConvFFN(channels, hidden, kernel)
        self.layer_scale = LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Map) -> Map:
        """Return x plus the scaled feed-forward."""
        return x + self.drop_path(self.layer_scale(self.ffn(x)))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the form without BN and layer scale; itself in mode `"branches"`."""
        if mode == "branches":
            return self
        ffn = self.ffn
        conv = conv_with(ffn.conv.conv, *fuse_conv_bn(ffn.conv.conv, ffn.conv.bn))
        g = self.layer_scale.gamma.double()
        assert ffn.fc2.bias is not None
        fc2 = conv_with(
            ffn.fc2,
            ffn.fc2.weight.double() * g.unsqueeze(-1),
            ffn.fc2.bias.double() * g.flatten(),
        )
        return FoldedFFN(conv, ffn.fc1, fc2).eval()


class RepMixerBlock(nn.Module):
    """RepMixer, then the residual feed-forward.

    Args:
        channels: number of channels.
        ffn_ratio: width of the feed-forward as a multiple of `channels`.
        mixer_kernel: kernel of the token mixing.
        ffn_kernel: kernel of the feed-forward's depthwise convolution.
        scale_branch: see `RepMixer`.
        layer_scale: starting value of both layer scales.
        drop_path: probability of dropping the feed-forward.
    """

    def __init__(
        self,
        channels: int,
        ffn_ratio: float,
        *,
        mixer_kernel: int | Size = 3,
        ffn_kernel: int | Size = 7,
        scale_branch: bool = True,
        layer_scale: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.mixer = RepMixer(
            channels, mixer_kernel, scale_branch=scale_branch, layer_scale=layer_scale
        )
        self.ffn = ResidualFFN(
            channels,
            int(channels * ffn_ratio),
            ffn_kernel,
            layer_scale=layer_scale,
            drop_path=drop_path,
        )

    def forward(self, x: Map) -> Map:
        """Return the block's output."""
        return self.ffn(self.mixer(x))


class RepCPE(nn.Module):
    """Conditional positional encoding: x plus a depthwise convolution of x, with bias.

    Args:
        channels: number of channels.
        kernel: kernel size.
    """

    def __init__(self, channels: int, kernel: int | Size = 7) -> None:
        super().__init__()
        high, wide = pair(kernel)
        self.conv = nn.Conv2d(
            channels, channels, (high, wide), padding=(high // 2, wide // 2), groups=channels
        )

    def forward(self, x: Map) -> Map:
        """Return the map with positions encoded."""
        return x + self.conv(x)

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return one depthwise convolution: W = E + W_pe, b = b_pe."""
        conv = self.conv
        size = (conv.kernel_size[0], conv.kernel_size[1])
        same = identity_kernel(conv.in_channels, conv.groups, size, conv.weight)
        assert conv.bias is not None
        with torch.no_grad():
            return conv_with(conv, same + conv.weight.double(), conv.bias.double())
