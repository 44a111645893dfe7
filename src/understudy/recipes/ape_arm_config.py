"""Which arm of APE is trained, with which heads and, for `scratch`, which towers."""

from __future__ import annotations

from dataclasses import dataclass, field

from understudy.core.config import check_choice
from understudy.models.image.conv import ConvConfig
from understudy.models.multimodal.heads import HeadConfig
from understudy.models.preprocess import Preprocess

TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")
"""Prompts of class names, where neither the configuration nor the store has others."""

CLOSED = ("ridge", "cca", "procrustes")
ARMS = ("ape", "ape-tokens", "linear", "lit", "scratch", *CLOSED)


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """Say what is trained.

    Attributes:
        arm: a name of `ARMS`.
        dim: width of the shared space; 0 takes the width of the side whose head is the identity,
            else 256.
        image_head: of `ape` and `ape-tokens`.
        text_head: of `ape` and `ape-tokens`.
        l2: penalty of `ridge` and `cca`.
        scratch_model: the CLIP of this package whose towers `scratch` trains; empty trains `tower`
            on `pixels` and a table of n-grams, as the claim does.
        scratch_size: side of its images in pixels; 0 takes the model's.
        vocab_size: ids of the tokenizer of `scratch_model`.
        pixels: what images go through without a `scratch_model`.
        tower: fresh image tower without one.
        text_width: width of the fresh text tower without one.
    """

    arm: str = "ape"
    dim: int = 0
    image_head: HeadConfig = field(default_factory=HeadConfig)
    text_head: HeadConfig = field(default_factory=HeadConfig)
    l2: float = 1e-2
    scratch_model: str = ""
    scratch_size: int = 0
    vocab_size: int = 1024
    pixels: Preprocess = field(default_factory=lambda: Preprocess(size=32))
    tower: ConvConfig = field(default_factory=lambda: ConvConfig(channels=(16, 32, 64)))
    text_width: int = 256

    def __post_init__(self) -> None:
        check_choice(self.arm, ARMS, "ape arm")
