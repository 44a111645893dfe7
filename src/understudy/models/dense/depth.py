"""A light depth decoder: fused maps, two enlarging blocks, a bounded positive depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from understudy.models.dense.fpn import Enlarge, FusedPyramid
from understudy.models.image.conv import ConvUnit


class DepthDecoder(nn.Module):
    """Depth in metres at four times the finest map's side.

    The output is low (high / low)^sigmoid(z): between the bounds, and linear in the logarithm that
    the scale-invariant loss compares.

    Args:
        channels: of the maps, finest first.
        width: channels of the pyramid.
        hidden: channels of the blocks; halved by each enlargement.
        low: smallest depth in metres.
        high: largest depth in metres.
    """

    def __init__(
        self, channels: Sequence[int], width: int, hidden: int, low: float, high: float
    ) -> None:
        super().__init__()
        half, quarter = max(hidden // 2, 4), max(hidden // 4, 4)
        self.fuse = FusedPyramid(channels, width, hidden)
        self.decode = nn.Sequential(
            ConvUnit(hidden, half, 3, 1),
            Enlarge(),
            ConvUnit(half, quarter, 3, 1),
            Enlarge(),
            nn.Conv2d(quarter, 1, 3, padding=1),
        )
        self.low, self.span = math.log(low), math.log(high) - math.log(low)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `depth` [B, h, w]."""
        z = self.decode(self.fuse(maps)).squeeze(1).float()
        return {"depth": (self.low + self.span * z.sigmoid()).exp()}
