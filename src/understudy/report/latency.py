"""A latency table for a page: one trained model, folded and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def latency_rows(run: str | Path, name: str) -> list[list[Any]]:
    """Time a run's model by the published protocol, shortened, on one thread of this processor.

    Args:
        run: a run's folder or a weights file.
        name: what the model is called on the page.

    Returns:
        a header, then a row for each tower and form; times in milliseconds for one sample.
    """
    from understudy.compress.latency import measure
    from understudy.compress.timing import LatencyConfig
    from understudy.models.runs import load_run

    rows: list[list[Any]] = [["model", "tower", "folded", "mean ms", "p95 ms", "parameters"]]
    for fold in ("no", "all"):
        timed = LatencyConfig(rounds=5, inferences=30, threads=1, fold=fold)
        for found in measure(load_run(run), timed, name=name):
            rows.append([name, found.tower, fold, found.mean_ms, found.p95_ms, found.parameters])
    return rows
