"""What a dense model is: an image tower, how it is tapped, and a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.families import check_family
from understudy.models.preprocess import Preprocess
from understudy.models.towers import ImageConfig

HEADS = {
    "seg": ("semantic-fpn", "uper", "linear"),
    "depth": ("decoder",),
    "det": ("mask-rcnn",),
}
"""Heads by task."""
STATISTICS = ("train", "sync", "frozen")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Describe a head and how the tower's maps reach it.

    Attributes:
        task: `seg` (a class per pixel), `depth` or `det` (boxes and masks of objects).
        kind: `semantic-fpn`, `uper` or `linear` for seg; `decoder` for depth; `mask-rcnn` for det.
        classes: names of the classes by number (for det without a background).
        width: channels of the feature pyramid; the published ones are 256 (Semantic FPN, Mask
            R-CNN) and 512 (UperNet).
        hidden: channels of Semantic FPN's and of the depth decoder's blocks, and of UperNet's
            auxiliary head.
        dropout: before the classifier.
        map_norm: normalisation of each tapped map: `batch`, `layer` (over channels) or `none`.
        statistics: batch normalisation of the tower while it is tuned: `train` (statistics of the
            batch on each device), `sync` (over all ranks) or `frozen` (the pretrained ones). What a
            head adds always learns its own, over all ranks with `sync`.
        taps: four blocks of a ViT, from 0, whose tokens become maps, or one whose map serves all
            scales; empty takes the tower's own (3, 5, 7 and 11 of twelve).
        low: smallest depth that can be predicted, in metres.
        high: largest depth that can be predicted, in metres.
        anchor_scale: side of an anchor over its level's stride, for det.
    """

    task: Literal["seg", "depth", "det"] = "seg"
    kind: str = "semantic-fpn"
    classes: tuple[str, ...] = ()
    width: int = 256
    hidden: int = 128
    dropout: float = 0.1
    map_norm: Literal["batch", "layer", "none"] = "batch"
    statistics: Literal["train", "sync", "frozen"] = "train"
    taps: tuple[int, ...] = ()
    low: float = 1e-3
    high: float = 10.0
    anchor_scale: float = 8.0

    def __post_init__(self) -> None:
        check_choice(self.task, HEADS, "HeadConfig.task")
        check_choice(self.kind, HEADS[self.task], f"HeadConfig.kind for {self.task}")
        check_choice(self.map_norm, ("batch", "layer", "none"), "HeadConfig.map_norm")
        check_choice(self.statistics, STATISTICS, "HeadConfig.statistics")
        if self.task == "seg" and len(self.classes) < 2:
            raise ConfigError(
                f"HeadConfig.classes: {len(self.classes)} names; a segmentation has at least two."
            )
        if self.task == "det" and not self.classes:
            raise ConfigError("HeadConfig.classes: name the classes of objects.")
        if min(self.width, self.hidden) < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                "HeadConfig: expected width and hidden of at least 1 and dropout in [0, 1), got "
                f"{self.width}, {self.hidden} and {self.dropout}."
            )
        if not 0 < self.low < self.high:
            raise ConfigError(
                f"HeadConfig: expected 0 < low < high, got {self.low} and {self.high}."
            )
        if list(self.taps) != sorted(set(self.taps)) or len(self.taps) not in (0, 1, 4):
            raise ConfigError(
                f"HeadConfig.taps: expected four growing block numbers, or one; got {self.taps}."
            )
        if self.anchor_scale <= 0:
            raise ConfigError(
                f"HeadConfig.anchor_scale: expected more than 0, got {self.anchor_scale}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseConfig:
    """Describe a dense model.

    Attributes:
        name: of the model that the tower comes from.
        image: the tower.
        preprocess: mean and std of its input; the size is that of pretraining, others work.
        head: the head.
        weights: released checkpoint of the tower; it pins `preprocess`.
    """

    name: str
    image: ImageConfig
    preprocess: Preprocess
    head: HeadConfig
    weights: str = ""

    def __post_init__(self) -> None:
        if self.weights:
            check_family(self.weights, self.preprocess)
