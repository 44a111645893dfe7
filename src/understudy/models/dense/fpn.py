"""Semantic FPN: a feature pyramid whose levels are summed at stride 4 (arXiv 1901.02446)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.image.conv import ConvUnit


def enlarge(x: Tensor, factor: int, mode: str = "bilinear") -> Tensor:
    """Return a map enlarged by a factor, bilinear (corners not aligned) or nearest."""
    if mode == "nearest":
        return F.interpolate(x, scale_factor=factor, mode=mode)
    return F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)


class Enlarge(nn.Module):
    """Enlarge a map twofold, bilinearly."""

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h2 w2"]:
        """Return the larger map."""
        return enlarge(x, 2)


class FeaturePyramid(nn.Module):
    """1x1 laterals, top-down sums with nearest enlargement, 3x3 smoothing.

    Args:
        channels: of the maps, finest first; each has half the side of the one before.
        width: channels out.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map of `width` channels for each map."""
        sums = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for i in range(len(sums) - 2, -1, -1):
            sums[i] = sums[i] + enlarge(sums[i + 1], 2, "nearest")
        return [smooth(s) for smooth, s in zip(self.smooth, sums, strict=True)]


class FusedPyramid(nn.Module):
    """The pyramid's levels, each brought to the finest level by conv-norm-ReLU blocks, summed.

    Level k > 0 takes k blocks, each followed by a twofold enlargement; level 0 one block.

    Args:
        channels: of the maps, finest first.
        width: channels of the pyramid.
        hidden: channels out.
    """

    def __init__(self, channels: Sequence[int], width: int, hidden: int) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(channels, width)
        self.levels = nn.ModuleList()
        for k in range(len(channels)):
            steps: list[nn.Module] = []
            for j in range(max(1, k)):
                steps.append(ConvUnit(width if j == 0 else hidden, hidden, 3, 1))
                if k:
                    steps.append(Enlarge())
            self.levels.append(nn.Sequential(*steps))

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch hidden h w"]:
        """Return the sum at the finest map's stride."""
        found = self.pyramid(maps)
        total = self.levels[0](found[0])
        for level, m in zip(self.levels[1:], found[1:], strict=True):
            total = total + level(m)
        return total


class SemanticFpn(nn.Module):
    """Class logits at the finest map's stride.

    Args:
        channels: of the maps, finest first.
        num_classes: classes.
        width: channels of the pyramid (published: 256).
        hidden: channels of the blocks (published: 128).
        dropout: of whole channels, before the classifier.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, width: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.fuse = FusedPyramid(channels, width, hidden)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `logits` [B, classes, h, w]."""
        return {"logits": self.classifier(self.dropout(self.fuse(maps)))}


class LinearProbe(nn.Module):
    """A 1x1 convolution on the last map.

    Args:
        channels: of the maps; only the last is used.
        num_classes: classes.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels[-1], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `logits` [B, classes, h, w] at the last map's stride."""
        return {"logits": self.classifier(maps[-1])}
