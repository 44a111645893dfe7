"""Rotary positions, and the ways to stretch them over longer contexts than a model was trained on.

Channel i of a head turns together with channel i + width / 2, by position * frequency i (arXiv
2104.09864). A scaling only changes the frequencies, and YaRN also the size of what is turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError

KINDS = ("linear", "ntk", "yarn", "llama3")
Frequencies = Float[Tensor, " half"]
Turns = tuple[Tensor, Tensor]
"""Cosines and sines, float32 [rows or 1, 1, length, width / 2]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """Say how rotary positions are stretched.

    Attributes:
        kind: `"linear"` divides positions (arXiv 2306.15595), `"ntk"` raises the base,
            `"yarn"` divides slow channels only and sharpens attention (arXiv 2309.00071),
            `"llama3"` divides slow channels only, with a smooth step (Llama 3.1's code).
        factor: how many times longer the new context is; at least 1.
        original_context: tokens that the model was trained on; for `yarn` and `llama3`.
        attention_factor: `yarn`: factor of cosines and sines; 0 for 0.1 ln(factor) + 1.
        beta_fast: `yarn`: channels that turn more often than this in the original context stay.
        beta_slow: `yarn`: channels that turn less often are divided in full.
        truncate: `yarn`: round those limits to whole channels.
        low_frequency: `llama3`: waves longer than original_context / low_frequency are divided.
        high_frequency: `llama3`: waves shorter than original_context / high_frequency stay.
    """

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    factor: float
    original_context: int = 0
    attention_factor: float = 0.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_frequency: float = 1.0
    high_frequency: float = 4.0

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "RopeScaling.kind")
        if not self.factor >= 1:
            raise ConfigError(f"RopeScaling.factor: expected at least 1, got {self.factor}.")
        if self.kind in ("yarn", "llama3") and self.original_context < 1:
            raise ConfigError(
                f"RopeScaling.original_context: '{self.kind}' needs the tokens that the model was "
                f"trained on, got {self.original_context}."
            )
        if self.attention_factor < 0:
            raise ConfigError(
                f"RopeScaling.attention_factor: expected 0 or more, got {self.attention_factor}."
            )
        for low, high in (("beta_slow", "beta_fast"), ("low_frequency", "high_frequency")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ConfigError(
                    f"RopeScaling.{low}: expected more than 0 and less than {high} "
                    f"{getattr(self, high)}, got {getattr(self, low)}."
                )


def plain_frequencies(width: int, base: float, device: Any = None) -> Frequencies:
    """Return base ** (-2 i / width), float32 [width / 2] (arXiv 2104.09864, sec. 3.2.2)."""
    half = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    return base ** (-half / width)


def ntk_base(width: int, base: float, factor: float) -> float:
    """Return the base with which the slowest channel turns `factor` times slower.

    The fastest channel stays as it is (the "NTK-aware" rule; arXiv 2309.00071, sec. 3.1).
    """
    return base * factor ** (width / (width - 2)) if width > 2 else base


def yarn_frequencies(width: int, base: float, scaling: RopeScaling) -> Frequencies:
    """Return frequencies by parts: fast channels stay, slow ones are divided by the factor.

    References:
        arXiv 2309.00071, sec. 3.2 and eq. 20 to 23.
    """

    def channel(turns: float) -> float:
        ratio = scaling.original_context / (turns * 2 * math.pi)
        return width * math.log(ratio) / (2 * math.log(base))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    places = torch.arange(width // 2, dtype=torch.float32)
    divided = ((places - low) / (high - low)).clamp(0, 1)
    plain = plain_frequencies(width, base)
    return plain / scaling.factor * divided + plain * (1 - divided)


def yarn_attention(factor: float) -> float:
    """Return YaRN's factor of cosines and sines, 0.1 ln(factor) + 1 (arXiv 2309.00071, eq. 22).

    Queries and keys both get it: logits are multiplied by its square.
    """
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def llama3_frequencies(width: int, base: float, scaling: RopeScaling) -> Frequencies:
    """Return frequencies of Llama 3.1 (its code): long waves are divided, short ones stay."""
    plain = plain_frequencies(width, base)
    low, high = scaling.low_frequency, scaling.high_frequency
    waves = scaling.original_context / (2 * math.pi / plain)  # waves in the original context
    stays = ((waves - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * (1 - stays) + plain * stays


def frequencies(
    width: int, base: float, scaling: RopeScaling | None = None
) -> tuple[Frequencies, float]:
    """Return a head's frequencies and the factor of its cosines and sines.

    Args:
        width: channels of a head.
        base: of the positions.
        scaling: None for positions as they are.
    """
    if scaling is None:
        return plain_frequencies(width, base), 1.0
    if scaling.kind == "linear":
        return plain_frequencies(width, base) / scaling.factor, 1.0
    if scaling.kind == "ntk":
        return plain_frequencies(width, ntk_base(width, base, scaling.factor)), 1.0
    if scaling.kind == "yarn":
        size = scaling.attention_factor or yarn_attention(scaling.factor)
        return yarn_frequencies(width, base, scaling), size
    return llama3_frequencies(width, base, scaling), 1.0


def rotations(
    positions: Int[Tensor, "rows length"],
    width: int,
    base: float,
    scaling: RopeScaling | None = None,
) -> Turns:
    """Return the cosines and sines of positions, float32 [rows, 1, length, width / 2].

    Args:
        positions: of the tokens; one row serves all rows of a batch.
        width: channels of a head.
        base: of the positions.
        scaling: how they are stretched.
    """
    if scaling is None:  # made where they are used: a first call copies nothing to the device
        turning, size = plain_frequencies(width, base, positions.device), 1.0
    else:
        # meta tensors hold no numbers to scale
        with torch.device("cpu"):
            turning, size = frequencies(width, base, scaling)
        turning = turning.to(positions.device)
    angles = positions[:, None, :, None].float() * turning
    if size == 1.0:
        return angles.cos(), angles.sin()
    return angles.cos() * size, angles.sin() * size


class _Rotate(torch.autograd.Function):
    """Turning is linear: its gradient is the turn back, and nothing of the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return turned(grads[0], cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of the last dimension; computed in float32, in the input's dtype."""
    first, second = (half.float() for half in x.chunk(2, -1))
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    low, high = out.chunk(2, -1)
    low.copy_((first * cos).addcmul_(second, sin, value=-1))
    high.copy_((second * cos).addcmul_(first, sin))
    return out


def rotate(x: Tensor, turns: Turns) -> Tensor:
    """Turn queries or keys `[rows, heads, length, width]` by `rotations`."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return turned(x, *turns)
    return _Rotate.apply(x, *turns)  # type: ignore[return-value]
