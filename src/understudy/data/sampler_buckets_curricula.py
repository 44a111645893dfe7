"""Curricula over length buckets: named odds, and the order of draws that they give.

Within a cycle a step draws bucket i with probability proportional to its weight, among the buckets
that are not used up. Weights fall with the length, so short sequences run out first and every
cycle goes from mostly short to mostly long (arXiv 2405.13226, algorithm 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from understudy.core.errors import ConfigError

Odds = Mapping[int, float] | Sequence[float]

CURRICULA: Mapping[str, Callable[[int], list[float]]] = {
    "uniform": lambda n: [1.0] * n,
    "grow-linear": lambda n: [float(n - i) for i in range(n)],
    "grow-p2": lambda n: [2.0 ** (n - 1 - i) for i in range(n)],
    "grow-p100": lambda n: [100.0 ** (n - 1 - i) for i in range(n)],
}
"""Odds of n buckets, shortest first (arXiv 2405.13226, section 3.4 and appendix)."""

NAMES = (*CURRICULA, "natural", "only-<log2>")


def curriculum_odds(name: str, buckets: Sequence[int]) -> dict[int, float] | None:
    """Return the odds of a named curriculum.

    Args:
        name: `uniform`, `grow-linear`, `grow-p2`, `grow-p100`, `only-<k>` (bucket k alone) or
            `natural`.
        buckets: exponents of the buckets, in any order.

    Returns:
        Odds by bucket; `None` for `natural`, which draws in proportion to the batches that are
        left, so that there is no curriculum.

    Raises:
        ConfigError: no such curriculum, or its bucket is not there.
    """
    order = sorted(buckets)
    if name == "natural":
        return None
    if name.startswith("only-") and name[5:].isdigit():
        wanted = int(name[5:])
        if wanted not in order:
            raise ConfigError(f"curriculum {name}: no bucket 2^{wanted}; there are {show(order)}.")
        return {k: float(k == wanted) for k in order}
    if name not in CURRICULA:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"curriculum: '{name}' is not one of {', '.join(NAMES)}.{hint}")
    return dict(zip(order, CURRICULA[name](len(order)), strict=True))


def check_odds(odds: Odds, buckets: Sequence[int]) -> dict[int, float]:
    """Return given odds by bucket.

    Args:
        odds: by bucket, or a list, shortest bucket first.
        buckets: exponents of the buckets.

    Raises:
        ConfigError: the number of odds or their buckets differ, one is negative or not a number,
            or all are zero.
    """
    order = sorted(buckets)
    if isinstance(odds, Mapping):
        names, values = sorted(odds), [float(odds[k]) for k in sorted(odds)]
    else:
        names, values = order, [float(v) for v in odds]
    shown = f"odds {dict(odds) if isinstance(odds, Mapping) else values}"
    if len(values) != len(order) or list(names) != order:
        raise ConfigError(f"{shown} do not fit the buckets {show(order)}: give one for each.")
    if any(not 0 <= v < float("inf") for v in values):
        raise ConfigError(f"{shown} of the buckets {show(order)}: expected numbers of 0 or more.")
    if not any(values):
        raise ConfigError(f"{shown} of the buckets {show(order)}: at least one must be above 0.")
    return dict(zip(order, values, strict=True))


def draw_order(
    counts: np.ndarray, weights: np.ndarray | None, draw: np.random.Generator
) -> np.ndarray:
    """Return the order in which the batches of a cycle are drawn.

    Drawing by fixed weights without replacement is the order of arrivals of independent Poisson
    processes with these rates, each stopped when its batches are used up: exponential gaps have no
    memory, so the next arrival is of bucket i with probability weight_i over the sum of the weights
    that are left. That needs one sort instead of a loop over steps.

    Args:
        counts: batches of each bucket, int64 [K].
        weights: float64 [K], positive where there are batches; `None` draws in proportion to the
            batches that are left, which is a plain shuffle.
        draw: random numbers.

    Returns:
        The bucket's place (0 to K - 1) for each step, int64 [sum of counts].
    """
    places = np.repeat(np.arange(len(counts)), counts)
    if weights is None:
        return draw.permutation(places)
    times = draw.standard_exponential(len(places))
    ends = np.cumsum(counts)
    for place in np.flatnonzero(counts):
        part = slice(ends[place] - counts[place], ends[place])
        times[part] = np.cumsum(times[part]) / weights[place]
    return places[np.argsort(times, kind="stable")]


def show(buckets: Sequence[int]) -> str:
    """Return buckets for a message, such as `D_8, D_9`."""
    return ", ".join(f"D_{k}" for k in sorted(buckets))
