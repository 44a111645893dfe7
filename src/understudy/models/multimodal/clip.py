"""CLIP: an image tower and a text tower into one space, with a learned logit scale.

arXiv 2103.00020 and, for the towers here, arXiv 2311.17049.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.config import LATER
from understudy.core.errors import ConfigError
from understudy.models.families import check_family
from understudy.models.multimodal.pair import PairModel, start_scale
from understudy.models.preprocess import Preprocess
from understudy.models.text.tokenizer import Tokenizer
from understudy.models.text.transformer import TextConfig, TextTower
from understudy.models.towers import ImageConfig, image_tower

SIGMOID_SCALE, SIGMOID_BIAS = math.log(10.0), -10.0
"""Where scale (its exponent) and bias of a sigmoid model begin (arXiv 2303.15343, sec. 3.2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPConfig:
    """Describe a CLIP model.

    Attributes:
        name: a name for people and reports.
        embed_dim: width of the shared space.
        image: the image tower.
        text: the text tower.
        preprocess: what images go through.
        tokenizer: which tokenizer texts need: `"clip"` or `"own"` (travels with the weights).
        weights: name of the released checkpoint that the weights came from, such as
            `"mobileclip-s1"`; empty for own training. Released weights pin `preprocess`.
        sigmoid: learn a logit bias too, for sigmoid losses.
    """

    name: str
    embed_dim: int
    image: ImageConfig
    text: TextConfig
    preprocess: Preprocess
    tokenizer: str = "clip"
    weights: str = ""
    sigmoid: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ConfigError(f"CLIPConfig.embed_dim: expected at least 1, got {self.embed_dim}.")
        if self.weights:
            check_family(self.weights, self.preprocess)


class CLIP(PairModel):
    """Images and texts to unit vectors whose dot product, times a scale, is their logit.

    Args:
        config: towers and sizes.
        tokenizer: turns texts into ids; may be set later with `set_tokenizer`.
    """

    config: CLIPConfig

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.image = image_tower(config.image, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim)
        self.logit_scale = start_scale()
        if config.sigmoid:
            self.logit_scale = nn.Parameter(torch.tensor(SIGMOID_SCALE))
            self.logit_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    def image_embedding(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Return image embeddings before normalisation."""
        return self.image(images)

    def text_embedding(self, texts: Int[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        """Return text embeddings before normalisation."""
        return self.text(texts)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"] | None = None,
        texts: Int[Tensor, "rows length"] | None = None,
        syn_texts: Int[Tensor, "rows length"] | None = None,
    ) -> dict[str, Tensor]:
        """Return whatever was asked for, in one pass of each tower.

        Args:
            images: normalised images.
            texts: token ids.
            syn_texts: token ids of synthetic captions; they run through the text tower together
                with `texts`.

        Returns:
            `logit_scale` (and `logit_bias` of a sigmoid model), and `image_features`,
            `text_features`, `syn_text_features` as given.
        """
        out: dict[str, Tensor] = {"logit_scale": self.scale()}
        if self.config.sigmoid:
            out["logit_bias"] = self.logit_bias
        if images is not None:
            out["image_features"] = self.encode_image(images)
        both = [t for t in (texts, syn_texts) if t is not None]
        if both:
            parts = self.encode_text(torch.cat(both)).split([len(t) for t in both])
            names = ("text_features", "syn_text_features")
            given = (texts is not None, syn_texts is not None)
            out |= dict(
                zip([n for n, g in zip(names, given, strict=True) if g], parts, strict=True)
            )
        return out
