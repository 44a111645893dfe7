"""A causal language model: Llama's or OpenLM's layers, with cached keys and values and any padding.

Norms before each branch, rotary positions, gated feed-forward (arXiv 2302.13971, sec. 2.2); the
options of `DecoderConfig` make it the decoder that OpenLM trains (arXiv 2406.11794, app. F). It is
what language models and small vision-language models are trained with here, and what public models
of this shape are loaded into.

Padding is known by a mask, not by a token: rows may be padded on either side, and each token's
position is given, so that padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.errors import DataError
from understudy.models.language.cache import KeyValues
from understudy.models.language.decoder_config import DecoderConfig
from understudy.models.language.documents import Documents, Way
from understudy.models.language.norms import RMSNorm, make_norm
from understudy.models.language.rope import Turns, rotate, rotations
from understudy.models.layers import INIT_STD, init_weights

__all__ = ["Decoder", "DecoderConfig", "DecoderLayer", "RMSNorm", "attention_mask"]

Embedded = Float[Tensor, "rows length width"]
Cache = list[KeyValues]
Mask = Bool[Tensor, "rows 1 queries keys"]


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + W2(silu(W1 norm(x)) * W3 norm(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, head, hidden = config.width, config.head_width, config.ffn_width
        inner, outer = config.num_heads * head, config.kv_heads * head
        self.attention_norm = make_norm(config.norm, width, config.norm_eps)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, outer, bias=False)
        self.value = nn.Linear(width, outer, bias=False)
        if config.qk_norm:
            self.query_norm = make_norm(config.norm, inner, config.norm_eps)
            self.key_norm = make_norm(config.norm, outer, config.norm_eps)
        self.out = nn.Linear(inner, width, bias=False)
        self.ffn_norm = make_norm(config.norm, width, config.norm_eps)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.unflatten(-1, (count, self.config.head_width)).transpose(1, 2)

    def forward(
        self,
        x: Embedded,
        turns: Turns,
        mask: Mask | Documents | None,
        cache: KeyValues | None,
    ) -> Embedded:
        """Return the layer's output; without a mask attention is causal."""
        config = self.config
        seen = narrowed(self.attention_norm(x))
        query, key, value = self.query(seen), self.key(seen), self.value(seen)
        if x.device.type == "cpu":
            # the processor's attention is slower in bfloat16: 2.5 times going backward
            query, key, value = widened(query), widened(key), widened(value)
        if config.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query = rotate(self._heads(query, config.num_heads), turns)
        key = rotate(self._heads(key, config.kv_heads), turns)
        value = self._heads(value, config.kv_heads)
        if cache is not None:
            key, value = cache.append(key, value)
        share = config.num_heads // config.kv_heads
        if share > 1:
            key, value = (part.repeat_interleave(share, 1) for part in (key, value))
        found = attend(query, key, value, mask).to(seen.dtype)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        seen = narrowed(self.ffn_norm(x))
        return x + self.down(F.silu(self.gate(seen)) * self.up(seen))


def autocasts(x: Tensor) -> bool:
    """Say whether autocast is on where a tensor is."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def narrowed(x: Tensor) -> Tensor:
    """Return the input of several products in autocast's dtype: one conversion serves them all."""
    return x.to(torch.get_autocast_dtype(x.device.type)) if autocasts(x) else x


