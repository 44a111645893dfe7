"""Two things side by side: alternating rounds, so that a slow minute meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from understudy.compress.timing import LatencyConfig, Run, threads_of, time_once, trimmed
from understudy.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How two callables compare; times in milliseconds.

    Attributes:
        a_ms: median over rounds of the trimmed mean of `a`.
        b_ms: the same of `b`.
        ratio: median over rounds of `b`'s time over `a`'s: above 1, `a` is faster.
        low: lower quartile of the rounds' ratios.
        high: upper quartile of them.
        rounds: how many.
    """

    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def compare(a: Run, b: Run, config: LatencyConfig | None = None) -> Comparison:
    """Time two callables in turn.

    Each round times both; the order turns around every round. Fewer than two rounds cannot be told
    from noise.

    Args:
        a: called without arguments.
        b: the other one; should compute the same.
        config: rounds, inferences, discard, trim, threads and device are used.

    Raises:
        ConfigError: fewer than two rounds.
    """
    config = config or LatencyConfig()
    if config.rounds < 2:
        raise ConfigError(f"compare: {config.rounds} round says nothing; give at least 2.")
    means: dict[str, list[float]] = {"a": [], "b": []}
    sides: dict[str, Callable[[], Any]] = {"a": a, "b": b}
    with threads_of(config.threads), torch.inference_mode():
        for number in range(config.rounds):
            for name in "ab" if number % 2 == 0 else "ba":
                times = [time_once(sides[name], config.device) for _ in range(config.inferences)]
                means[name].append(statistics.fmean(trimmed(times, config.discard, config.trim)))
    ratios = torch.tensor(
        [y / x for x, y in zip(means["a"], means["b"], strict=True)], dtype=torch.float64
    )
    low, middle, high = torch.quantile(
        ratios, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    ).tolist()
    return Comparison(
        a_ms=statistics.median(means["a"]),
        b_ms=statistics.median(means["b"]),
        ratio=middle,
        low=low,
        high=high,
        rounds=config.rounds,
    )
