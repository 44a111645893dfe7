"""What models of images and texts share: one space, a logit scale, a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.errors import ModelError
from understudy.models.base import Model
from understudy.models.text.tokenizer import Tokenizer

INIT_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = 100.0


class PairModel(Model):
    """A model that embeds images and texts; the dot product of a pair, times a scale, is its logit.

    Subclasses set `logit_scale` and write `image_embedding` and `text_embedding`; `config.text` has
    `vocab_size` and `context_length`.

    Attributes:
        tokenizer: turns texts into ids; None until `set_tokenizer`.
    """

    logit_scale: nn.Parameter
    tokenizer: Tokenizer | None = None

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

    def scale(self) -> Float[Tensor, ""]:
        """Return the factor of the logits, exp(theta) and at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_image(
        self, images: Float[Tensor, "batch 3 height width"], normalize: bool = True
    ) -> Float[Tensor, "batch dim"]:
        """Return image embeddings, of unit length unless `normalize` is off."""
        features = self.image_embedding(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(
        self, texts: Int[Tensor, "batch length"], normalize: bool = True
    ) -> Float[Tensor, "batch dim"]:
        """Return text embeddings, of unit length unless `normalize` is off."""
        features = self.text_embedding(texts)
        return F.normalize(features, dim=-1) if normalize else features

    def image_embedding(self, images: Tensor) -> Tensor:
        """Return image embeddings before normalisation."""
        raise ModelError(f"{type(self).__name__} embeds no images.")

    def text_embedding(self, texts: Tensor) -> Tensor:
        """Return text embeddings before normalisation."""
        raise ModelError(f"{type(self).__name__} embeds no texts.")


def start_scale() -> nn.Parameter:
    """Return the exponent of a fresh logit scale, ln(1 / 0.07) (arXiv 2103.00020, sec. 2.5)."""
    return nn.Parameter(torch.tensor(INIT_LOGIT_SCALE))
