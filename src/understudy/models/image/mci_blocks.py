"""Blocks that only the MCi towers have: the large-kernel down-sampler and attention over a map.

arXiv 2311.17049, sec. 4; arXiv 2203.06717 for the large kernel.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.attention import SelfAttention
from understudy.models.fold import FoldMode, batchnorm_affine, conv_with, pad_kernel
from understudy.models.image.mobileone import ConvBN, FoldedBlock
from understudy.models.layers import (
    ChannelLayerNorm,
    DropPath,
    LayerScale,
    SqueezeExcite,
    divisible,
)

Map = Float[Tensor, "batch channels height width"]


class LargeKernelConv(nn.Module):
    """Strided 7x7 conv-BN plus 3x3 conv-BN, squeeze-excite, GELU (arXiv 2203.06717).

    Args:
        in_channels: channels in; also the number of groups.
        out_channels: channels out, a multiple of `in_channels`.
        se: whether to gate channels (bottleneck a quarter).
    """

    def __init__(self, in_channels: int, out_channels: int, *, se: bool) -> None:
        super().__init__()
        self.large = ConvBN(in_channels, out_channels, 7, stride=2, groups=in_channels)
        self.small = ConvBN(in_channels, out_channels, 3, stride=2, groups=in_channels)
        hidden = divisible(out_channels * 0.25)
        self.se = SqueezeExcite(out_channels, hidden) if se else nn.Identity()
        self.act = nn.GELU()

    def forward(self, x: Map) -> Map:
        """Return the map at half the resolution."""
        return self.act(self.se(self.large(x) + self.small(x)))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return one 7x7 convolution: W = W7' + pad(W3', 2), b = b7' + b3'."""
        kernel, bias = self.large.affine()
        more, shift = self.small.affine()
        size = (kernel.shape[-2], kernel.shape[-1])
        conv = conv_with(self.large.conv, kernel + pad_kernel(more, size), bias + shift)
        return FoldedBlock(conv, self.se, self.act).eval()


class AttentionMixer(nn.Module):
    """x + g attention(norm(x)) over all positions of a map.

    Args:
        channels: number of channels.
        head_dim: channels per head.
        norm: `"batch"` or `"layer"`.
        layer_scale: starting value of g.
        drop_path: probability of dropping the branch.
    """

    def __init__(
        self, channels: int, head_dim: int, *, norm: str, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        batch = norm == "batch"
        self.norm = nn.BatchNorm2d(channels) if batch else ChannelLayerNorm(channels, eps=1e-5)
        self.attention = SelfAttention(channels, channels // head_dim, qkv_bias=False)
        self.layer_scale = LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Map) -> Map:
        """Return the mixed map."""
        return x + self.drop_path(self.layer_scale(attend(self.attention, self.norm(x))))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the form with scale in the projection and BN in qkv (mode `"all"`)."""
        if mode == "branches":
            return self
        qkv, proj = self.attention.qkv, self.attention.proj
        norm: nn.Module = self.norm
        if isinstance(self.norm, nn.BatchNorm2d):
            scale, shift = batchnorm_affine(self.norm)
            weight = qkv.weight.double()
            qkv = linear_with(weight * scale, weight @ shift, qkv.weight)
            norm = nn.Identity()
        g = self.layer_scale.gamma.double().flatten()
        proj = linear_with(proj.weight.double() * g[:, None], proj.bias.double() * g, proj.weight)
        self.attention.qkv, self.attention.proj = qkv, proj
        return FoldedAttention(norm, self.attention).eval()


class FoldedAttention(nn.Module):
    """x + attention(norm(x)), with the layer scale in the output projection."""

    def __init__(self, norm: nn.Module, attention: SelfAttention) -> None:
        super().__init__()
        self.norm, self.attention = norm, attention

    def forward(self, x: Map) -> Map:
        """Return the mixed map."""
        return x + attend(self.attention, self.norm(x))


def attend(attention: SelfAttention, x: Map) -> Map:
    """Apply attention to the positions of a map."""
    batch, channels, height, width = x.shape
    tokens = attention(x.flatten(2).transpose(1, 2))
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


def linear_with(weight: Tensor, bias: Tensor, like: Tensor) -> nn.Linear:
    """Return a linear layer with these parameters in the dtype of `like`."""
    new = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    new.weight = nn.Parameter(weight.to(like.dtype), requires_grad=False)
    new.bias = nn.Parameter(bias.to(like.dtype), requires_grad=False)
    return new.eval()
