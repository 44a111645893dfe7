"""The page of a search for teachers' logit scales: table, curves, the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report.figures import Figure, _layout
from understudy.report.page import Page
from understudy.train.scale_search import SEARCH

PAGE = "search.html"


def scale_rows(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return table rows (teacher, scale, mean, standard error, what it is) of a `search.json`."""
    rows = []
    for curve in found["curves"]:
        flat = set(curve["flat"])
        for scale, mean, error in zip(
            curve["scales"], curve["means"], curve["errors"], strict=True
        ):
            what = "best" if scale == curve["best"] else ("flat top" if scale in flat else "")
            rows.append((curve["teacher"], scale, mean, error, what))
    return rows


def _figure(found: Mapping[str, Any]) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": curve["teacher"],
            "x": curve["scales"],
            "y": curve["means"],
            "error_y": {"type": "data", "array": curve["errors"]},
        }
        for curve in found["curves"]
    ]
    layout = _layout("logit scale", found["metric"], xaxis={"type": "log"})
    return {"data": data, "layout": {**layout, "showlegend": True}}


def scales_page(found: Mapping[str, Any]) -> Page:
    """Return the page of a `search.json`."""
    best = ", ".join(f"{name} {scale:g}" for name, scale in found["best"].items())
    page = Page("Logit scales of teachers", f"Best by {found['metric']}: {best}.")
    page.section("Scales")
    for curve in found["curves"]:
        page.text(curve["note"], "good" if curve["interior"] else "bad")
    page.figure(_figure(found), caption="Mean and standard error; the scale axis is logarithmic.")
    page.table(("teacher", "scale", found["metric"], "standard error", ""), scale_rows(found))
    page.text(
        "An ensemble keeps its members' own best scales. Students of all candidates share rows, "
        f"steps and initial weights (seeds {', '.join(map(str, found['seeds']))}).",
        "note",
    )
    return page


def write_scales(folder: str | Path) -> Path:
    """Write `<folder>/search.html` of `<folder>/search.json` and return its path."""
    return scales_page(read_json(Path(folder) / SEARCH)).write(Path(folder) / PAGE)
