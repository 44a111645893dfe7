"""Text towers: the base transformer and MCt, which wraps it in Text-RepMixers.

arXiv 2311.17049, sec. 4: token and learned position embeddings, pre-norm blocks, final norm in
float32, the token of the largest id (end of text) pooled, a linear projection without bias. There
is no key mask: padding positions take part, as in the released models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.attention import TransformerBlock
from understudy.models.layers import LayerNormFP32, init_weights
from understudy.models.text.repmixer import TextRepMixer


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Describe a text tower.

    Attributes:
        variant: `"base"`, or `"mct"` for a Text-RepMixer before and after the blocks.
        vocab_size: number of token ids; the largest is end of text.
        context_length: tokens per text.
        width: channels.
        depth: transformer blocks.
        num_heads: attention heads.
        ffn_ratio: feed-forward width over `width`.
        causal: attend to earlier positions only. A Text-RepMixer looks both ways, so `"mct"`
            cannot be causal.
        mixer_kernel: positions that a Text-RepMixer sees.
        layer_scale: starting value of the Text-RepMixers' layer scales.
        drop_path: drop rate of the last block; rates grow linearly with depth.
    """

    variant: str = "base"
    vocab_size: int = 49408
    context_length: int = 77
    width: int = 512
    depth: int = 12
    num_heads: int = 8
    ffn_ratio: float = 4.0
    causal: bool = False
    mixer_kernel: int = 11
    layer_scale: float = 1e-5
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.variant, ("base", "mct"), "TextConfig.variant")
        if self.width % self.num_heads:
            raise ConfigError(
                f"TextConfig.num_heads: {self.num_heads} does not divide width {self.width}."
            )
        if self.causal and self.variant == "mct":
            raise ConfigError("TextConfig.causal: 'mct' looks both ways; use variant 'base'.")
        if self.mixer_kernel % 2 == 0:
            raise ConfigError(
                f"TextConfig.mixer_kernel: {self.mixer_kernel} is even; give an odd one."
            )


class TextTower(nn.Module):
    """Token ids to embeddings.

    Args:
        config: the sizes.
        out_dim: width of the embedding.
    """

    def __init__(self, config: TextConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.zeros(config.context_length, width))
        count = config.depth + (2 if config.variant == "mct" else 0)
        rates = [config.drop_path * i / max(count - 1, 1) for i in range(count)]
        blocks: list[nn.Module] = []
        for i, rate in enumerate(rates):
            if config.variant == "mct" and i in (0, count - 1):
                block: nn.Module = TextRepMixer(
                    width,
                    config.ffn_ratio,
                    config.mixer_kernel,
                    layer_scale=config.layer_scale,
                    drop_path=rate,
                )
            else:
                block = TransformerBlock(
                    width,
                    config.num_heads,
                    config.ffn_ratio,
                    causal=config.causal,
                    drop_path=rate,
                )
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNormFP32(width)
        self.head = nn.Linear(width, out_dim, bias=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.tokens.weight, std=width**-0.5)
        nn.init.trunc_normal_(self.positions, std=width**-0.5)

    def hidden(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the normalised states of all positions."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return self.norm(self.blocks(x))

    def features(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch width"]:
        """Return the state at the largest id of each row (end of text), before the head."""
        x = self.hidden(tokens)
        last = tokens.argmax(-1)[:, None, None].expand(-1, -1, x.shape[-1])
        return x.gather(1, last).squeeze(1)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch out"]:
        """Return the embedding (not normalised)."""
        return self.head(self.features(tokens))


BASE_TEXT = TextConfig()
"""63,428,096 parameters with a head of 512."""
WIDE_TEXT = TextConfig(width=768, num_heads=12)
"""The text tower of MobileCLIP2-S3, -S4 and -L: 123,650,304 parameters with a head of 768."""
MCT = TextConfig(variant="mct", depth=4)
"""42,441,216 parameters in training, 42,435,072 with the branches folded."""
NANO_TEXT = TextConfig(
    variant="mct", vocab_size=512, context_length=24, width=64, depth=1, num_heads=4
)
