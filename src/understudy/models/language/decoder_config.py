"""What a causal decoder looks like: Llama's and OpenLM's layers, their differences as options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.config import LATER, check_choice
from understudy.core.errors import ConfigError
from understudy.models.language.norms import NORMS
from understudy.models.language.rope import RopeScaling

INITS = ("fixed", "fan-in")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Describe a decoder.

    Attributes:
        kind: always `"decoder"`.
        vocab_size: number of token ids.
        context: tokens a sequence may have, visual tokens included.
        width: channels.
        depth: number of layers.
        num_heads: attention heads; their width must be even.
        num_kv_heads: heads of keys and values; 0 for as many as `num_heads`.
        hidden: width of the gated feed-forward; 0 for 8/3 of `width`, up to a multiple of
            `ffn_multiple`.
        norm_eps: epsilon of the norms.
        rope_base: base of the rotary positions.
        tied: whether the head is the embedding table.
        norm: `"rms"` (Llama), or `"layer"`: layer normalisation without a bias (OpenLM).
        qk_norm: normalise queries and keys over their whole projected width, before heads are
            formed and turned (OpenLM; arXiv 2302.05442, sec. 2.1).
        ffn_multiple: see `hidden`; OpenLM has 256.
        head_dim: channels of a head; 0 for `width / num_heads`.
        rope_scaling: how rotary positions are stretched; None for as they are.
        init: `"fixed"`: standard deviation 0.02, output projections divided by sqrt(2 depth);
            `"fan-in"`: 1 / sqrt(fan-in), output projections of layer l (from 0) divided by
            sqrt(2 (l + 1)), all cut at three deviations (OpenLM; arXiv 1908.11365).
    """

    kind: Literal["decoder"] = "decoder"
    vocab_size: int = 512
    context: int = 512
    width: int = 192
    depth: int = 5
    num_heads: int = 6
    num_kv_heads: int = 0
    hidden: int = 0
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    tied: bool = True
    norm: Literal["rms", "layer"] = field(default="rms", metadata=LATER)
    qk_norm: bool = field(default=False, metadata=LATER)
    ffn_multiple: int = field(default=32, metadata=LATER)
    head_dim: int = field(default=0, metadata=LATER)
    rope_scaling: RopeScaling | None = field(default=None, metadata=LATER)
    init: Literal["fixed", "fan-in"] = field(default="fixed", metadata=LATER)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "width", "depth", "num_heads", "ffn_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"DecoderConfig.{name}: expected at least 1, got {getattr(self, name)}."
                )
        for name in ("num_kv_heads", "hidden", "head_dim"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"DecoderConfig.{name}: expected at least 0, got {getattr(self, name)}."
                )
        for name in ("norm_eps", "rope_base"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"DecoderConfig.{name}: expected more than 0, got {getattr(self, name)}."
                )
        check_choice(self.norm, NORMS, "DecoderConfig.norm")
        check_choice(self.init, INITS, "DecoderConfig.init")
        if self.head_dim % 2:
            raise ConfigError(f"DecoderConfig.head_dim: expected even, got {self.head_dim}.")
        if not self.head_dim and (self.width % self.num_heads or self.width // self.num_heads % 2):
            raise ConfigError(
                f"DecoderConfig.num_heads: {self.num_heads} heads of width {self.width} are not of "
                "an even whole width."
            )
        if self.num_heads % self.kv_heads:
            raise ConfigError(
                f"DecoderConfig.num_kv_heads: {self.kv_heads} does not divide {self.num_heads}."
            )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.head_dim or self.width // self.num_heads

    @property
    def ffn_width(self) -> int:
        """Width of the gated feed-forward."""
        step = self.ffn_multiple
        return self.hidden or -(-self.width * 8 // 3 // step) * step
