"""Pages of updates: backfilling curves, transfer matrices over time, compute against quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.figures import Figure
from understudy.report.page import Page

PAGE = "curve.html"
_ORACLE = "distance"
_DASHES = {"random": "dot", "distance": "dash", "ascending": "dashdot"}


def _words(metric: str) -> str:
    """Return a metric's name for people."""
    return "mAP" if metric == "map" else metric.replace("cmc_", "CMC-")


def _set(curves: Mapping[str, Any], metric: str, y: str) -> Figure:
    """Return one line an order; brackets (random, oracle, reversed) are not solid."""
    series = {
        name: (curves["fractions"], curve["gap"] if metric == "gap" else curve["metrics"][metric])
        for name, curve in curves["orders"].items()
    }
    made = figures.curves(series, "fraction encoded again", y, markers=True)
    for line in made["data"]:
        if line["name"] in _DASHES:
            line["line"] = {"dash": _DASHES[line["name"]]}
    return made


def curve_figure(curves: Mapping[str, Any], metric: str) -> Figure:
    """Return a metric against the fraction that is backfilled, one line an order.

    Args:
        curves: what `understudy.update.curve_files.to_plain` gives.
        metric: one of its metrics.
    """
    return _set(curves, metric, _words(metric))


def gap_figure(curves: Mapping[str, Any]) -> Figure:
    """Return the gap between groups against the fraction that is backfilled."""
    return _set(curves, "gap", f"CMC-1 of the others - CMC-1 of '{curves['minority']}'")


def transfer_figure(
    matrix: Sequence[Sequence[float | None]],
    names: Sequence[str],
    metric: str = "score",
) -> Figure:
    """Return a heat map of T x T scores: row i trained up to period i, column j tested on j.

    Below the diagonal is backward transfer, above it forward transfer.

    Args:
        matrix: [T, T]; None or NaN where there is no score.
        names: of the T periods.
        metric: what the scores are.

    Raises:
        DataError: not a square of as many names.
    """
    table = np.array([[np.nan if v is None else v for v in row] for row in matrix], float)
    if table.shape != (len(names), len(names)):
        raise DataError(
            f"transfer matrix: expected [{len(names)}, {len(names)}] for {len(names)} periods, got "
            f"{list(table.shape)}."
        )
    plain = [[None if np.isnan(v) else float(v) for v in row] for row in table]
    heat = {
        "type": "heatmap",
        "z": plain,
        "x": list(names),
        "y": list(names),
        "text": [["" if v is None else f"{v:.3g}" for v in row] for row in plain],
        "texttemplate": "%{text}",
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": metric}},
    }
    axis = {"type": "category", "automargin": True}
    layout = figures.curves({}, "tested on", "trained up to")["layout"]
    layout["showlegend"] = False
    layout["xaxis"] |= axis
    layout["yaxis"] |= {**axis, "autorange": "reversed"}  # time runs down, as in a table
    return {"data": [heat], "layout": layout}


def compute_figure(
    points: Sequence[Mapping[str, Any]], quality: str, compute: str = "compute"
) -> Figure:
    """Return quality against compute, one mark a method, with seeds as small dots.

    Args:
        points: each with `name`, `compute` and `quality`, or `qualities` of several seeds.
        quality: title of the vertical axis.
        compute: title of the horizontal axis, with its unit.
    """
    data: list[dict[str, Any]] = []
    for point in points:
        values = [float(v) for v in point.get("qualities") or [point["quality"]]]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": point["name"],
                "x": [point["compute"]],
                "y": [float(np.mean(values))],
                "marker": {"size": 11},
            }
        )
        if len(values) > 1:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [point["compute"]] * len(values),
                    "y": values,
                    "marker": {"size": 5, "color": "#5b6470"},
                    "showlegend": False,
                    "hoverinfo": "y",
                }
            )
    layout = figures.curves({}, compute, quality)["layout"]
    return {"data": data, "layout": layout}


