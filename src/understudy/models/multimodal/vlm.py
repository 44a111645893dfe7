"""A vision-language model: a vision tower, a projector and a causal language model.

arXiv 2412.13303: images become (R / 64)^2 visual tokens, which take the place of `<image>` in a
prompt; nothing is pruned, the resolution is the token budget. The language model is this package's
own small decoder or any of Transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.errors import DataError, ModelError
from understudy.models.base import Model
from understudy.models.language.coder import Coder, read_coder
from understudy.models.language.decoder import Decoder, DecoderConfig
from understudy.models.language.hosted import Hosted
from understudy.models.multimodal.answer import Answering
from understudy.models.multimodal.anyres import Pinpoint, tile
from understudy.models.multimodal.splice import Spliced, splice
from understudy.models.multimodal.vision_tower import Projector, VisionTower
from understudy.models.multimodal.vlm_config import VLMConfig, at_resolution
from understudy.models.preprocess import to_tensor


class VLM(Answering, Model):
    """Images and texts to text.

    Args:
        config: the parts.
        tokenizer: of the language model; may be set later with `set_tokenizer`.
        language: a language model to take instead of a fresh one; it must be of `config.language`.

    Attributes:
        image: the vision tower.
        projector: between the two.
        language: the language model.
    """

    config: VLMConfig
    tokenizer: Coder | None = None
    read_tokenizer = staticmethod(read_coder)

    def __init__(
        self,
        config: VLMConfig,
        tokenizer: Coder | None = None,
        language: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.image = VisionTower(
            config.preprocess.size, config.image, features=config.features, pool=config.pool
        )
        own = isinstance(config.language, DecoderConfig)
        if language is None:
            language = Decoder(config.language) if own else Hosted(config.language)  # type: ignore[arg-type]
        self.language: Any = language
        self.projector = Projector(self.image.width, self.language.width, config.projector)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    # -- its parts

    @property
    def context(self) -> int:
        """Tokens of a sequence at most, visual ones included."""
        return self.config.context or self.language.context

    @property
    def coder(self) -> Coder:
        """The tokenizer.

        Raises:
            ModelError: none is attached.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"{self.config.name} has no tokenizer: call model.set_tokenizer(...) with the "
                "language model's own."
            )
        return self.tokenizer

    def set_tokenizer(self, tokenizer: Coder) -> None:
        """Attach a tokenizer; it is saved with the weights.

        Raises:
            ModelError: it has more ids than the language model has embeddings.
        """
        if tokenizer.vocab_size > self.language.vocab_size:
            raise ModelError(
                f"tokenizer: {tokenizer.vocab_size} ids, but the language model has "
                f"{self.language.vocab_size}; take the language model's own tokenizer."
            )
        self.tokenizer = tokenizer

    def set_projector(self, projector: Projector) -> None:
        """Replace the projector, by a trained one.

        Raises:
            ModelError: its widths are not those of the tower and the language model.
        """
        wanted = (self.image.width, self.language.width)
        if (projector.in_width, projector.out_width) != wanted:
            raise ModelError(
                f"projector: {projector.in_width} to {projector.out_width} channels, but the "
                f"vision tower gives {wanted[0]} and the language model takes {wanted[1]}; it was "
                "trained for other models."
            )
        self.projector = projector

    def set_resolution(self, size: int) -> None:
        """Take images of another side from now on; no weight changes.

        Raises:
            ConfigError: no multiple of the stride; the message has the nearest legal sizes.
        """
        self.config = at_resolution(self.config, size)
        self.image.size = size

    def train(self, mode: bool = True) -> VLM:
        """Switch to training mode; a folded tower trains its folded kernels, as the paper does.

        The released tower is folded: its fine-tuning has no branches and no batch statistics.
        """
        return nn.Module.train(self, mode)

    # -- images

    def views(
        self, image: np.ndarray, pinpoint: Pinpoint | None = None
    ) -> Float[Tensor, "views 3 size size"]:
        """Return what the tower sees of an image: one square, or a global view and tiles.

        Args:
            image: uint8 [H, W, 3].
            pinpoint: the grid to use; None chooses the best one.
        """
        if not self.config.pinpoints:
            return to_tensor([image], self.preprocess)
        return to_tensor(
            tile(image, self.config.pinpoints, self.preprocess, pinpoint), self.preprocess
        )

    def encode_images(
        self, pixels: Float[Tensor, "views 3 size size"]
    ) -> Float[Tensor, "views tokens width"]:
        """Return projected visual tokens, in the language model's space.

        Args:
            pixels: values in [0, 1].

        Raises:
            ModelError: values outside of [0, 1]: they were normalised.
        """
        if pixels.device.type == "cpu" and len(pixels):
            low, high = torch.aminmax(pixels)
            if float(low) < -1e-3 or float(high) > 1 + 1e-3:
                raise ModelError(
                    f"images: values from {float(low):.2f} to {float(high):.2f}; the vision tower "
                    "takes [0, 1] as it is (mean 0, std 1), so CLIP's mean and std must not be "
                    "applied."
                )
        return self.projector(self.image.tokens(pixels))

    def image_features(
        self, pixels: Float[Tensor, "views 3 size size"] | None, views: Sequence[int] | None = None
    ) -> list[Float[Tensor, "tokens width"]]:
        """Return one run of visual tokens an image.

        Args:
            pixels: the views of all images, one after the other; None for no image.
            views: how many each image has; None for one each.

        Raises:
            DataError: the numbers do not add up.
        """
        if pixels is None or not len(pixels):
            return []
        counts = list(views) if views is not None else [1] * len(pixels)
        if sum(counts) != len(pixels):
            raise DataError(f"images: {len(pixels)} views, but {sum(counts)} are counted.")
        found = self.encode_images(pixels)
        return [part.flatten(0, 1) for part in found.split(counts)]

    # -- language

    def splice(
        self,
        ids: Sequence[Int[Tensor, " length"]],
        pixels: Tensor | None,
        labels: Sequence[Int[Tensor, " length"]] | None = None,
        views: Sequence[int] | None = None,
    ) -> Spliced:
        """Return prompts with their images in place; see `splice`."""
        return self.join(ids, self.image_features(pixels, views), labels)

    def join(
        self,
        ids: Sequence[Int[Tensor, " length"]],
        features: Sequence[Float[Tensor, "tokens width"]],
        labels: Sequence[Int[Tensor, " length"]] | None = None,
    ) -> Spliced:
        """Return prompts with visual tokens in place that `image_features` gave before."""
        return splice(ids, features, self.language.embed, labels, padding=self.config.padding)

    def forward(
        self,
        ids: Sequence[Int[Tensor, " length"]],
        pixels: Float[Tensor, "views 3 size size"] | None = None,
        labels: Sequence[Int[Tensor, " length"]] | None = None,
        views: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return logits of all tokens, and the labels in the same places.

        Args:
            ids: a prompt a row, with a sentinel (-200) an image.
            pixels: the views of all images, in order.
            labels: one a token; -100 is not learned.
            views: number of views of each image; None for one each.

        Returns:
            `logits` [B, L, vocabulary], `labels` int64 [B, L] and `valid` bool [B, L].
        """
        made = self.splice(ids, pixels, labels, views)
        logits = self.language(made.embedded, made.valid, made.positions)
        return {"logits": logits, "labels": made.labels, "valid": made.valid}

    def prefill(self, made: Spliced) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Read prompts: return the first new token's logits and the cache; see `step`."""
        kept = self.language.new_cache()
        logits = self.language(made.embedded, made.valid, made.positions, kept, made.last)
        return logits, {"kept": kept, "valid": made.valid, "next": made.lengths}

    def step(
        self, tokens: Int[Tensor, "rows new"], cache: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Return the logits after new tokens; the `step` of `understudy.models.language.generate`.

        A row's positions go on where its own prompt ended, whatever padding stands in between.
        """
        new = tokens.shape[1]
        valid = torch.cat([cache["valid"], torch.ones_like(tokens, dtype=torch.bool)], 1)
        positions = cache["next"][:, None] + torch.arange(new, device=tokens.device)
        last = torch.full((len(tokens),), new - 1, device=tokens.device)
        logits = self.language(self.language.embed(tokens), valid, positions, cache["kept"], last)
        return logits, {"kept": cache["kept"], "valid": valid, "next": cache["next"] + new}
