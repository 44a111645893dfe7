"""What an aligner is made of, as plain data: modalities, encoders by id and hash, heads, sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import CardError, ConfigError
from understudy.models.multimodal.heads import PLACEMENTS, HeadConfig, head_parameters

INIT_SCALE = 1 / 0.07
MAX_SCALE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """Describe one side.

    Attributes:
        name: such as `"image"`, `"text"`, `"ecg"`.
        encoder: id of the frozen encoder.
        in_dim: width of its features.
        encoder_hash: hash of its weights; empty if it is not pinned.
        preprocess_hash: hash of what its input goes through; empty if it is not pinned.
        head: what is trained on top.
        placement: `"pooled"`: pool, then head; `"tokens"`: head on every token, then mean.
    """

    name: str
    encoder: str
    in_dim: int
    encoder_hash: str = ""
    preprocess_hash: str = ""
    head: HeadConfig = field(default_factory=HeadConfig)
    placement: Literal["pooled", "tokens"] = "pooled"

    def __post_init__(self) -> None:
        check_choice(self.placement, PLACEMENTS, f"modality '{self.name}', placement")
        if self.in_dim < 1:
            raise ConfigError(f"modality '{self.name}': in_dim must be at least 1.")

    def check_card(self, encoder: str, encoder_hash: str, preprocess_hash: str) -> None:
        """Refuse features of another encoder, checkpoint or preprocessing.

        Raises:
            CardError: they differ; the message gives both.
        """
        pairs = (
            ("encoder", self.encoder, encoder),
            ("checkpoint hash", self.encoder_hash, encoder_hash),
            ("preprocess hash", self.preprocess_hash, preprocess_hash),
        )
        for what, mine, given in pairs:
            if mine and mine != given:
                raise CardError(
                    f"{self.name} features of encoder '{encoder}': {what} is '{given}', the "
                    f"aligner was made for '{mine}'; cache the features again with that encoder "
                    "or train another aligner."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignerConfig:
    """Describe an aligner.

    Attributes:
        dim: width of the shared space.
        modalities: two or more sides.
        name: for people and for teacher columns.
        init_scale: starting logit scale exp(theta).
        max_scale: the scale is clamped here.
    """

    dim: int
    modalities: tuple[Modality, ...]
    name: str = "aligner"
    init_scale: float = INIT_SCALE
    max_scale: float = MAX_SCALE

    def __post_init__(self) -> None:
        names = [m.name for m in self.modalities]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(
                f"AlignerConfig.modalities: expected two or more different names, got {names}."
            )
        if not 0 < self.init_scale <= self.max_scale:
            raise ConfigError(
                f"AlignerConfig.init_scale: expected a number in (0, {self.max_scale}], got "
                f"{self.init_scale}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(m.name for m in self.modalities)

    def modality(self, name: str) -> Modality:
        """Return one side; `ConfigError` if there is none of that name."""
        check_choice(name, self.names, "aligner modality")
        return next(m for m in self.modalities if m.name == name)


def count_parameters(config: AlignerConfig) -> dict[str, int]:
    """Return the trainable parameters by modality, with `logit_scale` and `total`, by formula."""
    counts = {
        m.name: head_parameters(m.head, m.in_dim, config.dim, m.placement)
        for m in config.modalities
    }
    counts["logit_scale"] = 1
    return {**counts, "total": sum(counts.values())}
