"""Training stages of a vision-language model, as data (arXiv 2412.13303, training set-up)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.train.config import TrainConfig

TRAINABLE = ("projector", "all")


@dataclass(frozen=True, kw_only=True, slots=True)
class VLMStage:
    """Describe one stage.

    Attributes:
        name: of the stage, and of its folder.
        trainable: `"projector"` alone, or `"all"`.
        lr: peak learning rate.
        batch_size: conversations a step.
        resolution: side of the images in pixels; 0 keeps the model's.
        epochs: passes over the rows, where `steps` is 0.
        steps: optimiser steps; 0 counts them from `epochs`.
        rows: SQL filter; empty takes the split `train` if there is one, else all rows.
        template: of the conversations; empty takes the model's.
        warmup: share of the steps in which the learning rate grows.
        weight_decay: of AdamW.
        clip_norm: largest gradient norm; 0 does not clip.
        accumulate: micro-batches a step.
        precision: `"fp32"`, `"bf16"` or `"fp16"`.
    """

    name: str
    trainable: Literal["projector", "all"] = "all"
    lr: float = 2e-5
    batch_size: int = 128
    resolution: int = 0
    epochs: float = 1.0
    steps: int = 0
    rows: str = ""
    template: str = ""
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: str = "fp32"

    def __post_init__(self) -> None:
        where = f"VLMStage '{self.name}'"
        check_choice(self.trainable, TRAINABLE, f"{where}.trainable")
        if not self.name or set(self.name) & set("/\\"):
            raise ConfigError(f"{where}: the name is that of a folder.")
        if not self.lr > 0 or self.batch_size < 1:
            raise ConfigError(
                f"{where}: expected lr > 0 and batch_size >= 1, got {self.lr} and "
                f"{self.batch_size}."
            )
        if not self.steps and not self.epochs > 0:
            raise ConfigError(f"{where}: give steps, or epochs above 0.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"{where}.warmup: expected a share in [0, 1), got {self.warmup}.")

    def train_config(self, num_rows: int, base: TrainConfig | None = None) -> TrainConfig:
        """Return the loop's configuration: AdamW, cosine, warm-up.

        Args:
            num_rows: rows that the stage trains on.
            base: where logging, checkpoints and the device come from.
        """
        steps = self.steps or max(1, round(self.epochs * (num_rows // self.batch_size)))
        base = base or TrainConfig(steps=1, log_every=20)
        return replace(
            base,
            steps=steps,
            batch_size=self.batch_size,
            lr=self.lr,
            warmup_steps=min(round(self.warmup * steps), steps - 1),
            decay_start=0,
            schedule="cosine",
            optimizer="adamw",
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm or None,
            accumulate=self.accumulate,
            precision=self.precision,
        )


def two_stage(pretrained: int, target: int) -> tuple[VLMStage, ...]:
    """Return the two stages of the ablations: 558 k captions, then 665 k instructions.

    Args:
        pretrained: resolution at which the tower was pretrained, in pixels.
        target: resolution of the finished model.
    """
    return (
        VLMStage(
            name="s1", trainable="projector", lr=1e-3, batch_size=256, resolution=pretrained,
            template="plain",
        ),
        VLMStage(name="s2", lr=2e-5, batch_size=128, resolution=target),
    )  # fmt: skip


def scaled(pretrained: int, target: int) -> tuple[VLMStage, ...]:
    """Return the four stages of the scaled recipe: S1, S1.5 on 15 M dense captions, S2, S3.

    Args:
        pretrained: resolution at which the tower was pretrained, in pixels.
        target: resolution from S1.5 on.
    """
    first, last = two_stage(pretrained, target)
    names = ("s1.5", "s2", "s3")
    return (first, *(replace(last, name=name) for name in names))


def check_stages(stages: Sequence[VLMStage]) -> None:
    """Refuse no stages, or two of one name.

    Raises:
        ConfigError: see above.
    """
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"stages: expected at least one, each of another name, got {names}.")