def _areas(page: Page, curves: Mapping[str, Any]) -> None:
    metrics = list(next(iter(curves["orders"].values()))["metrics"])
    main = "map" if "map" in metrics else metrics[-1]
    word = _words(main)
    header = ("order", *(f"AUC {_words(m)}" for m in metrics), f"trapezoid {word}", f"{word} at 0",
              f"{word} at 1", "fraction for 95%", "falls", "orders averaged")  # fmt: skip
    rows = [
        (
            name,
            *(curve["auc"][m] for m in metrics),
            curve["auc_trapezoid"][main],
            curve["metrics"][main][0],
            curve["metrics"][main][-1],
            curve["beta_95"][main],
            curve["violations"][main],
            curve["permutations"],
        )
        for name, curve in curves["orders"].items()
    ]
    column = 1 + metrics.index(main)
    real = [i for i, row in enumerate(rows) if row[0] != _ORACLE]  # what can be had
    page.table(header, rows, strong=[max(real, key=lambda i: rows[i][column])] if real else [])
    page.text(
        "AUC is the mean over the points of the grid, the published metric; the trapezoid weighs "
        "the two ends half. Random orders are averaged; distance is an oracle that knows the new "
        "vectors; ascending is the reverse of the uncertainty order.",
        "note",
    )


def curve_page(curves: Mapping[str, Any], title: str = "Backfilling") -> Page:
    """Return the page of a set of curves.

    Args:
        curves: what `understudy.update.curve_files.to_plain` gives, facts included.
        title: of the page.
    """
    items = f"{curves['items']:,} items, " if "items" in curves else ""
    page = Page(
        title,
        f"{items}{curves['queries']:,} queries ({curves['excluded']:,} have nothing relevant and "
        f"are left out), distance {curves['metric']}.",
    )
    page.section("Areas under the curves")
    _areas(page, curves)
    if curves.get("spearman") is not None:
        page.text(f"Spearman correlation of uncertainty and error: {curves['spearman']:.3f}.")
    if "old_old" in curves:
        gain = curves.get("update_gain")
        share = "" if gain is None else f" and has {gain:.0%} of a full re-encoding's gain"
        beats = "beats" if curves["compatible"] else "does not beat"
        page.text(
            f"The map alone {beats} the old model (mAP {curves['old_old']['map']:.4f}){share}.",
            "good" if curves["compatible"] else "bad",
        )
    for metric in next(iter(curves["orders"].values()))["metrics"]:
        page.section(_words(metric))
        page.figure(curve_figure(curves, metric))
    if any(curve["gap"] for curve in curves["orders"].values()):
        page.section(f"Gap of '{curves['minority']}'")
        page.figure(gap_figure(curves), caption="Above 0 the minority is worse off.")
        page.table(
            ("order", "AUC of the gap", "gap at 0", "gap at 1"),
            [(n, c["gap_auc"], c["gap"][0], c["gap"][-1]) for n, c in curves["orders"].items()],
        )
    return page


def compute_section(
    page: Page, points: Sequence[Mapping[str, Any]], quality: str, compute: str
) -> None:
    """Add compute against quality, as a figure and a table, to a page.

    Args:
        page: to add to.
        points: as for `compute_figure`.
        quality: what quality is.
        compute: what compute is, with its unit.
    """
    page.section("Compute against quality")
    page.figure(compute_figure(points, quality, compute))
    rows = []
    for point in points:
        values = point.get("qualities") or [point["quality"]]
        rows.append((point["name"], float(point["compute"]), float(np.mean(values)), len(values)))
    page.table(("method", compute, quality, "seeds"), rows)


def write_curve_page(folder: str | Path, *, title: str = "Backfilling") -> Path:
    """Write `curve.html` beside a `curve.json` and return its path.

    Args:
        folder: where `understudy update curve` wrote.
        title: of the page.
    """
    folder = Path(folder)
    return curve_page(read_json(folder / "curve.json"), title).write(folder / PAGE)
