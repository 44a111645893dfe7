"""UperNet: pyramid pooling on the last map, a feature pyramid, all levels fused (1807.10221)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.image.conv import ConvUnit

POOLS = (1, 2, 3, 6)


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Return a map resized bilinearly to another map's height and width."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """The map beside its means over grids of several sizes, joined by a 3x3 block (1612.01105).

    Args:
        channels: in.
        width: out.
        pools: sides of the grids.
    """

    def __init__(self, channels: int, width: int, pools: Sequence[int] = POOLS) -> None:
        super().__init__()
        self.pools = tuple(pools)
        self.branches = nn.ModuleList(ConvUnit(channels, width, 1, 1) for _ in pools)
        self.join = ConvUnit(channels + len(self.pools) * width, width, 3, 1)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch width h w"]:
        """Return the joined map."""
        parts = [x]
        for size, branch in zip(self.pools, self.branches, strict=True):
            parts.append(resize_to(branch(F.adaptive_avg_pool2d(x, size)), x))
        return self.join(torch.cat(parts, 1))


class UperNet(nn.Module):
    """Class logits at the finest map's stride, and an auxiliary head's on the last but one.

    Args:
        channels: of the maps, finest first.
        num_classes: classes.
        width: channels (published: 512).
        hidden: channels of the auxiliary head (published: 256).
        dropout: of whole channels, before the classifiers.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, width: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.pooling = PyramidPooling(channels[-1], width)
        self.laterals = nn.ModuleList(ConvUnit(c, width, 1, 1) for c in channels[:-1])
        self.smooth = nn.ModuleList(ConvUnit(width, width, 3, 1) for _ in channels[:-1])
        self.fuse = ConvUnit(len(channels) * width, width, 3, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.aux = nn.Sequential(
            ConvUnit(channels[-2], hidden, 3, 1),
            nn.Dropout2d(dropout),
            nn.Conv2d(hidden, num_classes, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `logits`, and in training `aux`, both at a map's own stride."""
        sums = [lateral(m) for lateral, m in zip(self.laterals, maps[:-1], strict=True)]
        sums.append(self.pooling(maps[-1]))
        for i in range(len(sums) - 2, -1, -1):
            sums[i] = sums[i] + resize_to(sums[i + 1], sums[i])
        levels = [smooth(s) for smooth, s in zip(self.smooth, sums[:-1], strict=True)]
        levels = [resize_to(m, sums[0]) for m in (*levels, sums[-1])]
        out = {"logits": self.classifier(self.dropout(self.fuse(torch.cat(levels, 1))))}
        if self.training:
            out["aux"] = self.aux(maps[-2])
        return out
