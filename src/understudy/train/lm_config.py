"""How a language model is trained, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.language.documents import WAYS, Way
from understudy.train.config import TrainConfig


def lm_train_config(
    steps: int,
    *,
    warmup_steps: int,
    lr: float = 3e-3,
    min_lr: float = 3e-5,
    weight_decay: float = 0.033,
    **changes: Any,
) -> TrainConfig:
    """Return OpenLM's optimiser: AdamW 0.9 / 0.95, cosine to `min_lr`, gradients clipped at 1.

    Args:
        steps: optimiser steps.
        warmup_steps: of linear growth; at least one step is left to decay.
        lr: peak learning rate.
        min_lr: where the cosine ends.
        weight_decay: decoupled. OpenLM decays every parameter, gains too (`decay_all=True`).
        **changes: other values of `TrainConfig`.

    References:
        arXiv 2406.11794, table 10; mlfoundations/open_lm, main.py.
    """
    return TrainConfig(
        steps=steps,
        lr=lr,
        min_lr=min_lr,
        warmup_steps=min(warmup_steps, steps - 1),
        weight_decay=weight_decay,
        **{"schedule": "cosine", "betas": (0.9, 0.95), "clip_norm": 1.0, **changes},
    )


def _small_run() -> TrainConfig:
    return lm_train_config(200, warmup_steps=20, log_every=20)


@dataclass(frozen=True, kw_only=True, slots=True)
class LMConfig:
    """Describe the training of a language model.

    Attributes:
        model: a key of `understudy.models.MODELS`, or a run or weights file to start from.
        changes: values of the model's configuration to replace, by dotted key.
        tokens_per_step: input tokens of an optimiser step, over all ranks and micro-batches; 0
            where a sampler is given.
        z_loss: weight of the squared logsumexp of the logits.
        mask_documents: documents in a row do not see each other, and no token is learned from the
            document before it; for rows that hold several.
        documents: how attention inside documents is computed, see
            `understudy.models.language.documents`.
        curriculum: of rows in buckets of lengths, see `understudy.data.sampler_buckets`.
        cycles: rounds of the curriculum.
        tokens: input tokens of an epoch of buckets; 0 for all that there are.
        repeat: allow an epoch to take more than the buckets hold.
        chunk: tokens whose logits are held at once; 0 for as many as suit the device.
        train: how long and how fast.
        seed: of weights, order and everything random inside a step.
        workers: threads that make batches ahead; 0 makes them in between.
    """

    model: str = "openlm-nano"
    changes: dict[str, Any] = field(default_factory=dict)
    tokens_per_step: int = 16_384
    z_loss: float = 1e-4
    mask_documents: bool = False
    documents: Way = "auto"
    curriculum: str = "grow-p2"
    cycles: int = 8
    tokens: int = 0
    repeat: bool = False
    chunk: int = 0
    train: TrainConfig = field(default_factory=_small_run)
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("tokens_per_step", "z_loss", "tokens", "chunk", "workers"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"LMConfig.{name}: expected at least 0, got {getattr(self, name)}."
                )
        if self.cycles < 1:
            raise ConfigError(f"LMConfig.cycles: expected at least 1, got {self.cycles}.")
        check_choice(self.documents, WAYS, "LMConfig.documents")
