"""Towers timed turn by turn at several resolutions: whether one is faster, and by what factor.

Rounds of the bench loop (`understudy.compress.timing`) alternate between the towers, so that what
else the machine does meets all of them alike; factors are taken round by round.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from understudy.compress.timing import LatencyConfig, threads_of, time_once, trimmed
from understudy.core.errors import ConfigError

Times = dict[str, dict[int, list[float]]]
"""Tower -> resolution -> trimmed mean of each round, milliseconds."""


def check_equal_size(towers: Mapping[str, nn.Module], tolerance: float = 0.02) -> dict[str, int]:
    """Return the towers' parameters after checking that they are equal.

    Args:
        towers: by name.
        tolerance: largest difference, as a share of the first one's.

    Raises:
        ConfigError: one differs by more.
    """
    counts = {name: sum(p.numel() for p in tower.parameters()) for name, tower in towers.items()}
    first = next(iter(counts.values()))
    for name, count in counts.items():
        if abs(count - first) > tolerance * first:
            raise ConfigError(
                f"race: {name} has {count:,} parameters, the first tower {first:,}; they may "
                f"differ by {tolerance:.0%}."
            )
    return counts


def race(
    towers: Mapping[str, nn.Module], resolutions: Sequence[int], config: LatencyConfig
) -> Times:
    """Time towers at resolutions.

    Args:
        towers: by name, folded, in eval mode; called with float32 [batch, 3, R, R] in [0, 1].
        resolutions: sides of the images in pixels.
        config: rounds, inferences, what is discarded and trimmed, threads and batch.

    Raises:
        ConfigError: no tower or no resolution.
    """
    if not towers or not resolutions:
        raise ConfigError("race: name at least one tower and one resolution.")
    found: Times = {name: {r: [] for r in resolutions} for name in towers}
    generator = torch.Generator().manual_seed(0)
    with threads_of(config.threads), torch.inference_mode():
        for side in resolutions:
            images = torch.rand(config.batch, 3, side, side, generator=generator)
            for number in range(config.rounds):
                order = list(towers) if number % 2 else list(towers)[::-1]
                for name in order:
                    tower = towers[name]
                    taken = [
                        time_once(lambda tower=tower, images=images: tower(images), config.device)
                        for _ in range(config.inferences)
                    ]
                    kept = trimmed(taken, config.discard, config.trim)
                    found[name][side].append(statistics.fmean(kept))
    return found


def factor(times: Times, slow: str, fast: str, resolution: int) -> float:
    """Return how many times longer one tower takes: the median over rounds."""
    pairs = zip(times[slow][resolution], times[fast][resolution], strict=True)
    return statistics.median(a / b for a, b in pairs)
