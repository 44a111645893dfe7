"""A page of latencies: the table, and each tower's milliseconds over resolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError
from understudy.report import figures
from understudy.report.page import Page

HEADER = (
    "model", "tower", "size", "precision", "runtime", "parameters", "mean ms", "min", "max", "p50",
    "p95", "x fp32",
)  # fmt: skip


def write_latency_page(results: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write the page.

    Args:
        results: `Latency.to_dict()` of each measurement, with `times_fp32` where float32 was timed
            in the same runtime.
        path: where to.

    Returns:
        the path.

    Raises:
        ConfigError: nothing was measured.
        MissingExtraError: the `report` extra is missing.
    """
    if not results:
        raise ConfigError("latency page: there are no results.")
    first = results[0]
    page = Page(
        "Latency",
        "The published bench loop: rounds of inferences, each with a graph loaded anew; the first "
        "inference discarded, extremes dropped, means averaged over rounds.",
    )
    page.section("Milliseconds a batch")
    page.table(HEADER, [_row(r) for r in results])
    page.text(
        f"Batch {first['batch']}, {first['device']}, {first['threads']} threads, "
        f"{first['rounds']} rounds of {first['inferences']}. The last column is float32's time "
        "over this one's in the same runtime."
    )
    for tower in dict.fromkeys(r["tower"] for r in results):
        series = _series([r for r in results if r["tower"] == tower])
        if any(len(sizes) > 1 for sizes, _ in series.values()):
            page.section(f"{tower.capitalize()} tower over resolutions")
            page.figure(figures.curves(series, "pixels", "mean ms", log_y=True, markers=True))
    return page.write(path)


def _row(r: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        r["name"], r["tower"], r["size"], r["dtype"], r["runtime"], r["parameters"] or None,
        r["mean_ms"], r["min_ms"], r["max_ms"], r["p50_ms"], r["p95_ms"], r.get("times_fp32"),
    )  # fmt: skip


def _series(
    results: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[list[float], list[float]]]:
    """Return (sizes, milliseconds) by model, precision and runtime."""
    out: dict[str, tuple[list[float], list[float]]] = {}
    for r in results:
        sizes, times = out.setdefault(f"{r['name']}, {r['dtype']}, {r['runtime']}", ([], []))
        sizes.append(r["size"])
        times.append(r["mean_ms"])
    return out
