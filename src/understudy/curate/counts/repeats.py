"""Repeating a whole set: what further epochs are worth, and which weight decay goes with them.

Data-constrained scaling ("Scaling Data-Constrained Language Models", arXiv 2305.16264): U unique
tokens seen in E epochs are worth D' = U + U R* (1 - exp(-R / R*)) fresh ones, R = E - 1. It was
fitted under default weight decay; stronger decay makes repeats worth more, so `fit_r_star` takes a
user's own sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import ConfigError

R_STAR = 15.39
"""Published decay constant of repeats (arXiv 2305.16264)."""
DECAY_FACTORS = (1, 2, 4, 8, 16)
"""Candidates g(E) of the weight decay wd(E) = wd_0 g(E)."""


def effective_tokens(unique: float, epochs: float, r_star: float = R_STAR) -> float:
    """Return D', the fresh tokens that `epochs` passes over `unique` tokens are worth.

    Raises:
        ConfigError: less than one epoch, or no tokens.
    """
    if unique <= 0 or epochs < 1:
        raise ConfigError(
            f"effective_tokens: expected tokens above 0 and at least 1 epoch, got {unique:,} and "
            f"{epochs:g}."
        )
    return unique + unique * r_star * -math.expm1(-(epochs - 1) / r_star)


def fit_r_star(points: Sequence[tuple[float, float]]) -> float:
    """Return the R* that fits a user's own sweep best, by least squares on D' / U.

    Args:
        points: (epochs, tokens worth / unique tokens), at least one of more than one epoch. What
            repeats are worth is read off a curve of single-epoch runs: the fresh tokens that give
            the same held-out loss.

    Raises:
        ConfigError: no point of more than one epoch.
    """
    useful = [(e, w) for e, w in points if e > 1]
    if not useful:
        raise ConfigError("fit_r_star: needs a point of more than one epoch.")

    def error(log_r: float) -> float:
        r = math.exp(log_r)
        return sum((effective_tokens(1.0, e, r) - w) ** 2 for e, w in useful)

    grid = [math.log(0.01) + i * (math.log(1e5) - math.log(0.01)) / 400 for i in range(401)]
    best = min(range(len(grid)), key=lambda i: error(grid[i]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    for _ in range(100):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if error(a) < error(b) else (a, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecayChoice:
    """The weight decay that a sweep on a smaller scale chose.

    Attributes:
        weight_decay: the best one.
        factor: over the usual one.
        epochs: of the sweep's runs.
        losses: held-out loss by weight decay, mean over seeds.
    """

    weight_decay: float
    factor: float
    epochs: float
    losses: Mapping[float, float]


def choose_decay(
    losses: Mapping[float, Sequence[float]], *, base: float, epochs: float
) -> DecayChoice:
    """Return the weight decay of the lowest mean held-out loss; the smaller one of equals.

    Args:
        losses: held-out loss of each seed, by weight decay.
        base: the usual, single-epoch weight decay.
        epochs: that the sweep's runs repeated their data.

    Raises:
        ConfigError: nothing was swept.
    """
    means = {wd: sum(values) / len(values) for wd, values in losses.items() if values}
    if not means:
        raise ConfigError("choose_decay: the sweep has no finished run.")
    best = min(sorted(means), key=lambda wd: means[wd])
    return DecayChoice(
        weight_decay=best, factor=best / base, epochs=epochs, losses=dict(sorted(means.items()))
    )


def plan_repeat(
    unique: int,
    budget: int,
    *,
    weight_decay: float,
    choice: DecayChoice | None = None,
    r_star: float = R_STAR,
) -> dict[str, Any]:
    """Plan a budget over a set that is repeated as a whole.

    Args:
        unique: tokens of the set.
        budget: tokens to train on.
        weight_decay: the usual one, for one epoch.
        choice: what a sweep at the same number of epochs chose; None keeps the usual one.
        r_star: see `effective_tokens`.

    Returns:
        `epochs`, `effective_tokens`, their `fraction` of the budget, `weight_decay` and its factor.

    Raises:
        ConfigError: the budget is less than one epoch, or the sweep ran at another epoch count.
    """
    if budget < unique:
        raise ConfigError(
            f"budget: {budget:,} tokens are less than one epoch of {unique:,}; nothing repeats."
        )
    epochs = budget / unique
    if choice is not None and not math.isclose(choice.epochs, epochs, rel_tol=0.05):
        raise ConfigError(
            f"weight decay: the sweep ran at {choice.epochs:g} epochs, the plan has {epochs:.3g}; "
            "the best decay depends on the repeats: sweep at the plan's number."
        )
    worth = effective_tokens(unique, epochs, r_star)
    return {
        "unique_tokens": unique,
        "budget": budget,
        "epochs": epochs,
        "effective_tokens": worth,
        "fraction": worth / budget,
        "weight_decay": choice.weight_decay if choice else weight_decay,
        "decay_factor": choice.factor if choice else 1.0,
    }
