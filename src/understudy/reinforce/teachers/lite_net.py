"""EfficientNet-Lite 0, 1 and 2: inverted bottlenecks with ReLU6 and no squeeze-and-excitation.

The network is EfficientNet's (arXiv 1905.11946) in its "lite" form: no squeeze-and-excitation,
ReLU6 for swish, and stem, first stage depth and head that do not grow with the size. Convolutions
are padded as TensorFlow's "same": by what the input's size needs, the odd pixel at the end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.models.fold import FoldMode, fuse_conv_bn

# (kernel, repeats, stride, expansion, channels) of each stage, before scaling
STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Width and depth multipliers."""
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Side of the input that each was trained with, in pixels."""
FEATURES = 1280
EPS = 1e-3

_TOP = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depth.conv",
    "_bn1": "depth.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def released_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released checkpoint to this module's names; others stay."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inside = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name)
        part, _, leaf = name.partition(".")
        if inside and inside[2] in _BLOCK:
            name = f"blocks.{inside[1]}.{_BLOCK[inside[2]]}.{inside[3]}"
        elif part in _TOP:
            name = f"{_TOP[part]}.{leaf}"
        renamed[name] = tensor
    return renamed


def scaled_channels(channels: int, width: float) -> int:
    """Return the multiple of 8 nearest to `channels * width`, at least 90 % of it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) positions."""

    def __init__(
        self,
        ins: int,
        outs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(ins, outs, kernel, stride, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Pad and convolve `[B, C, H, W]`."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1 and stride == 1:
            return super().forward(input)
        pads = []
        for side in (input.shape[-1], input.shape[-2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, ReLU6."""

    def __init__(
        self,
        ins: int,
        outs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = SameConv(ins, outs, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(outs, eps=EPS, momentum=0.01)
        self.act = nn.ReLU6() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, outs, H / stride, W / stride]`."""
        return self.act(self.norm(self.conv(x)))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return the convolution with the normalisation inside, then the activation."""
        old = self.conv
        with torch.device("meta"):
            new = SameConv(
                old.in_channels,
                old.out_channels,
                old.kernel_size[0],
                old.stride[0],
                old.groups,
                bias=True,
            )
        kernel, bias = fuse_conv_bn(old, self.norm)
        new.weight = nn.Parameter(kernel.to(old.weight.dtype), requires_grad=False)
        new.bias = nn.Parameter(bias.to(old.weight.dtype), requires_grad=False)
        return nn.Sequential(new, self.act).eval()


class Bottleneck(nn.Module):
    """Expand, filter each channel, project; add the input where the shapes agree."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = ins * expansion
        self.expand = ConvNorm(ins, middle) if expansion != 1 else nn.Identity()
        self.depth = ConvNorm(middle, middle, kernel, stride, groups=middle)
        self.project = ConvNorm(middle, outs, act=False)
        self.adds = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, outs, H / stride, W / stride]`."""
        out = self.project(self.depth(self.expand(x)))
        return out + x if self.adds else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite.

    Args:
        variant: `lite0`, `lite1` or `lite2`.
        num_classes: width of the output.
    """

    def __init__(self, variant: str, num_classes: int = 1000) -> None:
        super().__init__()
        check_choice(variant, SCALES, "efficientnet-lite model")
        self.variant = variant
        width, depth = SCALES[variant]
        self.stem = ConvNorm(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        channels = 32
        for i, (kernel, repeats, stride, expansion, base) in enumerate(STAGES):
            fixed = i in (0, len(STAGES) - 1)
            outs = scaled_channels(base, width)
            for j in range(repeats if fixed else math.ceil(repeats * depth)):
                blocks.append(Bottleneck(channels, outs, kernel, 1 if j else stride, expansion))
                channels = outs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, FEATURES)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return the pooled features `[B, 1280]` of pixels (level - 127) / 128."""
        return self.head(self.blocks(self.stem(images))).mean(dim=(2, 3))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return class logits `[B, num_classes]`."""
        return self.classifier(self.features(images))
