"""Depthwise convolutions on maps about as small as their kernel, as one matrix product a channel.

A 7x7 kernel on a 3x3 map mostly multiplies padding, and the processor's convolution takes ten
times as long as the arithmetic needs. The same sums written as a product with the matrix that maps
input to output places take a fifth to a tenth of that, and a step of MCi-nano a quarter less.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MAX_PLACES = 144
"""Larger maps are better convolved."""


def fits_small_map(conv: nn.Conv2d, x: Tensor) -> bool:
    """Say whether `small_map_conv` is faster: depthwise square kernel, small map, processor.

    Never while a model is exported or compiled: graphs should hold a convolution.
    """
    high, wide = x.shape[-2:]
    area = conv.kernel_size[0] * conv.kernel_size[1]
    return (
        conv.groups == conv.in_channels > 1
        and min(conv.kernel_size) > 1
        and high * wide <= min(4 * area, MAX_PLACES)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and conv.bias is None
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.onnx.is_in_onnx_export()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _places(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[Tensor, tuple[int, int]]:
    """Return, for each (output, input) place, the kernel element between them, and the output size.

    An element one past the last stands for places that do not touch.
    """
    # Kept for later calls, which may train: a tensor made in inference mode could not be used then.
    with torch.inference_mode(False):
        axes, out = [], []
        for n, k, s, p in zip(size, kernel, stride, padding, strict=True):
            length = (n + 2 * p - k) // s + 1
            out.append(length)
            axes.append(torch.arange(n)[None, :] - (torch.arange(length) * s - p)[:, None])
        shape = (out[0], out[1], *size)
        rows = axes[0][:, None, :, None].expand(shape)
        columns = axes[1][None, :, None, :].expand(shape)
        inside = (rows >= 0) & (rows < kernel[0]) & (columns >= 0) & (columns < kernel[1])
        index = torch.where(inside, rows * kernel[1] + columns, kernel[0] * kernel[1])
        return index.reshape(-1), (out[0], out[1])


def small_map_conv(
    conv: nn.Conv2d, x: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch out h2 w2"]:
    """Return `conv(x)` of a depthwise convolution (any multiplier) without bias."""
    batch, channels, high, wide = x.shape
    multiplier = conv.out_channels // channels
    index, (out_high, out_wide) = _places(
        (high, wide),
        conv.kernel_size,
        conv.stride,
        conv.padding,  # type: ignore[arg-type]
    )
    elements = F.pad(conv.weight.reshape(conv.out_channels, -1), (0, 1))
    matrix = elements.index_select(1, index).view(
        channels, multiplier * out_high * out_wide, high * wide
    )
    flat = x.reshape(batch, channels, high * wide).transpose(0, 1)
    out = torch.bmm(flat, matrix.transpose(1, 2))
    out = out.view(channels, batch, multiplier, out_high * out_wide).permute(1, 0, 2, 3)
    return out.reshape(batch, conv.out_channels, out_high, out_wide)
