"""Small layers that several towers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

INIT_STD = 0.02
"""Standard deviation of the truncated normal for linear and FFN weights (arXiv 2311.17049)."""


def init_weights(module: nn.Module) -> None:
    """Initialise one linear layer: truncated normal weight, zero bias. Use with `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, at least `divisor` itself."""
    return max(divisor, int(value + divisor / 2) // divisor * divisor)


class DropPath(nn.Module):
    """Drop a residual branch for a random part of the samples (stochastic depth).

    Args:
        rate: probability of dropping a sample's branch, in [0, 1); kept branches are scaled by
            1 / (1 - rate). Nothing happens in eval mode.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return `x` with whole samples zeroed."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate}"


class LayerScale(nn.Module):
    """Multiply each channel of a feature map by a learned factor (arXiv 2103.17239).

    Args:
        channels: number of channels.
        init: starting value of every factor.
    """

    def __init__(self, channels: int, init: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), init))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the scaled map."""
        return x * self.gamma


class SqueezeExcite(nn.Module):
    """Gate channels by their global mean (arXiv 1709.01507): ReLU inside, sigmoid gate.

    Args:
        channels: number of channels.
        hidden: width of the bottleneck.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the gated map."""
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class LayerNormFP32(nn.LayerNorm):
    """Layer normalisation computed in float32 whatever the input's dtype."""

    def forward(self, input: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Return the normalised tensor in the input's dtype."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(
            input.dtype
        )


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a feature map (five-stage MCi, arXiv 2508.20691)."""

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map with each position's channels normalised."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
