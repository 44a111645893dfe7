"""Self-attention and the pre-norm transformer block of the text towers and the ViT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.models.language.cache import KeyValues
from understudy.models.layers import DropPath, LayerNormFP32

Tokens = Float[Tensor, "batch length width"]
Mask = Bool[Tensor, "batch 1 queries keys"]
"""True where a query may attend to a key."""


class SelfAttention(nn.Module):
    """Multi-head self-attention over [batch, length, width].

    Args:
        width: model width.
        num_heads: number of heads; must divide `width`.
        qkv_bias: whether the query/key/value projection has a bias.
        causal: let a position attend only to itself and earlier ones. There is no key mask:
            padding positions are attended to, as in the released models.
    """

    def __init__(
        self, width: int, num_heads: int, *, qkv_bias: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Tokens, cache: KeyValues | None = None, mask: Mask | None = None
    ) -> Tokens:
        """Return the attended tokens.

        Args:
            x: tokens; with a cache, those that follow the ones in it.
            cache: keys and values of earlier tokens; those of `x` are added to it.
            mask: what may be attended to, instead of what `causal` says.
        """
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        causal = self.causal and mask is None
        if cache is not None:
            before = cache.length
            key, value = cache.append(key, value)
            if causal and before:
                causal = False
                if length > 1:
                    seen = torch.ones(length, before + length, dtype=torch.bool, device=x.device)
                    mask = seen.tril(before)[None, None]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + FFN(norm(x)) with GELU; norms in float32.

    Args:
        width: model width.
        num_heads: number of attention heads.
        ffn_ratio: width of the feed-forward as a multiple of `width`.
        causal: see `SelfAttention`.
        norm_eps: epsilon of the layer normalisations.
        drop_path: probability of dropping each branch.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        ffn_ratio: float = 4.0,
        *,
        causal: bool = False,
        norm_eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(width * ffn_ratio)
        self.norm1 = LayerNormFP32(width, eps=norm_eps)
        self.attention = SelfAttention(width, num_heads, causal=causal)
        self.norm2 = LayerNormFP32(width, eps=norm_eps)
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Tokens, cache: KeyValues | None = None, mask: Mask | None = None
    ) -> Tokens:
        """Return the block's output; see `SelfAttention` for cache and mask."""
        x = x + self.drop_path(self.attention(self.norm1(x), cache, mask))
        return x + self.drop_path(self.fc2(self.act(self.fc1(self.norm2(x)))))
