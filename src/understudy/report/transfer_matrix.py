"""Pages of continual training: heat maps of transfer matrices, compute against quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.files import read_json
from understudy.evaluate.transfer_matrix import TransferMatrix
from understudy.report.figures import Figure
from understudy.report.page import Page
from understudy.report.updates import compute_section, transfer_figure

HEADER = ("method", "in-domain", "backward", "forward", "last model", "compute (C)")


def transfer_heat_map(
    matrix: TransferMatrix, *, limits: tuple[float, float] | None = None
) -> Figure:
    """Return a matrix of equal rows and columns as a heat map; the colours of losses are turned.

    Args:
        matrix: checkpoints downwards, evaluation sets to the right.
        limits: ends of the colour scale, so that several maps can be compared.
    """
    figure = transfer_figure(matrix.values.tolist(), matrix.columns, matrix.metric)
    heat = figure["data"][0]
    heat["reversescale"] = matrix.lower_is_better
    if limits is not None:
        heat |= {"zmin": limits[0], "zmax": limits[1]}
    return figure


def matrix_page(found: Mapping[str, Any], *, title: str) -> Page:
    """Return the page of a run of tic-clip.

    Args:
        found: its `result.json`.
        title: of the page.
    """
    page = Page(title, "Every model of a stream on the data of every time step.")
    page.section("Stream")
    page.table(
        ("time step", "rows to learn from", "rows of the test", "held rows"),
        [(s["name"], s["rows"], s["eval_rows"], s["held_rows"]) for s in found["stream"]],
    )
    if found.get("unknown_times"):
        page.text(found["unknown_times"], "note")
    methods: Mapping[str, Any] = found["matrices"]
    for task in next(iter(methods.values()))["tasks"]:
        _task(page, methods, task)
    page.section("Compute")
    steps = [s["name"] for s in found["stream"]]
    page.table(
        ("method", *steps, "total (C)", "oracle / this"),
        [(r["method"], *map(float, r["steps"]), r["total"], r["saving"]) for r in found["compute"]],
        caption="Iterations of each step in those of C; asking the last checkpoint counts 1.2.",
    )
    page.table(
        ("method", *steps),
        [(n, *(sum(step.values()) for step in m["replayed"])) for n, m in methods.items()],
        caption="Old rows that each step learned from besides its own.",
    )
    return page


def _task(page: Page, methods: Mapping[str, Any], task: str) -> None:
    page.section(f"Transfer: {task}")
    summary = {name: method["summary"][task] for name, method in methods.items()}
    keys = ("in_domain", "backward", "forward", "last")
    page.table(
        HEADER,
        [(n, *(s[k] for k in keys), methods[n]["compute"]) for n, s in summary.items()],
        caption="Means over cells (and seeds): averages of performance, not differences.",
    )
    page.text(
        "Row: model after this step. Column: scored on the data of this step. The diagonal is "
        "in-domain, below it lies the past, above it the future. One colour scale for all.",
        "note",
    )
    seeds = {
        name: [TransferMatrix.from_dict(data) for data in method["tasks"][task]]
        for name, method in methods.items()
    }
    means = {
        name: replace(made[0], values=np.mean([m.values for m in made], axis=0))
        for name, made in seeds.items()
    }
    low = min(float(matrix.values.min()) for matrix in means.values())
    high = max(float(matrix.values.max()) for matrix in means.values())
    for name, matrix in means.items():
        page.figure(
            transfer_heat_map(matrix, limits=(low, high)),
            caption=name,
            height=160 + 42 * len(matrix.columns),
        )
    if len(next(iter(means.values())).rows) > 1:  # one step has no past
        points = [
            {
                "name": name,
                "compute": float(methods[name]["compute"]),
                "qualities": [matrix.backward for matrix in made],
            }
            for name, made in seeds.items()
        ]
        compute_section(page, points, f"backward, {task}", "compute of the stream (C)")


def write_matrix_page(folder: str | Path, *, title: str) -> Path:
    """Write `report.html` beside the `result.json` of a run and return its path."""
    folder = Path(folder)
    page = matrix_page(read_json(folder / "result.json"), title=title)
    return page.write(folder / "report.html")
