"""What follows from the points of one backfilling curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from understudy.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The metrics of one order at every point of the grid.

    Attributes:
        metrics: name -> values, one a point; the mean where several orders share the name.
        auc: name -> mean over the points, the published estimate of E[M(beta)], beta uniform.
        auc_trapezoid: name -> area under the straight lines between points.
        beta_95: name -> smallest fraction of the grid with M(beta) >= 0.95 M(1).
        violations: name -> steps at which the curve falls.
        largest_fall: name -> the largest of these falls, 0 for none.
        gap: CMC-1 of the other queries minus the minority's, one a point; empty without groups.
        gap_auc: mean of the gap over the points.
        permutations: how many orders the values are means of.
        each: name -> AUC of each of them.
    """

    metrics: dict[str, list[float]]
    auc: dict[str, float]
    auc_trapezoid: dict[str, float]
    beta_95: dict[str, float]
    violations: dict[str, int]
    largest_fall: dict[str, float]
    gap: list[float] = field(default_factory=list)
    gap_auc: float | None = None
    permutations: int = 1
    each: dict[str, list[float]] = field(default_factory=dict)


def cutoffs(count: int, points: int) -> list[int]:
    """Return floor(i * count / (points - 1)) for i = 0, ..., points - 1.

    Args:
        count: items of the order.
        points: of the grid; B intermediate steps make B + 2 points.
    """
    if points < 2:
        raise ConfigError(f"curve: points must be at least 2 (none and all), got {points}.")
    return [i * count // (points - 1) for i in range(points)]


def auc(values: Sequence[float]) -> float:
    """Return the arithmetic mean over the points of a uniform grid."""
    return float(np.mean(values))


def trapezoid(values: Sequence[float]) -> float:
    """Return the area under straight lines between the points of a uniform grid on [0, 1]."""
    v = np.asarray(values, float)
    return float((v[1:] + v[:-1]).mean() / 2)


def beta_reaching(
    fractions: Sequence[float], values: Sequence[float], share: float = 0.95
) -> float:
    """Return the smallest fraction of the grid at which a curve has `share` of its last value."""
    goal = share * values[-1]
    return float(next(b for b, v in zip(fractions, values, strict=True) if v >= goal))


def curve_of(values: Mapping[str, Sequence[float]], fractions: Sequence[float]) -> Curve:
    """Return a curve with everything that follows from its points.

    Args:
        values: metric -> value at each point.
        fractions: of the grid.
    """
    falls = {m: np.maximum(-np.diff(np.asarray(v, float)), 0.0) for m, v in values.items()}
    return Curve(
        metrics={m: [float(x) for x in v] for m, v in values.items()},
        auc={m: auc(v) for m, v in values.items()},
        auc_trapezoid={m: trapezoid(v) for m, v in values.items()},
        beta_95={m: beta_reaching(fractions, v) for m, v in values.items()},
        violations={m: int((f > 1e-12).sum()) for m, f in falls.items()},
        largest_fall={m: float(f.max(initial=0.0)) for m, f in falls.items()},
    )


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of [N] and [N]: Pearson's of ranks, ties averaged.

    NaN when one of them is constant.
    """
    ranks = [_average_ranks(np.asarray(values, float)) for values in (first, second)]
    a, b = (r - r.mean() for r in ranks)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else float("nan")


def _average_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