def widened(x: Tensor) -> Tensor:
    """Return half-precision numbers as float32, others as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask | Documents | None) -> Tensor:
    """Return what attention finds, in the dtype of its arguments; without a mask it is causal."""
    if autocasts(query):  # it would take float32 arguments to half precision
        with torch.autocast(query.device.type, enabled=False):
            return attend(query, key, value, mask)
    if isinstance(mask, Documents):
        return mask(query, key, value)
    causal = mask is None and query.shape[2] > 1  # one new token sees every key
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def attention_mask(valid: Bool[Tensor, "rows keys"], queries: int) -> Mask | None:
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

    Attributes:
        documents: how attention inside documents is computed; see
            `understudy.models.language.documents`.
    """

    documents: Way = "auto"

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.norm = make_norm(config.norm, config.width, config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        if config.init == "fan-in":
            _init_by_fan_in(self)
        else:
            _init_fixed(self)

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

    @property
    def table(self) -> Float[Tensor, "vocabulary width"]:
        """Weights of the head."""
        return self.tokens.weight if self.head is None else self.head.weight

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Return token embeddings."""
        return self.tokens(ids)

    def logits(self, states: Embedded) -> Float[Tensor, "rows length vocabulary"]:
        """Return logits of hidden states."""
        return F.linear(states, self.table)

    def new_cache(self) -> Cache:
        """Return an empty cache: one `KeyValues` a layer."""
        return [KeyValues() for _ in self.layers]

    def states(
        self,
        embedded: Embedded,
        valid: Bool[Tensor, "rows keys"] | None = None,
        positions: Int[Tensor, "rows length"] | None = None,
        cache: Sequence[KeyValues] | None = None,
        segments: Int[Tensor, "rows length"] | None = None,
    ) -> Embedded:
        """Return the normalised hidden states that the head turns into logits; see `forward`."""
        rows, length = embedded.shape[:2]
        before = cache[0].length if cache else 0
        mask: Mask | Documents | None = None
        if segments is not None:
            if valid is not None or cache:
                raise DataError("decoder: segments go with neither padding (valid) nor a cache.")
            if segments.shape != embedded.shape[:2]:
                raise DataError(
                    f"segments: {list(segments.shape)} for {rows} rows of {length} tokens."
                )
            mask = Documents(segments, self.documents)
            positions = mask.positions if positions is None else positions
        elif valid is not None:
            mask = attention_mask(valid, length)
        elif before:
            everything = torch.ones(1, before + length, dtype=torch.bool, device=embedded.device)
            mask = attention_mask(everything, length) if length > 1 else None
        if positions is None:
            positions = torch.arange(before, before + length, device=embedded.device)[None]
        config = self.config
        turns = rotations(positions, config.head_width, config.rope_base, config.rope_scaling)
        x = embedded
        for i, layer in enumerate(self.layers):
            x = layer(x, turns, mask, cache[i] if cache else None)
        return self.norm(x)

    def forward(
        self,
        embedded: Embedded,
        valid: Bool[Tensor, "rows keys"] | None = None,
        positions: Int[Tensor, "rows length"] | None = None,
        cache: Sequence[KeyValues] | None = None,
        last: Int[Tensor, " rows"] | None = None,
        segments: Int[Tensor, "rows length"] | None = None,
    ) -> Tensor:
        """Return logits.

        Args:
            embedded: new tokens; with a cache, those that follow the ones in it.
            valid: False at padding, for all tokens, those in the cache included; None if there is
                no padding.
            positions: of the new tokens; None counts them, padding included.
            cache: `new_cache()`, or one that earlier calls filled; it is filled further.
            last: place of the one token of each row whose logits are wanted; None for all.
            segments: document number of each token: attention stays inside documents, whose
                positions restart. None for rows that are one text each.

        Returns:
            [rows, length, vocabulary], or [rows, vocabulary] with `last`.

        Raises:
            DataError: segments of another shape, or together with padding or a cache.
        """
        x = self.states(embedded, valid, positions, cache, segments)
        if last is not None:
            x = x[torch.arange(len(x), device=x.device), last][:, None]
            return self.logits(x)[:, 0]
        return self.logits(x)


def _init_fixed(decoder: Decoder) -> None:
    decoder.apply(init_weights)
    nn.init.trunc_normal_(decoder.tokens.weight, std=INIT_STD)
    for name, parameter in decoder.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            # residual branches add up: keep their sum at the size of one
            nn.init.trunc_normal_(parameter, std=INIT_STD * (2 * decoder.config.depth) ** -0.5)


def _init_by_fan_in(decoder: Decoder) -> None:
    def draw(weight: Tensor, std: float) -> None:
        nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)

    draw(decoder.tokens.weight, decoder.config.width**-0.5)
    for i, layer in enumerate(decoder.layers):
        for name, part in layer.named_children():
            if isinstance(part, nn.Linear):
                deep = 2 * (i + 1) if name in ("out", "down") else 1
                draw(part.weight, (part.in_features * deep) ** -0.5)
    if decoder.head is not None:
        draw(decoder.head.weight, decoder.config.width**-0.5)
