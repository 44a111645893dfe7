"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math

from understudy.train.config import TrainConfig


def cosine(progress: float, start: float, end: float) -> float:
    """Return the half-cosine from `start` (progress 0) to `end` (progress 1)."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear(progress: float, start: float, end: float) -> float:
    """Return the straight line from `start` (progress 0) to `end` (progress 1)."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def decay_start(config: TrainConfig) -> int:
    """Return the step at which the rate begins to fall."""
    if config.schedule == "constant":
        return config.steps
    if config.schedule in ("cosine", "linear"):
        return config.warmup_steps
    default = 0.5 if config.schedule == "constant-cosine" else 0.8
    return max(config.decay_start or int(default * config.steps), config.warmup_steps)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of optimiser step `step` (from 0).

    The warm-up grows linearly and reaches the peak at its last step. A decaying schedule starts at
    the peak and comes within one step of `min_lr` at the last one (reaching it there would waste
    that step when `min_lr` is 0). With `rate_every` all steps of a run of so many have the rate of
    its first step, in warm-up that of its last one: lr (e + 1) / E in epoch e of E.
    """
    step -= step % config.rate_every
    if step < config.warmup_steps:
        return config.lr * min((step + config.rate_every) / config.warmup_steps, 1.0)
    start = decay_start(config)
    if step < start:
        return config.lr
    progress = (step - start) / max(config.steps - start, 1)
    shape = cosine if config.schedule in ("cosine", "constant-cosine") else linear
    return shape(progress, config.lr, config.min_lr)
