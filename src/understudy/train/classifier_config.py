"""What a classifier learns from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.config import LATER
from understudy.core.errors import ConfigError
from understudy.objectives.checks import fraction
from understudy.objectives.topk import Densify
from understudy.train.config import TrainConfig
from understudy.train.mixing import MixConfig
from understudy.train.student_base import StudentBase


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1000, batch_size=32, lr=0.1, optimizer="sgd", weight_decay=5e-4, warmup_steps=50
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierStudentConfig(StudentBase):
    """Describe a classifier and what it learns from.

    Attributes:
        learn: `labels`; `topk` (stored probabilities of stored views, which needs `view_set`);
            `online` (teachers that are given to `train_classifier`, asked at every step).
        teacher: whose probabilities; empty for the only one there is.
        p: probability that a row uses its stored view and target; otherwise the plain image with
            `augment` and its one-hot label.
        densify: `smooth`, `zeros` or `reference-zeros` (with `compat`).
        compat: see `objectives.topk.densify`.
        k: how many of a view's stored probabilities to use, the largest ones; 0 uses all. What is
            dropped is spread or renormalised as `densify` says.
        smoothing: label smoothing; refused with `topk`, whose targets are no labels.
        mixup_alpha: of batch MixUp; 0 switches it off.
        cutmix_alpha: of batch CutMix; 0 switches it off.
        force_mix: with `topk`, mix images and stored targets of unmixed views by one share.
        lambda_kd: weight of online imitation.
        lambda_cls: weight of the labels beside it.
        temperature: of online imitation.
        hard: imitate the most likely class of teachers that are asked online, instead of their
            probabilities (arXiv 2012.12877).
        num_classes: 0 takes the store's class names.
        label_column: column of class numbers.
    """

    model: str = "cnn-small"
    learn: Literal["labels", "topk", "online"] = "topk"
    teacher: str = ""
    p: float = 0.99
    densify: Densify = "smooth"
    compat: bool = False
    k: int = field(default=0, metadata=LATER)
    smoothing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    force_mix: bool = False
    lambda_kd: float = 1.0
    lambda_cls: float = 0.0
    temperature: float = 1.0
    hard: bool = field(default=False, metadata=LATER)
    num_classes: int = 0
    label_column: str = "label"
    train: TrainConfig = field(default_factory=_small_run)

    def __post_init__(self) -> None:
        fraction(self.p, "p")
        if self.k < 0 or (self.k and self.learn != "topk"):
            raise ConfigError(
                f"k: {self.k} stored probabilities, with learn {self.learn}; it is a number from 1 "
                "on (0 for all) and belongs to learn topk."
            )
        if self.hard and (self.learn != "online" or self.temperature != 1.0):
            raise ConfigError(
                "hard: it takes the most likely class of teachers asked online; set learn=online "
                "and leave temperature at 1."
            )
        if self.learn == "topk" and self.smoothing:
            raise ConfigError(
                f"smoothing: {self.smoothing} would have no effect, since stored probabilities are "
                "soft already; leave it out, or learn from labels (learn labels)."
            )
        if self.learn == "topk" and not self.view_set:
            raise ConfigError(
                "view_set: stored probabilities belong to stored views; name the set, or learn "
                "from labels (learn labels)."
            )
        if self.learn == "topk" and self.mixes and not self.force_mix:
            raise ConfigError(
                "mixup_alpha, cutmix_alpha: stored targets are of unmixed views; mix inside the "
                "reinforcement (views.transforms.mixup, where the teacher sees it), or set "
                "force_mix=True."
            )

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

    @property
    def mix(self) -> MixConfig | None:
        """How batches are mixed, if they are."""
        if not self.mixes:
            return None
        return MixConfig(
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            seed=self.seed,
            force=self.force_mix,
        )
