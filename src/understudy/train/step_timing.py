"""Compare the price of steps fairly: turn by turn in one process, so that load meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from understudy.core.errors import ConfigError
from understudy.train.config import TrainConfig
from understudy.train.optim import make_optimizer, set_training, trainable


def make_step(
    model: nn.Module,
    objective: Callable[[nn.Module, Mapping[str, Any]], Mapping[str, torch.Tensor]],
    batches: Iterable[Mapping[str, Any]],
    config: TrainConfig,
) -> Callable[[], None]:
    """Return a function that takes one whole training step: batch, forward, backward, update.

    Args:
        model: trained in place.
        objective: as for `fit`.
        batches: as many as there will be calls.
        config: of the optimiser.
    """
    set_training(model)
    optimizer = make_optimizer(trainable(model), config)
    stream: Iterator[Mapping[str, Any]] = iter(batches)
    number = 0

    def step() -> None:
        nonlocal number
        batch = {**next(stream), "step": number}
        loss = objective(model, batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        number += 1

    return step


def interleave(
    steps: Mapping[str, Callable[[], Any]], rounds: int = 20, warmup: int = 3
) -> dict[str, list[float]]:
    """Return the seconds of each function in each round.

    Every round calls every function once; the order turns around from round to round, so that none
    always follows the same one.

    Args:
        steps: what to call, by name.
        rounds: at least 1.
        warmup: rounds that are not counted.
    """
    if rounds < 1 or warmup < 0 or not steps:
        raise ConfigError(
            f"interleave: expected steps and at least one round, got {len(steps)} and {rounds}."
        )
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warmup, rounds):
        order = list(steps) if number % 2 else list(steps)[::-1]
        for name in order:
            start = time.perf_counter()
            steps[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, over: str) -> float:
    """Return the median over rounds of one function's time divided by another's."""
    pairs = zip(seconds[name], seconds[over], strict=True)
    return statistics.median(a / b for a, b in pairs)
