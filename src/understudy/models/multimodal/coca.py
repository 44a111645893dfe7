"""CoCa: a contrastive captioner, for writing synthetic captions (arXiv 2205.01917).

An image tower with attentional pooling, a unimodal text tower and a multimodal decoder with
cross-attention, as OpenCLIP builds it: the first pooled vector is the image's embedding, the others
are what the decoder looks at. It is trained with the contrastive and the captioning loss together
(`understudy.objectives.captioning`), and writes token by token with cached keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.image.vit import VitTower
from understudy.models.language.cache import KeyValues
from understudy.models.layers import LayerNormFP32, init_weights
from understudy.models.multimodal.coca_layers import (
    AttentionalPooler,
    CaptionDecoder,
    CaptionEncoder,
    grid_positions,
)
from understudy.models.multimodal.pair import PairModel, start_scale
from understudy.models.preprocess import Preprocess
from understudy.models.text.tokenizer import Tokenizer
from understudy.models.text.transformer import TextConfig
from understudy.models.towers import ImageConfig, image_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class CoCaConfig:
    """Describe a captioner.

    Attributes:
        name: a name for people and reports.
        embed_dim: width of the shared space.
        image: the image tower; its tokens (or the positions of its last map) are pooled.
        text: the unimodal text tower; always causal. `context_length` is without the class token.
        decoder_depth: pairs of self- and cross-attention blocks of the decoder, which has the text
            tower's width and heads.
        num_queries: vectors that pooling gives: the embedding and what the decoder looks at.
        pool_heads: attention heads of the pooling.
        preprocess: what images go through.
        tokenizer: which tokenizer texts need: `"clip"` or `"own"` (travels with the weights).
        weights: name of the released checkpoint that the weights came from; empty for own training.
        legacy_mask: see `CaptionEncoder`; for OpenCLIP's weights.
    """

    name: str
    embed_dim: int
    image: ImageConfig
    text: TextConfig
    decoder_depth: int
    num_queries: int
    pool_heads: int
    preprocess: Preprocess
    tokenizer: str = "clip"
    weights: str = ""
    legacy_mask: bool = False

    def __post_init__(self) -> None:
        if self.text.variant != "base" or not self.text.causal:
            raise ConfigError(
                "CoCaConfig.text: a captioner reads causally; use variant 'base' with causal=True."
            )
        for name, least in (("embed_dim", 1), ("decoder_depth", 1), ("num_queries", 2)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"CoCaConfig.{name}: expected at least {least}, got {getattr(self, name)}."
                )
        if self.text.width % self.pool_heads:
            raise ConfigError(
                f"CoCaConfig.pool_heads: {self.pool_heads} does not divide the text tower's width "
                f"{self.text.width}."
            )


class CoCa(PairModel):
    """Images and texts to unit vectors, and images to captions.

    Args:
        config: towers and sizes.
        tokenizer: turns texts into ids; may be set later with `set_tokenizer`.
    """

    config: CoCaConfig

    def __init__(self, config: CoCaConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.text.width
        self.image: Any = image_tower(config.image, 0)
        if isinstance(self.image, VitTower):
            self.image.norm = nn.Identity()  # type: ignore[assignment]  # pooling normalises
        self.pool = AttentionalPooler(
            width, _token_width(config.image), config.pool_heads, config.num_queries
        )
        self.norm = LayerNormFP32(width)
        self.head = nn.Linear(width, config.embed_dim, bias=False)
        self.text = CaptionEncoder(config.text, config.embed_dim, config.legacy_mask)
        self.decoder = CaptionDecoder(config.text, config.decoder_depth)
        self.logit_scale = start_scale()
        self.pool.apply(init_weights)
        init_weights(self.head)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    @property
    def start_id(self) -> int:
        """Token that every text begins with: the last but one id."""
        return self.config.text.vocab_size - 2

    @property
    def end_id(self) -> int:
        """Token that ends a text: the largest id."""
        return self.config.text.vocab_size - 1

    def pooled(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rest width"]]:
        """Return image embeddings (not normalised), and what the decoder looks at."""
        found = self.norm(self.pool(_image_tokens(self.image, images)))
        return self.head(found[:, 0]), found[:, 1:]

    def image_embedding(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Return image embeddings before normalisation."""
        return self.pooled(images)[0]

    def text_embedding(self, texts: Int[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        """Return text embeddings before normalisation."""
        return self.text(texts)[0]

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"] | None = None,
        texts: Int[Tensor, "batch length"] | None = None,
    ) -> dict[str, Tensor]:
        """Return embeddings, and logits of the captions if both are given.

        Args:
            images: normalised images.
            texts: token ids, an image's own caption in its row.

        Returns:
            `logit_scale`; `image_features` and `text_features` (unit length) as given; with both,
            `caption_logits` [B, L - 1, vocabulary] for the tokens 1 to L - 1.
        """
        out: dict[str, Tensor] = {"logit_scale": self.scale()}
        looked: Tensor | None = None
        if images is not None:
            features, looked = self.pooled(images)
            out["image_features"] = nn.functional.normalize(features, dim=-1)
        if texts is not None:
            features, states = self.text(texts)
            out["text_features"] = nn.functional.normalize(features, dim=-1)
            if looked is not None:
                out["caption_logits"] = self.decoder(states[:, :-1], self.decoder.keys(looked))
        return out

    def begin_captions(
        self, images: Float[Tensor, "batch 3 height width"], times: int = 1
    ) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Return the logits of the first word and the cache; see `step`.

        Args:
            images: normalised images.
            times: rows an image, side by side.
        """
        looked = self.pooled(images)[1].repeat_interleave(times, dim=0)
        cache: dict[str, Any] = {
            "image": self.decoder.keys(looked),
            "text": [KeyValues() for _ in self.text.blocks],
            "decoder": [KeyValues() for _ in self.decoder.blocks],
        }
        start = torch.full((len(looked), 1), self.start_id, device=looked.device)
        return self.step(start, cache)

    def step(
        self, tokens: Int[Tensor, "rows new"], cache: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Return the logits of the word after the new tokens, and the cache with them in it.

        It is the `step` of `understudy.models.language.generate`. A text has at most
        `context_length` tokens, start and end included.
        """
        states = self.text.follow(tokens, cache["text"])
        logits = self.decoder(states, cache["image"], cache["decoder"])
        return logits[:, -1], dict(cache)


def _token_width(config: ImageConfig) -> int:
    """Return the channels of a tower's tokens."""
    return config.channels[-1] if config.kind == "conv" else config.width


def _image_tokens(tower: Any, images: Tensor) -> Float[Tensor, "batch positions channels"]:
    """Return a transformer's tokens, or the positions of a convolutional tower's last map."""
    if hasattr(tower, "tokens"):
        return tower.tokens(images)
    found = tower.stage_maps(images)[-1]
    if hasattr(tower, "expand"):
        found = tower.expand(found)
    # a map says where only by its borders; queries that read it must be told
    where = grid_positions(found.shape[2], found.shape[3], found.shape[1]).to(found)
    return found.flatten(2).transpose(1, 2) + where
