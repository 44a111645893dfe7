"""Budgets of small runs on image-text pairs, for recipes and claims."""

from __future__ import annotations

from typing import Any

from understudy.train.config import TrainConfig


def small_budget(**changes: Any) -> TrainConfig:
    """Return a few minutes of training on a laptop, with averaged weights and the best ones kept.

    Args:
        **changes: fields of `TrainConfig` to replace.
    """
    usual: dict[str, Any] = {
        "steps": 1500,
        "batch_size": 64,
        "lr": 2e-3,
        "warmup_steps": 100,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
        "ema_warmup": True,
        "best": "retrieval.mean_r1",
        "eval_every": 500,
    }
    return TrainConfig(**{**usual, **changes})


def claim_budget(steps: int, batch_size: int, lr: float, **changes: Any) -> TrainConfig:
    """Return the budget of one arm of a claim: on the processor, resumable, final weights only.

    Args:
        steps: optimiser steps; a fifteenth of them warm up.
        batch_size: pairs a step.
        lr: peak learning rate.
        **changes: fields of `TrainConfig` to replace.
    """
    usual: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "warmup_steps": steps // 15,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "device": "cpu",
        "log_every": 50,
        "checkpoint_every": max(steps // 3, 1),
        "keep_checkpoints": 1,
    }
    return TrainConfig(**{**usual, **changes})
