"""What a vision-language model looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, ModelError
from understudy.models.families import check_family
from understudy.models.image.mci_sizes import MCI3, MCI_NANO5
from understudy.models.language.decoder import DecoderConfig
from understudy.models.language.hosted import HostedConfig, hosted_config
from understudy.models.multimodal.anyres import Pinpoint, check_pinpoints, tiles_of
from understudy.models.multimodal.chat import TEMPLATES
from understudy.models.multimodal.splice import SIDES
from understudy.models.multimodal.vision_tower import (
    FEATURES,
    PROJECTORS,
    check_resolution,
    num_tokens,
)
from understudy.models.preprocess import Preprocess
from understudy.models.towers import ImageConfig

LanguageConfig = DecoderConfig | HostedConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class VLMConfig:
    """Describe a vision-language model (arXiv 2412.13303).

    Attributes:
        name: a name for people and reports.
        image: the vision tower.
        language: the language model.
        preprocess: what images go through; [0, 1], padded to a square with black. `size` is R.
        projector: `"mlp2x_gelu"` or `"linear"`.
        features: see `VisionTower`.
        pool: see `VisionTower`.
        pinpoints: (width, height) of the grids of tiles that may be used; none: one static view.
        padding: side on which rows of a batch are padded.
        template: of conversations, a key of `understudy.models.multimodal.chat.TEMPLATES`.
        context: tokens of a sequence at most, visual ones included; 0 for the language model's.
        weights: name of the released tower that the weights came from, such as `"fastvithd"`.
    """

    name: str
    image: ImageConfig
    language: LanguageConfig
    preprocess: Preprocess
    projector: str = "mlp2x_gelu"
    features: str = "last"
    pool: int = 1
    pinpoints: tuple[Pinpoint, ...] = ()
    padding: str = "right"
    template: str = "words"
    context: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        check_choice(self.projector, PROJECTORS, "VLMConfig.projector")
        check_choice(self.features, FEATURES, "VLMConfig.features")
        check_choice(self.padding, SIDES, "VLMConfig.padding")
        check_choice(self.template, TEMPLATES, "VLMConfig.template")
        check_resolution(self.preprocess.size, self.image, self.pool)
        if self.context < 0:
            raise ConfigError(f"VLMConfig.context: expected at least 0, got {self.context}.")
        if self.pinpoints:
            check_pinpoints(self.pinpoints, self.preprocess.size)
        if self.weights:
            check_family(self.weights, self.preprocess)
        check_plain(self.preprocess)

    @property
    def tokens_per_view(self) -> int:
        """Visual tokens of one view."""
        return num_tokens(self.preprocess.size, self.image, self.pool)

    @property
    def most_tokens(self) -> int:
        """Visual tokens of an image at most."""
        views = max((tiles_of(p, self.preprocess.size) for p in self.pinpoints), default=1)
        return views * self.tokens_per_view


def check_plain(preprocess: Preprocess) -> None:
    """Refuse a normalisation: these towers take [0, 1] as it is.

    Raises:
        ModelError: mean or std are CLIP's, say.
    """
    if any(preprocess.mean) or any(s != 1.0 for s in preprocess.std):
        raise ModelError(
            f"preprocess: mean {list(preprocess.mean)} and std {list(preprocess.std)}; the vision "
            "tower takes values in [0, 1] (mean 0, std 1), not those that CLIP's statistics make."
        )


def square(size: int) -> Preprocess:
    """Return FastVLM's preprocessing: a square with black bars, bicubic, values in [0, 1]."""
    return Preprocess(size=size, interpolation="bicubic", resize="pad")


def at_resolution(config: VLMConfig, size: int) -> VLMConfig:
    """Return a configuration at another resolution; the weights are the same ones.

    Raises:
        ConfigError: no whole number of tokens, or the pinpoints are not made of such squares.
    """
    return replace(config, preprocess=replace(config.preprocess, size=size))


def fastvlm_nano() -> VLMConfig:
    """MCi-nano5 at 512 pixels (64 tokens) and a decoder of 2.2 M parameters."""
    return VLMConfig(
        name="fastvlm-nano",
        image=replace(MCI_NANO5, image_size=512),
        language=DecoderConfig(),
        preprocess=square(512),
    )


def fastvlm_05b() -> VLMConfig:
    """FastViTHD at 1,024 pixels (256 tokens) and Qwen2-0.5B's sizes."""
    return VLMConfig(
        name="fastvlm-0.5b",
        image=replace(MCI3, image_size=1024),
        language=hosted_config(
            "qwen2",
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            vocab_size=151_936,
            max_position_embeddings=32_768,
            rope_theta=1_000_000.0,
            tie_word_embeddings=True,
        ),
        preprocess=square(1024),
        template="qwen2",
        context=8192,
    )
