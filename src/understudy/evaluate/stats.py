"""Statistics of a few paired numbers: means, standard errors, bootstrap intervals.

Seeds pair the arms of a comparison: the same data, the same initial weights, the same order. The
difference is taken within a seed first, so that what the seeds have in common cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from understudy.core.errors import DataError
from understudy.core.seeds import rng

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
        mean: the mean of the values.
        low: lower end of the interval.
        high: upper end of the interval.
        standard_error: standard deviation (n - 1) over the square root of n; NaN for one value.
        count: how many values.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    count: int


def _values(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{name}: expected a list of at least one number, got {array.shape}.")
    return array


def standard_error(values: ArrayLike) -> float:
    """Return the standard error of the mean; NaN for a single value."""
    array = _values(values, "standard_error")
    if len(array) < 2:
        return float("nan")
    return float(array.std(ddof=1) / np.sqrt(len(array)))


def bootstrap(
    values: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of `values` with its percentile bootstrap interval.

    Args:
        values: [n] numbers, one per seed (or per test item).
        level: coverage of the interval, between 0 and 1.
        resamples: number of resamples with replacement.
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        the interval; its ends equal the mean for one value, and are NaN if a value is.

    Raises:
        DataError: no values, or `level` outside (0, 1).
    """
    array = _values(values, "bootstrap")
    if not 0 < level < 1:
        raise DataError(f"bootstrap: level must lie between 0 and 1, got {level}.")
    means = np.empty(resamples)
    generator = rng("bootstrap", seed, len(array), resamples)
    chunk = max(1, 4_000_000 // len(array))  # 32 MB of indices at most, whatever n is
    for start in range(0, resamples, chunk):
        stop = min(start + chunk, resamples)
        draw = generator.integers(0, len(array), size=(stop - start, len(array)))
        means[start:stop] = array[draw].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(
        mean=float(array.mean()),
        low=float(low),
        high=float(high),
        standard_error=standard_error(array),
        count=len(array),
    )


def paired_bootstrap(
    better: ArrayLike,
    worse: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of the paired differences `better - worse` with its bootstrap interval.

    Args:
        better: [n] results of one arm, by seed.
        worse: [n] results of the other arm, in the same order of seeds.
        level: coverage of the interval.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        DataError: the two lists differ in length or are empty.
    """
    a, b = _values(better, "paired_bootstrap"), _values(worse, "paired_bootstrap")
    if len(a) != len(b):
        raise DataError(
            f"paired_bootstrap: {len(a)} and {len(b)} values cannot be paired; run both arms on "
            "the same seeds."
        )
    return bootstrap(a - b, level=level, resamples=resamples, seed=seed)


def mean_and_spread(values: Sequence[float]) -> str:
    """Return `"mean ± standard deviation"` to four digits, for tables."""
    array = _values(values, "mean_and_spread")
    if len(array) < 2:
        return f"{array.mean():.4g}"
    return f"{array.mean():.4g} ± {array.std(ddof=1):.2g}"


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank.

    Args:
        first: [n] numbers.
        second: [n] numbers in the same order.

    Returns:
        rho in [-1, 1]; NaN where one list is constant.

    Raises:
        DataError: the lists differ in length, or have fewer than two values.
    """
    a, b = _values(first, "spearman"), _values(second, "spearman")
    if len(a) != len(b) or len(a) < 2:
        raise DataError(f"spearman: {len(a)} and {len(b)} values; expected two equal lists.")
    ranks = [(v[:, None] > v).sum(1) + 0.5 * ((v[:, None] == v).sum(1) - 1) for v in (a, b)]
    centred = [r - r.mean() for r in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / size) if size else float("nan")


def spikes(losses: Sequence[float], *, window: int = 20, height: float = 0.5) -> int:
    """Count the steps whose loss stands out above those before it.

    Args:
        losses: of every step, in order.
        window: steps before, whose median it is compared with; the first ones are not judged.
        height: how far above the median.
    """
    values = np.asarray(losses, np.float64)
    return sum(
        bool(values[i] > np.median(values[i - window : i]) + height)
        for i in range(window, len(values))
    )
