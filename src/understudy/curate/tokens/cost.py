"""What a mixture of lengths costs to train on, by formula and by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from understudy.core.errors import ConfigError
from understudy.curate.tokens.stats import weighted_length
from understudy.models.language.cost import training_flop
from understudy.models.language.decoder_config import DecoderConfig


def mixture_flop(tokens: Mapping[int, float], config: DecoderConfig) -> float:
    """Return mean training operations per token of a mixture of buckets.

    Attention is linear in the length a token sits in, so the mean is `training_flop` at the
    token-weighted mean length.

    Args:
        tokens: tokens by bucket (log2 of the length), in any unit.
        config: of the network.
    """
    return training_flop(config, weighted_length(tokens))


def saving(tokens: Mapping[int, float], context: int, config: DecoderConfig) -> float:
    """Return which part of the operations a mixture saves against rows of one length.

    Args:
        tokens: tokens by bucket (log2 of the length), in any unit.
        context: input tokens of a concat-and-chunk row.
        config: of the network.
    """
    return 1 - mixture_flop(tokens, config) / training_flop(config, context)


@dataclass(frozen=True, slots=True)
class StepTime:
    """Measured seconds of a step.

    Attributes:
        median: of the repeats.
        low: shortest.
        high: longest.
    """

    median: float
    low: float
    high: float


def measure_steps(
    step: Callable[[int], object],
    lengths: Iterable[int],
    *,
    warmup: int = 3,
    repeats: int = 10,
    finish: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, StepTime]:
    """Measure a training step at each length; real kernels deviate from the count of operations.

    Args:
        step: trains one step on sequences of the length that it is given.
        lengths: input tokens of a sequence.
        warmup: steps before the clock starts (compilation, caches).
        repeats: measured steps.
        finish: waits for the device.
        clock: seconds.

    Raises:
        ConfigError: nothing to repeat.
    """
    if warmup < 0 or repeats < 1:
        raise ConfigError(
            f"measure_steps: expected warmup of 0 or more and repeats of 1 or more, got {warmup} "
            f"and {repeats}."
        )
    found = {}
    for length in lengths:
        for _ in range(warmup):
            step(length)
        seconds = []
        for _ in range(repeats):
            finish()
            start = clock()
            step(length)
            finish()
            seconds.append(clock() - start)
        found[length] = StepTime(statistics.median(seconds), min(seconds), max(seconds))
    return found


def mixture_seconds(steps: Mapping[int, float], times: Mapping[int, StepTime]) -> float:
    """Return the seconds of a run from the measured steps.

    Args:
        steps: how many by bucket (log2 of the length).
        times: of a step, by length.

    Raises:
        ConfigError: a bucket was not measured.
    """
    lacks = [k for k in steps if 1 << k not in times]
    if lacks:
        raise ConfigError(f"step times: length {1 << lacks[0]} was not measured.")
    return sum(n * times[1 << k].median for k, n in steps.items())
