"""Which settings are worth having: the points of a sweep that no other beats on both counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One setting of a sweep.

    Attributes:
        name: for people.
        cost: what less of is better, such as milliseconds to the first token.
        score: what more of is better, such as an accuracy.
        facts: what else is known: resolution, language model, tokens.
    """

    name: str
    cost: float
    score: float
    facts: Mapping[str, Any]


def pareto(points: Sequence[Point]) -> list[bool]:
    """Return which points are kept: no other has a lower cost and a higher score.

    Both must be better, as in arXiv 2412.13303: a point that only ties with another on one count
    stays.

    Raises:
        DataError: no points, or a number that is not finite.
    """
    if not points:
        raise DataError("pareto: no points.")
    for point in points:
        if not (math.isfinite(point.cost) and math.isfinite(point.score)):
            raise DataError(f"pareto: point '{point.name}' is not finite.")
    # going up in cost, a point is beaten if a cheaper one had a higher score
    kept = [True] * len(points)
    order = sorted(range(len(points)), key=lambda i: points[i].cost)
    best_before, best, cost = -math.inf, -math.inf, -math.inf
    for i in order:
        if points[i].cost > cost:
            best_before, cost = best, points[i].cost
        kept[i] = not best_before > points[i].score
        best = max(best, points[i].score)
    return kept


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the kept points, cheapest first."""
    kept = [point for point, keep in zip(points, pareto(points), strict=True) if keep]
    return sorted(kept, key=lambda point: (point.cost, -point.score))


def table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the sweep as rows, cheapest first: name, cost, score, facts and `kept`."""
    rows = [
        {"name": p.name, "cost": p.cost, "score": p.score, **p.facts, "kept": keep}
        for p, keep in zip(points, pareto(points), strict=True)
    ]
    return sorted(rows, key=lambda row: (row["cost"], -row["score"]))
