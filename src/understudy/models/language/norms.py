"""Normalisation of language models: root mean square, or layers without a bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Channels = Float[Tensor, "*batch width"]
NORMS = ("rms", "layer")


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Channels) -> Channels:
        """Return the normalised tokens in the input's dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


class GainNorm(nn.Module):
    """(x - mean(x)) / std(x) * weight: layer normalisation without a bias, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Channels) -> Channels:
        """Return the normalised tokens in the input's dtype."""
        found = F.layer_norm(x.float(), self.weight.shape, self.weight.float(), None, self.eps)
        return found.to(x.dtype)


def make_norm(kind: str, width: int, eps: float) -> nn.Module:
    """Return a norm: `"rms"` or `"layer"`."""
    return RMSNorm(width, eps) if kind == "rms" else GainNorm(width, eps)
