"""The parts of a CoCa captioner: attentional pooling, a text encoder, a decoder that looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.models.attention import TransformerBlock
from understudy.models.language.cache import KeyValues
from understudy.models.layers import LayerNormFP32, init_weights
from understudy.models.text.transformer import TextConfig

Tokens = Float[Tensor, "batch length width"]
Caches = Sequence[KeyValues | None]


def grid_positions(height: int, width: int, channels: int) -> Float[Tensor, "positions channels"]:
    """Return fixed sines and cosines of the rows and columns of a map, row by row.

    A quarter of the channels each for sines and cosines of both (arXiv 1706.03762, sec. 3.5, in
    two dimensions); channels that are left over are 0.
    """
    quarter = channels // 4
    rates = 0.01 ** (torch.arange(quarter) / max(quarter, 1))
    rows = torch.arange(height)[:, None] * rates
    columns = torch.arange(width)[:, None] * rates
    out = torch.zeros(height, width, channels)
    for part, (table, dim) in enumerate(((rows, 1), (columns, 0))):
        values = torch.cat([table.sin(), table.cos()], dim=1).unsqueeze(dim)
        out[..., part * 2 * quarter : (part + 1) * 2 * quarter] = values
    return out.flatten(0, 1)


class CrossAttention(nn.Module):
    """Multi-head attention of tokens over a context of another width.

    Args:
        width: of the tokens, and inside.
        context_width: of the context.
        num_heads: must divide `width`.
    """

    def __init__(self, width: int, context_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.proj = nn.Linear(width, width)

    def _heads(self, x: Tensor) -> Float[Tensor, "batch heads length width"]:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)

    def keys(self, context: Tokens) -> KeyValues:
        """Return keys and values of a context, which every query may use again."""
        return KeyValues(self._heads(self.key(context)), self._heads(self.value(context)))

    def forward(self, x: Tokens, context: KeyValues) -> Tokens:
        """Return what the tokens find in the context."""
        batch, length, width = x.shape
        assert context.key is not None
        assert context.value is not None
        query = self._heads(self.query(x))
        out = F.scaled_dot_product_attention(query, context.key, context.value)
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class AttentionalPooler(nn.Module):
    """Learned queries that read an image's tokens (arXiv 2205.01917, sec. 3.2).

    Args:
        width: of the queries.
        context_width: of the image's tokens.
        num_heads: attention heads.
        num_queries: how many vectors come out.
    """

    def __init__(self, width: int, context_width: int, num_heads: int, num_queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, width) * width**-0.5)
        self.norm_query = LayerNormFP32(width)
        self.norm_context = LayerNormFP32(context_width)
        self.attention = CrossAttention(width, context_width, num_heads)

    def forward(self, x: Tokens) -> Float[Tensor, "batch queries width"]:
        """Return what each query found."""
        queries = self.norm_query(self.queries).expand(len(x), -1, -1)
        return self.attention(queries, self.attention.keys(self.norm_context(x)))


class CrossBlock(nn.Module):
    """x + cross-attention(norm(x), norm(context)), then x + FFN(norm(x)) with GELU.

    Args:
        width: of tokens and context.
        num_heads: attention heads.
        ffn_ratio: width of the feed-forward as a multiple of `width`.
    """

    def __init__(self, width: int, num_heads: int, ffn_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(width * ffn_ratio)
        self.norm1 = LayerNormFP32(width)
        self.norm_context = LayerNormFP32(width)
        self.attention = CrossAttention(width, width, num_heads)
        self.norm2 = LayerNormFP32(width)
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def keys(self, context: Tokens) -> KeyValues:
        """Return keys and values of a context."""
        return self.attention.keys(self.norm_context(context))

    def forward(self, x: Tokens, context: KeyValues) -> Tokens:
        """Return the block's output."""
        x = x + self.attention(self.norm1(x), context)
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class CaptionEncoder(nn.Module):
    """The unimodal text tower: causal tokens, and a class token after them that sums them up.

    The class token attends to the text up to its end and to itself. Released OpenCLIP weights were
    trained with that mask shifted by one place (`legacy`): it sees one padding position more, and
    itself only in texts that fill the context; a token of id 0 hides the one after it from all.

    Args:
        config: sizes; `context_length` counts the tokens without the class token.
        out_dim: width of the embedding.
        legacy: use the shifted mask.
    """

    def __init__(self, config: TextConfig, out_dim: int, legacy: bool) -> None:
        super().__init__()
        self.legacy = legacy
        width = config.width
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(config.context_length + 1, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, config.ffn_ratio, causal=True)
            for _ in range(config.depth)
        )
        self.norm = LayerNormFP32(width)
        self.head = nn.Linear(width, out_dim, bias=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.tokens.weight, std=width**-0.5)
        nn.init.trunc_normal_(self.positions, std=width**-0.5)
        nn.init.trunc_normal_(self.class_token, std=width**-0.5)

    def _mask(self, texts: Int[Tensor, "batch length"]) -> Tensor:
        """Return bool [B, 1, L + 1, L + 1]: causal, and no padding for the class token."""
        batch, length = texts.shape
        size = length + 1
        own = torch.ones(batch, 1, dtype=torch.bool, device=texts.device)
        causal = torch.ones(size, size, dtype=torch.bool, device=texts.device).tril()
        if self.legacy:
            valid = torch.cat([own, texts != 0], dim=1)
            return causal & valid[:, None, None, :]
        places = torch.arange(length, device=texts.device)
        valid = torch.cat([places <= texts.argmax(-1, keepdim=True), own], dim=1)
        mask = causal.expand(batch, 1, size, size).clone()
        mask[:, 0, -1] = valid
        return mask

    def forward(
        self, texts: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch out"], Tokens]:
        """Return embeddings (not normalised), and the states of all tokens for the decoder."""
        x = torch.cat([self.tokens(texts), self.class_token.expand(len(texts), 1, -1)], dim=1)
        x = x + self.positions[: x.shape[1]]
        mask = self._mask(texts)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.head(self.norm(x[:, -1])), x[:, :-1]

    def follow(self, texts: Int[Tensor, "batch new"], caches: Sequence[KeyValues]) -> Tokens:
        """Return the states of new tokens after those in the caches."""
        start = caches[0].length
        x = self.tokens(texts) + self.positions[start : start + texts.shape[1]]
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, cache)
        return x


class CaptionDecoder(nn.Module):
    """The multimodal decoder: causal self-attention and cross-attention to the image by turns.

    Args:
        config: sizes of the text side.
        depth: pairs of blocks.
    """

    def __init__(self, config: TextConfig, depth: int) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, config.ffn_ratio, causal=True)
            for _ in range(depth)
        )
        self.cross = nn.ModuleList(
            CrossBlock(width, config.num_heads, config.ffn_ratio) for _ in range(depth)
        )
        self.norm = LayerNormFP32(width)
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        self.apply(init_weights)

    def keys(self, image: Tokens) -> list[KeyValues]:
        """Return keys and values of an image's tokens for every cross-attention."""
        return [block.keys(image) for block in self.cross]  # type: ignore[operator]

    def forward(
        self, x: Tokens, image: Sequence[KeyValues], caches: Caches = ()
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Return the logits of the token that follows each token.

        Args:
            x: states of the text encoder; with caches, those that follow the ones in them.
            image: see `keys`.
            caches: of the self-attention; empty for whole texts.
        """
        for block, cross, keys, cache in zip(
            self.blocks, self.cross, image, caches or [None] * len(self.blocks), strict=True
        ):
            x = cross(block(x, cache), keys)
        return self.head(self.norm(x))
