"""The MobileOne block: parallel branches in training, one convolution in inference.

arXiv 2206.04040; used by the MCi towers of arXiv 2311.17049.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.fold import (
    Affine,
    FoldMode,
    batchnorm_affine,
    conv_with,
    fuse_conv_bn,
    identity_kernel,
    pad_kernel,
)
from understudy.models.image.small_map import fits_small_map, small_map_conv
from understudy.models.layers import SqueezeExcite

Size = tuple[int, int]


def pair(size: int | Size) -> Size:
    """Return (size, size) for a number; a pair as it is."""
    return (size, size) if isinstance(size, int) else size


class ConvBN(nn.Module):
    """A convolution without bias, then batch normalisation; "same" padding by default.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: kernel size; a number or (height, width).
        stride: stride of the convolution.
        groups: groups of the convolution.
        padding: zeros on each side; None pads to the same size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Size,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        high, wide = pair(kernel)
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (high, wide),
            stride=stride,
            padding=(high // 2, wide // 2) if padding is None else padding,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the normalised convolution."""
        if fits_small_map(self.conv, x):
            return self.bn(small_map_conv(self.conv, x))
        return self.bn(self.conv(x))

    def affine(self) -> Affine:
        """Return the float64 (kernel, bias) of the pair in eval mode."""
        return fuse_conv_bn(self.conv, self.bn)

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return one convolution with bias."""
        return conv_with(self.conv, *self.affine())


class FoldedBlock(nn.Module):
    """What a branched block becomes: convolution, optional squeeze-excite, optional activation."""

    def __init__(self, conv: nn.Conv2d, se: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.se, self.act = conv, se, act

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the block's output."""
        return self.act(self.se(self.conv(x)))


class MobileOneBlock(nn.Module):
    """y = act(SE(conv-BN + 1x1 conv-BN + BN)).

    The 1x1 "scale" branch exists if the kernel is larger than 1 and `scale_branch` is set; the BN
    "skip" branch exists if input and output have the same shape.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: kernel size; a number or (height, width).
        stride: stride.
        groups: convolution groups.
        se_hidden: width of the squeeze-excite bottleneck; 0 for none.
        activation: apply GELU at the end.
        scale_branch: whether a 1x1 branch is wanted.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Size,
        *,
        stride: int = 1,
        groups: int = 1,
        se_hidden: int = 0,
        activation: bool = True,
        scale_branch: bool = True,
    ) -> None:
        super().__init__()
        size = pair(kernel)
        self.conv = ConvBN(in_channels, out_channels, size, stride=stride, groups=groups)
        self.scale = (
            ConvBN(in_channels, out_channels, 1, stride=stride, groups=groups)
            if scale_branch and size != (1, 1)
            else None
        )
        same = in_channels == out_channels and stride == 1
        self.skip = nn.BatchNorm2d(out_channels) if same else None
        self.se = SqueezeExcite(out_channels, se_hidden) if se_hidden else nn.Identity()
        self.act = nn.GELU() if activation else nn.Identity()

    def forward(self, x: Float[Tensor, "batch in h w"]) -> Float[Tensor, "batch out h2 w2"]:
        """Return the block's output."""
        out = self.conv(x)
        if self.scale is not None:
            out = out + self.scale(x)
        if self.skip is not None:
            out = out + self.skip(x)
        return self.act(self.se(out))

    def affine(self) -> Affine:
        """Return the float64 (kernel, bias) of all branches together, in eval mode."""
        conv = self.conv.conv
        size = (conv.kernel_size[0], conv.kernel_size[1])
        kernel, bias = self.conv.affine()
        if self.scale is not None:
            more, shift = self.scale.affine()
            kernel, bias = kernel + pad_kernel(more, size), bias + shift
        if self.skip is not None:
            scale, shift = batchnorm_affine(self.skip)
            same = identity_kernel(conv.in_channels, conv.groups, size, conv.weight)
            kernel, bias = kernel + same * scale.reshape(-1, 1, 1, 1), bias + shift
        return kernel, bias

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the single-convolution form."""
        with torch.no_grad():
            conv = conv_with(self.conv.conv, *self.affine())
        return FoldedBlock(conv, self.se, self.act).eval()
