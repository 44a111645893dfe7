"""What a job's numbers hold: names, curves of a size that can be drawn, steps done twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from understudy.launch.state_reader import JobReader

Point = tuple[int, float | None]
"""Step and value; None where it was not finite."""


class Value(NamedTuple):
    """One value as it was logged.

    Attributes:
        step: of the job's own counting.
        t: seconds since 1970.
        name: of the metric.
        value: None where it was not finite.
        rank: of the replica.
    """

    step: int
    t: float
    name: str
    value: float | None
    rank: int


def metric_names(store: JobReader, job: str) -> dict[str, list[int]]:
    """Return the ranks that have logged each metric, by its name."""
    found: dict[str, list[int]] = {}
    rows = store._db.execute(
        "SELECT DISTINCT name, rank FROM metrics WHERE job=? ORDER BY name, rank", (job,)
    )
    for row in rows:
        found.setdefault(row["name"], []).append(row["rank"])
    return found


def values(store: JobReader, job: str) -> Iterator[Value]:
    """Yield all values in the order of their logging, those of repeated steps too."""
    rows = store._db.execute(
        "SELECT step, t, name, value, rank FROM metrics WHERE job=? ORDER BY rowid", (job,)
    )
    for row in rows:
        yield Value(*row)


def last_values(store: JobReader, job: str) -> list[Value]:
    """Return the values by name, rank and step; a step that was done again counts as the last time.

    The times are those of the values that count.
    """
    found = {(v.name, v.rank, v.step): v for v in values(store, job)}
    return [found[key] for key in sorted(found)]


def step_counts(store: JobReader, job: str) -> tuple[int, int]:
    """Return (steps that were kept, steps that were computed), as far as the numbers tell.

    The metric of rank 0 (or the lowest that logs) with the most steps counts; its step that was
    logged twice was computed twice. (0, 0) for a job without numbers.
    """
    row = store._db.execute(
        "SELECT count(DISTINCT step) AS kept, count(*) AS computed FROM metrics WHERE job=? AND "
        "rank=(SELECT min(rank) FROM metrics WHERE job=?) GROUP BY name ORDER BY kept DESC, "
        "computed LIMIT 1",
        (job, job),
    ).fetchone()
    return (row["kept"], row["computed"]) if row else (0, 0)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return a curve with about `most` points: lowest and highest value of each stretch of steps.

    Peaks stay visible; the first and the last point are kept; gaps (None) stay where a stretch has
    nothing else.
    """
    if len(points) <= most:
        return list(points)
    width = math.ceil(len(points) / max(1, most // 2))
    kept: list[Point] = [points[0]]
    for start in range(0, len(points), width):
        stretch = points[start : start + width]
        finite = [(value, i) for i, (_, value) in enumerate(stretch) if value is not None]
        chosen = sorted({min(finite)[1], max(finite)[1]}) if finite else [0]
        kept += [stretch[i] for i in chosen]
    kept.append(points[-1])
    return sorted(set(kept), key=lambda point: point[0])
