"""A small causal language model: Llama's layers, with cached keys and values and any padding.

Root-mean-square norms, rotary positions, gated feed-forward (arXiv 2302.13971, sec. 2.2). It is
what small vision-language models are trained with here, and what the tiny public models of this
shape are loaded into (`understudy.models.language.llama2c`).

Padding is known by a mask, not by a token: rows may be padded on either side, and each token's
position is given, so that padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.language.cache import KeyValues
from understudy.models.layers import INIT_STD, init_weights

Embedded = Float[Tensor, "rows length width"]
Cache = list[KeyValues]


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
        hidden: width of the gated feed-forward; 0 for 8/3 of `width`, up to a multiple of 32.
        norm_eps: epsilon of the norms.
        rope_base: base of the rotary positions.
        tied: whether the head is the embedding table.
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

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "width", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"DecoderConfig.{name}: expected at least 1, got {getattr(self, name)}."
                )
        if self.width % self.num_heads or self.width // self.num_heads % 2:
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
        return self.width // self.num_heads

    @property
    def ffn_width(self) -> int:
        """Width of the gated feed-forward."""
        return self.hidden or -(-self.width * 8 // 3 // 32) * 32


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Embedded) -> Embedded:
        """Return the normalised tokens in the input's dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


def rotations(
    positions: Int[Tensor, "rows length"], width: int, base: float
) -> tuple[Float[Tensor, "rows 1 length width"], Float[Tensor, "rows 1 length width"]]:
    """Return the cosines and sines of rotary positions (arXiv 2104.09864), float32.

    Channel i turns together with channel i + width / 2, by position / base ** (2 i / width).
    """
    half = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * base ** (-half / width)
    angles = torch.cat([angles, angles], -1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys `[rows, heads, length, width]` by `rotations`."""
    first, second = x.float().chunk(2, -1)
    turned = x.float() * turns[0] + torch.cat([-second, first], -1) * turns[1]
    return turned.to(x.dtype)


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + W2(silu(W1 norm(x)) * W3 norm(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, head, hidden = config.width, config.head_width, config.ffn_width
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, config.kv_heads * head, bias=False)
        self.value = nn.Linear(width, config.kv_heads * head, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.ffn_norm = RMSNorm(width, config.norm_eps)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.reshape(*x.shape[:2], count, self.config.head_width).transpose(1, 2)

    def forward(
        self,
        x: Embedded,
        turns: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "rows 1 queries keys"] | None,
        cache: KeyValues | None,
    ) -> Embedded:
        """Return the layer's output; without a mask attention is causal."""
        seen = self.attention_norm(x)
        query = rotate(self._heads(self.query(seen), self.config.num_heads), turns)
        key = rotate(self._heads(self.key(seen), self.config.kv_heads), turns)
        value = self._heads(self.value(seen), self.config.kv_heads)
        if cache is not None:
            key, value = cache.append(key, value)
        share = self.config.num_heads // self.config.kv_heads
        if share > 1:
            key, value = (part.repeat_interleave(share, 1) for part in (key, value))
        found = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None
        )
        x = x + self.out(found.transpose(1, 2).reshape(x.shape))
        seen = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(seen)) * self.up(seen))


def attention_mask(
    valid: Bool[Tensor, "rows keys"], queries: int
) -> Bool[Tensor, "rows 1 queries keys"] | None:
    """Return what each of the last `queries` tokens may look at: earlier valid ones and itself.

    None stands for plain causal attention: all is valid and every key is a query. A padding token
    looks at itself, so that nothing is divided by zero.
    """
    keys = valid.shape[1]
    if queries == keys and bool(valid.all()):
        return None
    places = torch.arange(keys, device=valid.device)
    own = places[keys - queries :, None]
    causal = (places[None] <= own) & valid[:, None]
    return (causal | (places[None] == own))[:, None]


class Decoder(nn.Module):
    """Token embeddings to the next tokens' logits.

    Args:
        config: the sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.tokens.weight, std=INIT_STD)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                # residual branches add up: keep their sum at the size of one
                nn.init.trunc_normal_(parameter, std=INIT_STD * (2 * config.depth) ** -0.5)

    @property
    def width(self) -> int:
        """Channels of the embeddings."""
        return self.config.width

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    @property
    def context(self) -> int:
        """Tokens a sequence may have."""
        return self.config.context

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Return token embeddings."""
        return self.tokens(ids)

    def logits(self, states: Embedded) -> Float[Tensor, "rows length vocabulary"]:
        """Return logits of hidden states."""
        table = self.tokens.weight if self.head is None else self.head.weight
        return F.linear(states, table)

    def new_cache(self) -> Cache:
        """Return an empty cache: one `KeyValues` a layer."""
        return [KeyValues() for _ in self.layers]

    def forward(
        self,
        embedded: Embedded,
        valid: Bool[Tensor, "rows keys"] | None = None,
        positions: Int[Tensor, "rows length"] | None = None,
        cache: Sequence[KeyValues] | None = None,
        last: Int[Tensor, " rows"] | None = None,
    ) -> Tensor:
        """Return logits.

        Args:
            embedded: new tokens; with a cache, those that follow the ones in it.
            valid: False at padding, for all tokens, those in the cache included; None if there is
                no padding.
            positions: of the new tokens; None counts them, padding included.
            cache: `new_cache()`, or one that earlier calls filled; it is filled further.
            last: place of the one token of each row whose logits are wanted; None for all.

        Returns:
            [rows, length, vocabulary], or [rows, vocabulary] with `last`.
        """
        rows, length = embedded.shape[:2]
        before = cache[0].length if cache else 0
        if positions is None:
            places = torch.arange(before, before + length, device=embedded.device)
            positions = places.expand(rows, -1)
        if valid is None:
            valid = torch.ones(rows, before + length, dtype=torch.bool, device=embedded.device)
        mask = attention_mask(valid, length)
        turns = rotations(positions, self.config.head_width, self.config.rope_base)
        x = embedded
        for i, layer in enumerate(self.layers):
            x = layer(x, turns, mask, cache[i] if cache else None)
        x = self.norm(x)
        if last is not None:
            x = x[torch.arange(rows, device=x.device), last][:, None]
            return self.logits(x)[:, 0]
        return self.logits(x)
