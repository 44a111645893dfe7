"""Score against labels: how many labels a score takes, and how many times fewer another arm needs.

Efficiency of A over B at score s = labels that B needs / labels that A needs, by interpolation that
is linear in the logarithm of the labels (arXiv 2405.08911 reports 10x for quality captions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from understudy.core.errors import DataError

Curve = Mapping[int, float]
"""Labels -> score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """How many labels a score takes.

    Attributes:
        labels: the number; the nearest end of the curve where the score lies outside of it.
        bound: `""` if it was interpolated, `"at most"` if the smallest count reaches the score
            already, `"more than"` if the largest doesn't.
    """

    labels: float
    bound: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """How many times fewer labels one arm needs than another.

    Attributes:
        ratio: labels of the other / labels of this one.
        bound: `""`, `"at least"` or `"at most"`, where a curve ends before the score.
    """

    ratio: float
    bound: str = ""

    def __str__(self) -> str:
        return f"{self.bound} {self.ratio:.3g}x".strip()


def labels_needed(curve: Curve, score: float, *, lower_is_better: bool = False) -> Needed:
    """Return the fewest labels at which a curve reaches a score.

    Between two counts the score is linear in log(labels). Where a curve falls and rises again, the
    first time counts.

    Args:
        curve: labels -> score, at least one.
        score: to be reached.
        lower_is_better: the metric is an error.

    Raises:
        DataError: no point, or a count or score that is not a number.
    """
    if not curve:
        raise DataError("label curve: no point on it.")
    sign = -1.0 if lower_is_better else 1.0
    points = sorted((float(n), sign * float(v)) for n, v in curve.items())
    if points[0][0] <= 0 or any(not math.isfinite(x) for pair in points for x in pair):
        raise DataError("label curve: expected positive counts and finite scores.")
    goal = sign * float(score)
    if points[0][1] >= goal:
        return Needed(labels=points[0][0], bound="" if points[0][1] == goal else "at most")
    for (n0, v0), (n1, v1) in pairwise(points):
        if v1 >= goal:
            share = (goal - v0) / (v1 - v0)
            return Needed(labels=math.exp(math.log(n0) + share * (math.log(n1) - math.log(n0))))
    return Needed(labels=points[-1][0], bound="more than")


def label_efficiency(
    curve: Curve, other: Curve, score: float, *, lower_is_better: bool = False
) -> Efficiency:
    """Return labels that `other` needs for a score / labels that `curve` needs.

    Raises:
        DataError: neither reaches the score, or both do with their fewest labels, so that nothing
            can be said.
    """
    mine = labels_needed(curve, score, lower_is_better=lower_is_better)
    theirs = labels_needed(other, score, lower_is_better=lower_is_better)
    if mine.bound and mine.bound == theirs.bound:
        what = "both with the fewest" if mine.bound == "at most" else "neither with the most"
        raise DataError(
            f"label efficiency at {score:.4g}: reached by {what} labels; choose another."
        )
    bound = ""
    if mine.bound == "at most" or theirs.bound == "more than":
        bound = "at least"
    if mine.bound == "more than" or theirs.bound == "at most":
        bound = "at most"
    return Efficiency(ratio=theirs.labels / mine.labels, bound=bound)


def relative_gain(after: float, before: float) -> str:
    """Return a change relative to where it began: `relative_gain(53.9, 48.1)` is `"+12.1%"`.

    Raises:
        DataError: `before` is not positive.
    """
    if not before > 0:
        raise DataError(f"relative gain: expected a positive value to compare with, got {before}.")
    return f"{100 * (after / before - 1):+.1f}%"
