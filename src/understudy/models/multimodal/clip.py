"""CLIP: an image tower and a text tower into one space, with a learned logit scale.

arXiv 2103.00020 and, for the towers here, arXiv 2311.17049.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError
from understudy.models.base import Model
from understudy.models.families import check_family
from understudy.models.preprocess import Preprocess
from understudy.models.text.tokenizer import Tokenizer
from understudy.models.text.transformer import TextConfig, TextTower
from understudy.models.towers import ImageConfig, image_tower

INIT_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = 100.0


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
    """

    name: str
    embed_dim: int
    image: ImageConfig
    text: TextConfig
    preprocess: Preprocess
    tokenizer: str = "clip"
    weights: str = ""

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ConfigError(f"CLIPConfig.embed_dim: expected at least 1, got {self.embed_dim}.")
        if self.weights:
            check_family(self.weights, self.preprocess)


class CLIP(Model):
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
        self.logit_scale = nn.Parameter(torch.tensor(INIT_LOGIT_SCALE))
        self.tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Attach a tokenizer; it is saved with the weights.

        Raises:
            ModelError: its vocabulary or row length differs from the text tower's.
        """
        text = self.config.text
        if tokenizer.vocab_size != text.vocab_size:
            raise ModelError(
                f"tokenizer: {tokenizer.vocab_size} ids, but the text tower has "
                f"{text.vocab_size}; create the model with text={{'vocab_size': "
                f"{tokenizer.vocab_size}}} or use its own tokenizer."
            )
        if tokenizer.context_length != text.context_length:
            tokenizer = tokenizer.with_context(text.context_length)
        self.tokenizer = tokenizer

    def tokenize(self, texts: str | Sequence[str]) -> Int[Tensor, "batch length"]:
        """Return the token ids of texts.

        Raises:
            ModelError: no tokenizer is attached.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"{self.config.name} has no tokenizer: call "
                "model.set_tokenizer(ClipTokenizer(PATH)) with CLIP's vocabulary file."
            )
        return self.tokenizer(texts)

    def encode_image(
        self, images: Float[Tensor, "batch 3 height width"], normalize: bool = True
    ) -> Float[Tensor, "batch dim"]:
        """Return image embeddings, of unit length unless `normalize` is off."""
        features = self.image(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(
        self, texts: Int[Tensor, "batch length"], normalize: bool = True
    ) -> Float[Tensor, "batch dim"]:
        """Return text embeddings, of unit length unless `normalize` is off."""
        features = self.text(texts)
        return F.normalize(features, dim=-1) if normalize else features

    def scale(self) -> Float[Tensor, ""]:
        """Return the factor of the logits, exp(theta) and at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)

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
            `logit_scale`, and `image_features`, `text_features`, `syn_text_features` as given.
        """
        out = {"logit_scale": self.scale()}
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
