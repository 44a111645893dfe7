"""Exact folding of training branches into single convolutions.

Structural re-parameterisation (arXiv 2311.17049, sec. 4; arXiv 2303.14189; arXiv 2206.04040): the
branches of a block are linear once batch normalisation uses its running statistics, so they sum to
one convolution. All arithmetic is in float64 and the result is cast back, so that the error stays
at the rounding of the parameters' dtype.

Two depths. `"branches"` is the published re-parameterisation: its parameter counts are the
published ones, and the batch normalisations of the feed-forward and attention blocks stay.
`"all"` also folds those, and the layer scales, into neighbouring weights: no batch normalisation
is left.
"""

from __future__ import annotations

import copy
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ModelError

FoldMode = Literal["branches", "all"]
FOLD_MODES = ("branches", "all")
M = TypeVar("M", bound=nn.Module)
Affine = tuple[Tensor, Tensor]


@runtime_checkable
class Foldable(Protocol):
    """A module that knows its inference form."""

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the equivalent inference module (new; this one is left alone)."""
        ...


def batchnorm_affine(norm: nn.BatchNorm2d) -> Affine:
    """Return the float64 (scale, shift) per channel that `norm` applies in eval mode."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # type: ignore[union-attr]
    return scale, norm.bias.double() - norm.running_mean.double() * scale  # type: ignore[union-attr]


def fuse_conv_bn(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Affine:
    """Return the float64 (kernel, bias) of `norm` after `conv`.

    W' = W gamma / sqrt(var + eps); b' = beta + (b - mu) gamma / sqrt(var + eps).
    """
    scale, shift = batchnorm_affine(norm)
    kernel = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
    return kernel, shift if conv.bias is None else shift + conv.bias.double() * scale


def identity_kernel(
    channels: int, groups: int, size: tuple[int, int], like: Tensor
) -> Float[Tensor, "channels per_group height width"]:
    """Return the float64 kernel of a grouped convolution that copies its input.

    Entry [c, c mod (channels / groups), centre] is one.
    """
    per_group = channels // groups
    kernel = torch.zeros(channels, per_group, *size, dtype=torch.float64, device=like.device)
    index = torch.arange(channels, device=like.device)
    kernel[index, index % per_group, size[0] // 2, size[1] // 2] = 1.0
    return kernel


def pad_kernel(kernel: Tensor, size: tuple[int, int]) -> Float[Tensor, "out in height width"]:
    """Zero-pad a smaller odd kernel to `size`, keeping its centre."""
    high, wide = ((s - k) // 2 for s, k in zip(size, kernel.shape[-2:], strict=True))
    return F.pad(kernel, (wide, wide, high, high))


def conv_with(conv: nn.Conv2d, kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a new convolution shaped like `conv` but with this kernel and bias."""
    new = nn.Conv2d(
        conv.in_channels,
        kernel.shape[0],
        tuple(kernel.shape[-2:]),  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=True,
        device="meta",
    )
    new.weight = nn.Parameter(kernel.to(conv.weight.dtype), requires_grad=False)
    new.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    return new.eval()


def depthwise(kernel: Tensor, bias: Tensor, like: Tensor) -> nn.Conv2d:
    """Return a "same" depthwise convolution with this kernel [C, 1, h, w] and bias [C]."""
    channels, _, high, wide = kernel.shape
    new = nn.Conv2d(
        channels,
        channels,
        (high, wide),
        padding=(high // 2, wide // 2),
        groups=channels,
        device="meta",
    )
    new.weight = nn.Parameter(kernel.to(like.dtype), requires_grad=False)
    new.bias = nn.Parameter(bias.to(like.dtype), requires_grad=False)
    return new.eval()


def check_eval(module: nn.Module) -> None:
    """Raise `ModelError` when any part of `module` is in training mode."""
    for name, part in module.named_modules():
        if part.training:
            raise ModelError(
                f"fold: {name or type(module).__name__} is in training mode, but folding uses the "
                "running statistics of batch normalisation; call model.eval() first."
            )


def _replace(module: nn.Module, mode: FoldMode) -> None:
    for name, child in module.named_children():
        if isinstance(child, Foldable):
            setattr(module, name, child.folded(mode))
        else:
            _replace(child, mode)


def fold_module(module: M, mode: FoldMode = "all") -> M:
    """Return the inference form of `module`: a new module, the original untouched.

    Args:
        module: any module in eval mode; parts that define `folded` are replaced.
        mode: `"all"` or `"branches"`, see the top of this file.

    Raises:
        ModelError: some part is in training mode.
        ConfigError: an unknown mode.
    """
    check_choice(mode, FOLD_MODES, "fold")
    check_eval(module)
    with torch.no_grad():
        if isinstance(module, Foldable):
            return copy.deepcopy(module).folded(mode)  # type: ignore[return-value]
        clone = copy.deepcopy(module)
        _replace(clone, mode)
    for parameter in clone.parameters():
        parameter.requires_grad_(False)
    return clone
