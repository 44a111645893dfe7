"""Simple ways to set counts, to compare greedy with: real-valued wishes, rounded by hash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.core.errors import ConfigError

STEPS: tuple[tuple[float, float], ...] = ((0.1, 4.0), (0.2, 2.0), (0.3, 1.0))
"""Shares of the documents from the best down, and their repeats (`threshold-steps`)."""


def uniform(count: int) -> np.ndarray:
    """Wish the same for all."""
    return np.ones(count)


def threshold_steps(
    quality: np.ndarray, steps: Sequence[tuple[float, float]] = STEPS
) -> np.ndarray:
    """Wish by rank: the best share so often, the next so often; the rest not at all."""
    wish, left = np.zeros(len(quality)), 1.0
    for share, repeats in steps:
        wish[(quality > left - share) & (quality <= left)] = repeats
        left -= share
    if left < -1e-9:
        raise ConfigError(f"steps: the shares add up to {1 - left:.2f}; they cannot exceed 1.")
    return wish


def score_linear(quality: np.ndarray) -> np.ndarray:
    """Wish in proportion to the score's quantile."""
    return quality


def dup_count(duplicates: np.ndarray, most: int) -> np.ndarray:
    """Wish what the raw pool had: partly undo the deduplication."""
    return np.minimum(duplicates, most).astype(np.float64)


def fit(wish: np.ndarray, tokens: np.ndarray, budget: int, most: int) -> np.ndarray:
    """Scale wishes, each at most `most`, so that their tokens are the budget.

    Raises:
        ConfigError: even with every wish at `most` the budget is not reached.
    """
    wanted = wish > 0
    reach = most * int(tokens[wanted].sum())
    if budget > reach:
        raise ConfigError(
            f"budget: {budget:,} tokens, but the documents that this preset uses give at most "
            f"{reach:,} with c_max {most}; that is the largest reachable budget."
        )
    low, high = 0.0, most / float(wish[wanted].min())
    for _ in range(100):
        middle = (low + high) / 2
        used = float((np.minimum(wish * middle, most) * tokens).sum())
        low, high = (low, middle) if used > budget else (middle, high)
    return np.minimum(wish * high, most)


def rounded(
    wish: np.ndarray, tokens: np.ndarray, order: np.ndarray, budget: int | None
) -> np.ndarray:
    """Round wishes to counts: floor for all, one more for some, chosen by hash and fraction.

    Args:
        wish: float64 [N].
        tokens: int64 [N].
        order: `unit_hash` of the ids.
        budget: tokens to come close to, from below; None rounds each document on its own, with the
            right mean.

    Returns:
        int64 [N]; each is the floor or the ceiling of its wish.
    """
    counts = np.floor(wish + 1e-9).astype(np.int64)
    part = np.clip(wish - counts, 0.0, None)
    part[part < 1e-9] = 0.0
    if budget is None:
        return counts + (order < part)
    left = budget - int((counts * tokens).sum())
    # sequential Poisson sampling: smallest hash over fraction first, until the budget is used
    able = np.flatnonzero(part > 0)
    able = able[np.argsort(order[able] / part[able], kind="stable")]
    fits = int(np.searchsorted(np.cumsum(tokens[able]), left, "right"))
    counts[able[:fits]] += 1
    return counts
