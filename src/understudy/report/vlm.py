"""Pages of vision-language models: where the first token's time goes, and which settings pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.compress.ttft import LEAST_SAMPLES, PARTS, TTFT
from understudy.core.files import read_json
from understudy.evaluate.pareto import Point, frontier, table
from understudy.report import figures
from understudy.report.figures import Figure
from understudy.report.page import Page


def pareto_figure(points: Sequence[Point], x: str, y: str, group: str = "") -> Figure:
    """Return the points of a sweep with the line through those that are kept.

    Args:
        points: cost to the right, score upwards.
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis.
        group: fact by which points are coloured; empty for one colour.
    """
    kept = frontier(points)
    names = list(dict.fromkeys(str(p.facts.get(group, "points")) for p in points))
    data: list[dict[str, Any]] = []
    for name in names:
        mine = [p for p in points if str(p.facts.get(group, "points")) == name]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [p.cost for p in mine],
                "y": [p.score for p in mine],
                "text": [p.name for p in mine],
                "marker": {"size": 10},
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "no other is faster and better",
            "x": [p.cost for p in kept],
            "y": [p.score for p in kept],
            "line": {"dash": "dot", "color": "#5b6470"},
        }
    )
    base = figures.curves({}, x, y)
    return {"data": data, "layout": base["layout"]}


def ttft_figure(results: Sequence[TTFT]) -> Figure:
    """Return stacked bars of the parts, one a model and resolution."""
    rows = {f"{r.name} at {r.resolution}": dict(r.parts_ms) for r in results}
    return figures.stacked(rows, "milliseconds")


def ttft_page(results: Sequence[TTFT]) -> Page:
    """Return a page with the table, the bars, and ratios where the samples allow them."""
    page = Page("Time to the first token", "From a picture file to the first token of the answer.")
    page.section("Parts")
    header = ("model", "px", "visual tokens", *PARTS, "full TTFT", "paper TTFT")
    page.table(
        header,
        [
            (
                r.name, r.resolution, r.visual_tokens, *(r.parts_ms[p] for p in PARTS),
                r.end_to_end_ms, r.paper_ms,
            )
            for r in results
        ],
        caption="Milliseconds, medians. Paper TTFT: vision + prefill of the visual tokens alone.",
    )  # fmt: skip
    page.figure(ttft_figure(results), height=120 + 44 * len(results))
    if len(results) > 1:
        page.section("Ratios")
        first = results[0]
        if min(r.samples for r in results) < LEAST_SAMPLES or min(r.warmup for r in results) < 1:
            page.text(f"No ratios: they need {LEAST_SAMPLES} samples and a warm-up round.", "bad")
        else:
            page.table(
                ("model", "px", "full TTFT over the first row", "paper TTFT over the first row"),
                [
                    (r.name, r.resolution, r.end_to_end_ms / first.end_to_end_ms,
                     r.paper_ms / first.paper_ms)
                    for r in results
                ],
            )  # fmt: skip
    return page


def write_ttft_page(results: Sequence[TTFT], path: str | Path) -> Path:
    """Write `ttft_page` and return its path."""
    return ttft_page(results).write(path)


def sweep_page(points: Sequence[Point], *, title: str, cost: str, score: str) -> Page:
    """Return a page with a sweep as table and plot.

    Args:
        points: the settings.
        title: of the page.
        cost: what the costs are, with their unit.
        score: what the scores are.
    """
    page = Page(title, "A setting is kept if no other is both faster and better.")
    page.section("Settings")
    rows = table(points)
    facts = [key for key in rows[0] if key not in ("name", "cost", "score", "kept")]
    page.table(
        ("setting", *facts, cost, score, "kept"),
        [
            (r["name"], *(r[f] for f in facts), float(r["cost"]), float(r["score"]), r["kept"])
            for r in rows
        ],
        strong=[i for i, r in enumerate(rows) if r["kept"]],
    )
    page.figure(pareto_figure(points, cost, score, group="language"), height=420)
    return page


def write_sweep(folder: str | Path, *, title: str) -> Path:
    """Write `sweep.html` beside a sweep's `result.json` and return its path.

    Args:
        folder: of the recipe's run.
        title: of the page.
    """
    found = read_json(Path(folder) / "result.json")["sweep"]
    given = ("name", "cost", "score", "kept")
    points = [
        Point(
            name=row["name"],
            cost=row["cost"],
            score=row["score"],
            facts={key: value for key, value in row.items() if key not in given},
        )
        for row in found
    ]
    page = sweep_page(points, title=title, cost="full TTFT, ms", score="accuracy")
    return page.write(Path(folder) / "sweep.html")
