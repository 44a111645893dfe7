"""Figures as plain Plotly data: what to draw, without importing a plotting library.

Every function returns `{"data": [...], "layout": {...}}` for `Page.figure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Figure = dict[str, Any]


def _layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    axis = {"gridcolor": "#e6e9ed", "zeroline": False}
    return {
        "xaxis": {"title": {"text": x}, **axis, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y}, **axis, **more.pop("yaxis", {})},
        **more,
    }


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    log_y: bool = False,
    markers: bool = False,
) -> Figure:
    """Lines, one a name.

    Args:
        series: name -> (xs, ys).
        x: title of the horizontal axis.
        y: title of the vertical axis.
        log_y: logarithmic vertical axis.
        markers: mark each point.
    """
    mode = "lines+markers" if markers else "lines"
    data = [
        {"type": "scatter", "mode": mode, "name": name, "x": list(xs), "y": list(ys)}
        for name, (xs, ys) in series.items()
    ]
    layout = _layout(x, y, yaxis={"type": "log"} if log_y else {})
    return {"data": data, "layout": {**layout, "showlegend": True}}


def bars(groups: Mapping[str, Mapping[str, float]], y: str) -> Figure:
    """Bars side by side: group (a run, say) -> label (a metric, say) -> value."""
    data = [
        {
            "type": "bar",
            "name": name,
            "x": list(values),
            "y": list(values.values()),
            "text": [f"{v:.3g}" for v in values.values()],
            "textposition": "auto",
        }
        for name, values in groups.items()
    ]
    return {"data": data, "layout": {**_layout("", y), "barmode": "group", "showlegend": True}}


def seeds(arms: Mapping[str, Sequence[float | None]], metric: str) -> Figure:
    """One dot a seed for each arm, and the mean as a bar behind."""
    names = list(arms)
    shown = {n: np.array([np.nan if v is None else v for v in vs], float) for n, vs in arms.items()}
    means = [float(np.nanmean(v)) if np.isfinite(v).any() else None for v in shown.values()]
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": names, "y": means, "marker": {"color": "#cdd6e3"}, "name": "mean"}
    ]
    xs = [name for name, values in shown.items() for _ in values]
    ys = [float(v) for values in shown.values() for v in values]
    dots = {"color": "#1d4ed8", "size": 8, "opacity": 0.75}
    data.append(
        {"type": "scatter", "mode": "markers", "x": xs, "y": ys, "marker": dots, "name": "seed"}
    )
    return {"data": data, "layout": _layout("", metric)}


def intervals(rows: Sequence[tuple[str, float, float, float, float | None]], x: str) -> Figure:
    """Differences with their intervals and margins.

    Args:
        rows: (name, mean, low, high, margin or None), from top to bottom.
        x: title of the horizontal axis.
    """
    names = [name for name, *_ in rows][::-1]
    means = [mean for _, mean, *_ in rows][::-1]
    plus = [high - mean for _, mean, _, high, _ in rows][::-1]
    minus = [mean - low for _, mean, low, _, _ in rows][::-1]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": means,
            "y": names,
            "error_x": {"type": "data", "array": plus, "arrayminus": minus, "thickness": 2},
            "marker": {"size": 10, "color": "#2563eb"},
            "name": "mean and 95% interval",
        }
    ]
    marked = [(margin, name) for name, _, _, _, margin in rows if margin is not None]
    if marked:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [m for m, _ in marked],
                "y": [n for _, n in marked],
                "marker": {"symbol": "line-ns-open", "size": 18, "color": "#b42318"},
                "name": "margin",
            }
        )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    layout = _layout(x, "", yaxis={"automargin": True})
    shapes = [{**zero, "line": {"color": "#5b6470", "dash": "dot"}}]
    return {"data": data, "layout": {**layout, "shapes": shapes, "showlegend": True}}


def stacked(parts: Mapping[str, Mapping[str, float]], x: str) -> Figure:
    """Horizontal stacked bars: row -> part -> amount; for ledgers."""
    names = list(dict.fromkeys(part for row in parts.values() for part in row))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": list(parts),
            "x": [row.get(part, 0.0) for row in parts.values()],
        }
        for part in names
    ]
    layout = _layout(x, "", yaxis={"automargin": True})
    return {"data": data, "layout": {**layout, "barmode": "stack", "showlegend": True}}
