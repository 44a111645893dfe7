"""Draw the solver's benchmark: seconds, iterations and memory against the number of unknowns.

.venv/bin/python benchmarks/solver_plots.py      # of benchmarks/results/solver.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from common import RESULTS

QUANTITIES = (
    ("total_s", "seconds, setup and solve"),
    ("iterations", "iterations"),
    ("floats_per_entry", "stored numbers an entry"),
)
WIDTH, HEIGHT, LEFT, TOP, GAP = 180, 130, 64, 34, 46
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
           "#bcbd22", "#17becf", "#393b79", "#637939")  # fmt: skip


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write an SVG: a column for each family of several sizes, a line for each method.

    Both axes are logarithmic; a method that a family could not be solved by has no line.
    """
    sizes: dict[str, set[int]] = {}
    for row in rows:
        sizes.setdefault(row["family"], set()).add(row["n"])
    families = [family for family, found in sizes.items() if len(found) > 1]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colour = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(methods)}
    parts: list[str] = []
    for column, family in enumerate(families):
        x0 = LEFT + column * (WIDTH + GAP)
        parts.append(_text(x0 + WIDTH / 2, TOP - 12, family, 12, "middle"))
        for line, (key, label) in enumerate(QUANTITIES):
            y0 = TOP + line * (HEIGHT + GAP)
            lines = {m: _points(rows, family, m, key) for m in methods}
            parts += _panel(x0, y0, {m: p for m, p in lines.items() if p}, colour)
            if column == 0:
                where = f'transform="translate(14,{y0 + HEIGHT / 2}) rotate(-90)"'
                parts.append(f'<text {where} font-size="11" text-anchor="middle">{label}</text>')
    bottom = TOP + len(QUANTITIES) * (HEIGHT + GAP) + 8
    width = LEFT + len(families) * (WIDTH + GAP)
    for i, method in enumerate(methods):
        x, y = LEFT + (i % 6) * 210, bottom + (i // 6) * 18
        parts.append(f'<rect x="{x}" y="{y}" width="14" height="4" fill="{colour[method]}"/>')
        parts.append(_text(x + 20, y + 6, method, 11))
    height = bottom + 18 * (1 + (len(methods) - 1) // 6)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    )
    path.write_text("\n".join([head, *parts, "</svg>"]) + "\n")
    return path


def _points(
    rows: Sequence[Mapping[str, Any]], family: str, method: str, key: str
) -> list[tuple[float, float]]:
    found = (r for r in rows if r["family"] == family and r["method"] == method)
    return sorted((float(r["n"]), float(r[key])) for r in found if (r.get(key) or 0) > 0)


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    where = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(text)}</text>"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.05 * (high - low), 0.05)
    return low - room, high + room


def _panel(
    x0: float,
    y0: float,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    colour: Mapping[str, str],
) -> list[str]:
    """Return one plot: frame, ticks at powers of ten (or the ends), lines."""
    frame = f'<rect x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>'
    if not lines:
        return [frame]
    points = [p for line in lines.values() for p in line]
    (left, right), (low, high) = _ends([x for x, _ in points]), _ends([y for _, y in points])

    def at(n: float, value: float) -> tuple[float, float]:
        across = (math.log10(n) - left) / (right - left) * WIDTH
        up = (math.log10(value) - low) / (high - low) * HEIGHT
        return x0 + across, y0 + HEIGHT - up

    parts = [frame]
    powers = [10.0**k for k in range(math.ceil(low), math.floor(high) + 1)]
    for value in (
        powers if len(powers) > 1 else [min(y for _, y in points), max(y for _, y in points)]
    ):
        y = at(10**left, value)[1]
        parts.append(f'<path d="M{x0} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(_text(x0 - 4, y + 3, f"{value:.3g}", 9, "end"))
    for n in sorted({x for x, _ in points}):
        shown = f"{n / 1000:.0f}k" if n < 1e6 else f"{n / 1e6:.1f}M"
        parts.append(_text(at(n, 10**low)[0], y0 + HEIGHT + 12, shown, 9, "middle"))
    for method, line in lines.items():
        shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in line))
        stroke = f'fill="none" stroke="{colour[method]}" stroke-width="1.5"'
        parts.append(
            f'<polyline points="{shown}" {stroke}><title>{escape(method)}</title></polyline>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour[method]}"/>'
            for x, y in (at(*p) for p in line)
        ]
    return parts


if __name__ == "__main__":
    found = json.loads((RESULTS / "solver.json").read_text())
    print(draw(found["rows"], RESULTS / "solver.svg"))
