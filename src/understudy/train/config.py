"""How long, how fast and how exactly to train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from understudy.core.config import LATER, check_choice, to_dict
from understudy.core.errors import ConfigError

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "constant", "constant-cosine", "linear", "wsd")
PRECISIONS = ("fp32", "bf16", "fp16")
STRATEGIES = ("auto", "single", "ddp", "fsdp", "local_sgd", "async_ps")
APART = ("local_sgd", "async_ps")
"""Strategies under which ranks have weights of their own between some steps."""

OPERATIONAL = frozenset(
    {
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "eval_every",
        "tensorboard",
        "device",
        "strategy",
        "compile",
        "seconds_limit_s",
    }
)
"""Fields that a resumed run may change: they decide where and how, not what is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Describe a training run.

    Attributes:
        steps: optimiser steps in all.
        batch_size: samples per optimiser step over all ranks and micro-batches; 0 if the loader
            alone decides. Recorded, and counted as samples seen.
        lr: peak learning rate.
        min_lr: learning rate that decaying schedules end at.
        warmup_steps: steps of linear growth from lr / warmup_steps to lr.
        schedule: `"cosine"` to min_lr; `"constant"`; `"constant-cosine"`: constant until
            `decay_start`, then cosine; `"linear"` to min_lr; `"wsd"`: constant, then linear to
            min_lr from `decay_start` on.
        decay_start: step at which `"constant-cosine"` and `"wsd"` begin to decay; 0 means 0.5 and
            0.8 of `steps`.
        optimizer: `"adamw"`, `"adam"` or `"sgd"`.
        weight_decay: decoupled for AdamW, added to the gradient (L2) for Adam and SGD.
        decay_all: also decay norms, biases and the logit scale.
        betas: of AdamW and Adam.
        eps: of AdamW and Adam.
        momentum: SGD's.
        nesterov: SGD's.
        clip_norm: largest gradient norm; None does not clip.
        accumulate: micro-batches per optimiser step. A contrastive loss compares samples of one
            micro-batch only: accumulating is not a larger batch for it.
        ema_decay: decay of the averaged weights per step; None keeps none.
        ema_warmup: use min(ema_decay, (1 + t) / (10 + t)) at step t.
        precision: `"fp32"`, or autocast to `"bf16"` or `"fp16"` (with gradient scaling).
        max_logit_scale: parameters named `logit_scale` (exponents) are kept at or below its
            logarithm after each step.
        seed: of everything random inside a step (dropout, drop path, augmentation). Students and
            recipes set it to their own `seed`; another value is refused there.
        best: name of an evaluation metric; the weights with its largest value are kept.
        checkpoint_every: steps between checkpoints; 0 writes only the last state.
        keep_checkpoints: how many of the newest checkpoints to keep.
        log_every: steps between lines of the log; each line has means over those steps.
        eval_every: steps between evaluations; 0 evaluates at the end only.
        seconds_limit_s: stop with a checkpoint after this many seconds of this process; 0 never.
        tensorboard: also write TensorBoard events (extra `logs`).
        device: `"auto"`, `"cpu"`, `"cuda"`, ...
        strategy: `"auto"` (DDP if there are several ranks), `"single"`, `"ddp"`, `"fsdp"`;
            `"local_sgd"`: ranks step alone and average their weights every `sync_every` steps;
            `"async_ps"`: ranks send gradients to a parameter server at rank 0.
        compile: run the model through torch.compile.
        rate_every: hold the learning rate for so many steps: those of an epoch, for schedules that
            are published by the epoch.
        sync_every: steps between averages of `"local_sgd"`; logs, evaluations and checkpoints fall
            on such steps. 1 is synchronous SGD.
        staleness: steps that ranks of `"async_ps"` may be apart; 0 is the synchronous order. They
            meet where the run logs, evaluates or saves.
    """

    steps: int
    batch_size: int = 0
    lr: float = 1e-3
    min_lr: float = 0.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    decay_start: int = 0
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    decay_all: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False
    clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    ema_warmup: bool = False
    precision: str = "fp32"
    max_logit_scale: float = 100.0
    seed: int = 0
    best: str | None = None
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    log_every: int = 10
    eval_every: int = 0
    seconds_limit_s: float = 0.0
    tensorboard: bool = False
    device: str = "auto"
    strategy: str = "auto"
    compile: bool = False
    rate_every: int = field(default=1, metadata=LATER)
    sync_every: int = field(default=1, metadata=LATER)
    staleness: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        check_choice(self.optimizer, OPTIMIZERS, "TrainConfig.optimizer")
        check_choice(self.schedule, SCHEDULES, "TrainConfig.schedule")
        check_choice(self.precision, PRECISIONS, "TrainConfig.precision")
        check_choice(self.strategy, STRATEGIES, "TrainConfig.strategy")
        for name in (
            "steps",
            "accumulate",
            "keep_checkpoints",
            "log_every",
            "rate_every",
            "sync_every",
        ):
            _at_least(name, getattr(self, name), 1)
        for name in (
            "batch_size",
            "warmup_steps",
            "decay_start",
            "checkpoint_every",
            "eval_every",
            "staleness",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("min_lr", "weight_decay", "momentum", "seconds_limit_s"):
            _at_least(name, getattr(self, name), 0)
        for name in ("lr", "eps", "max_logit_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"TrainConfig.{name}: expected more than 0, got {getattr(self, name)}."
                )
        if self.min_lr > self.lr:
            raise ConfigError(
                f"TrainConfig.min_lr: {self.min_lr} is above the peak learning rate {self.lr}."
            )
        if self.warmup_steps >= self.steps and self.warmup_steps:
            raise ConfigError(
                f"TrainConfig.warmup_steps: {self.warmup_steps} of {self.steps} steps; the warm-up "
                "must end before the run does."
            )
        if self.decay_start >= self.steps:
            raise ConfigError(
                f"TrainConfig.decay_start: {self.decay_start} of {self.steps} steps; nothing is "
                "left to decay."
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(
                f"TrainConfig.clip_norm: expected more than 0 or null, got {self.clip_norm}."
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(
                f"TrainConfig.ema_decay: expected a number between 0 and 1 or null, got "
                f"{self.ema_decay}."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"TrainConfig.betas: expected values in [0, 1), got {self.betas}.")
        if self.nesterov and not self.momentum:
            raise ConfigError("TrainConfig.nesterov: needs a momentum above 0.")
        self._check_strategy()

    def _check_strategy(self) -> None:
        for name, strategy, least in (("sync_every", "local_sgd", 1), ("staleness", "async_ps", 0)):
            value = getattr(self, name)
            if value != least and self.strategy != strategy:
                raise ConfigError(
                    f"TrainConfig.{name}: {value} is for strategy '{strategy}', got "
                    f"'{self.strategy}'."
                )
        if self.strategy in APART and self.precision == "fp16":
            raise ConfigError(
                f"TrainConfig.precision: fp16 with strategy '{self.strategy}': ranks would scale "
                "their gradients apart; use bf16 or fp32."
            )
        for name in ("log_every", "eval_every", "checkpoint_every"):
            if getattr(self, name) % self.sync_every:
                raise ConfigError(
                    f"TrainConfig.{name}: {getattr(self, name)} is no multiple of sync_every "
                    f"({self.sync_every}): ranks are equal only there; make it one."
                )

    @property
    def samples_seen(self) -> int:
        """Samples of the whole run; 0 if `batch_size` is not given."""
        return self.steps * self.batch_size

    def seeded(self, seed: int) -> TrainConfig:
        """Return the same budget with the seed of what it trains.

        Whoever trains has one seed, of weights, order and everything random inside a step.

        Raises:
            ConfigError: this configuration names another seed.
        """
        if self.seed not in (0, seed):
            raise ConfigError(
                f"train.seed: {self.seed}, but seed is {seed}; a run has one seed: give it as seed "
                "and leave train.seed out."
            )
        return replace(self, seed=seed)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what is learned; a resumed run must have equal ones."""
        found = {k: v for k, v in to_dict(self).items() if k not in OPERATIONAL}
        # Where and how, except for strategies that change what is learned.
        return {**found, "strategy": self.strategy} if self.strategy in APART else found


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"TrainConfig.{name}: expected at least {least}, got {value}.")
