"""What a classifier learns from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.errors import ConfigError
from understudy.objectives.checks import fraction
from understudy.objectives.topk import Densify
from understudy.train.config import TrainConfig
from understudy.train.mixing import MixConfig


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1000, batch_size=32, lr=0.1, optimizer="sgd", weight_decay=5e-4, warmup_steps=50
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierStudentConfig:
    """Describe a classifier and what it learns from.

    Attributes:
        model: a key of `understudy.models.MODELS`, or a weights file or run to start from.
        changes: values of the model's configuration to replace, by dotted key.
        learn: `labels`; `topk` (stored probabilities of stored views); `online` (teachers that are
            given to `train_classifier`, asked at every step).
        view_set: set of stored views to replay; empty draws `augment` anew. Stored probabilities
            need it.
        teacher: whose probabilities; empty for the only one there is.
        p: probability that a row uses its stored view and target; otherwise the plain image with
            `augment` and its one-hot label.
        densify: `smooth`, `zeros` or `reference-zeros` (with `compat`).
        compat: see `objectives.topk.densify`.
        smoothing: label smoothing.
        mixup_alpha: of batch MixUp; 0 switches it off.
        cutmix_alpha: of batch CutMix; 0 switches it off.
        force_mix: mix even stored targets of unmixed views.
        lambda_kd: weight of online imitation.
        lambda_cls: weight of the labels beside it.
        temperature: of online imitation.
        augment: transforms by name for images that replay no stored view, as in `ViewConfig`.
        rescale: allow stored views of another size than the student's input.
        replay: `stored`; `fresh` is a control that breaks replay.
        shuffle_targets: a control that gives every row another row's targets.
        num_classes: 0 takes the store's class names.
        rows: SQL filter; empty takes the split `train` if there is one, else all rows.
        image_column: payload column of encoded images.
        label_column: column of class numbers.
        mean: normalisation that is expected; refused unless it is the model's own.
        std: the same.
        view_order: `epoch` uses one view an epoch, each once a cycle, and reads one view's columns
            only; `random` draws a view for each row, as published, and reads many.
        train: how long and how fast.
        seed: of weights, order, choices and everything random inside a step.
        workers: threads that make batches ahead; 0 makes them in between.
    """

    model: str = "cnn-small"
    changes: dict[str, Any] = field(default_factory=dict)
    learn: Literal["labels", "topk", "online"] = "topk"
    view_set: str = ""
    teacher: str = ""
    p: float = 0.99
    densify: Densify = "smooth"
    compat: bool = False
    smoothing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    force_mix: bool = False
    lambda_kd: float = 1.0
    lambda_cls: float = 0.0
    temperature: float = 1.0
    augment: dict[str, Any] = field(default_factory=dict)
    rescale: bool = False
    replay: Literal["stored", "fresh"] = "stored"
    shuffle_targets: bool = False
    num_classes: int = 0
    rows: str = ""
    image_column: str = "image"
    label_column: str = "label"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    view_order: Literal["epoch", "random"] = "epoch"
    train: TrainConfig = field(default_factory=_small_run)
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        fraction(self.p, "p")
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
