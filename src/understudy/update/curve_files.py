"""A set of curves as JSON, CSV and PNG."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.files import atomic_path, write_json, write_text
from understudy.update.curve import Curves

KIND = "backfilling curves"
_COLOURS = ("#2563eb", "#b42318", "#15803d", "#b45309", "#7c3aed", "#0e7490", "#4b5563")


def to_plain(curves: Curves, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return curves as JSON data.

    Args:
        curves: what to write.
        facts: more entries: plan, policy, store, Spearman correlation, other results.
    """
    plain = dataclasses.asdict(curves)
    plain["minority"] = None if curves.minority is None else str(curves.minority)
    return {"kind": KIND, "version": 1, **plain, **(facts or {})}


def curve_rows(curves: Curves) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of the CSV: one row for each order and point."""
    names = list(next(iter(curves.orders.values())).metrics)
    gaps = ["gap"] if any(c.gap for c in curves.orders.values()) else []
    rows = []
    for order, curve in curves.orders.items():
        for i, fraction in enumerate(curves.fractions):
            values = [curve.metrics[name][i] for name in names]
            rows.append([order, i, fraction, curves.cutoffs[i], *values])
            rows[-1] += [curve.gap[i]] if gaps else []
    return ["order", "point", "fraction", "items", *names, *gaps], rows


def write_curves(
    curves: Curves, folder: str | Path, facts: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write `curve.json`, `curve.csv` and `curve.png` and return their paths."""
    folder = Path(folder)
    header, rows = curve_rows(curves)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    panels = [
        (name, {order: curve.metrics[name] for order, curve in curves.orders.items()})
        for name in header[4:]
        if name != "gap"
    ]
    if "gap" in header:
        panels.append(("gap", {order: curve.gap for order, curve in curves.orders.items()}))
    png = folder / "curve.png"
    draw_lines(png, curves.fractions, panels, "fraction encoded again")
    return [
        write_json(folder / "curve.json", to_plain(curves, facts)),
        write_text(folder / "curve.csv", text.getvalue()),
        png,
    ]


def draw_lines(
    path: str | Path,
    xs: Sequence[float],
    panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
    x_title: str,
    *,
    size: tuple[int, int] = (460, 340),
) -> Path:
    """Draw panels of lines side by side into a PNG.

    Args:
        path: of the file.
        xs: horizontal values, the same for all lines.
        panels: (title, name -> values) from left to right.
        x_title: of the horizontal axes.
        size: of one panel in pixels.
    """
    from PIL import Image, ImageDraw

    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    legend = 24 * ((len(names) + 3) // 4)
    image = Image.new("RGB", (size[0] * len(panels), size[1] + legend), "white")
    draw = ImageDraw.Draw(image)
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    for number, (title, lines) in enumerate(panels):
        _panel(draw, (number * size[0], 0), size, xs, title, lines, colour, x_title)
    for i, name in enumerate(names):
        x, y = 56 + (i % 4) * 200, size[1] + 24 * (i // 4)
        draw.line([(x, y + 8), (x + 24, y + 8)], colour[name], 3)
        draw.text((x + 30, y), name, "#1f2933", font=_font(13))
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG")
    return Path(path)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _panel(
    draw: Any,
    corner: tuple[int, int],
    size: tuple[int, int],
    xs: Sequence[float],
    title: str,
    lines: Mapping[str, Sequence[float]],
    colour: Mapping[str, str],
    x_title: str,
) -> None:
    left, top = corner[0] + 56, corner[1] + 34
    right, bottom = corner[0] + size[0] - 16, corner[1] + size[1] - 46
    values = [v for line in lines.values() for v in line]
    low, high = min(values), max(values)
    pad = (high - low or max(abs(high), 1.0)) * 0.06
    low, high = low - pad, high + pad
    span = xs[-1] - xs[0] or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - xs[0]) / span * (right - left),
            bottom - (y - low) / (high - low) * (bottom - top),
        )

    draw.text((left, corner[1] + 10), title, "#1f2933", font=_font(15))
    for i in range(5):
        y = low + (high - low) * i / 4
        _, at = place(xs[0], y)
        draw.line([(left, at), (right, at)], "#e6e9ed")
        draw.text((left - 50, at - 7), f"{y:.3f}", "#5b6470", font=_font(12))
        x = xs[0] + span * i / 4
        at_x, _ = place(x, low)
        draw.text((at_x - 12, bottom + 6), f"{x:.2g}", "#5b6470", font=_font(12))
    draw.text((left, bottom + 24), x_title, "#5b6470", font=_font(12))
    for name, line in lines.items():
        path = [place(x, y) for x, y in zip(xs, line, strict=True)]
        draw.line(path, colour[name], 3, joint="curve")
        for x, y in path:
            draw.ellipse([(x - 3, y - 3), (x + 3, y + 3)], fill=colour[name])
