"""The page of a job: what it cost, which part of its time trained, which steps were kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.page import Page


def write_job_page(folder: str | Path, *, title: str) -> Path:
    """Write `report.html` beside a job's `result.json` and return its path.

    Args:
        folder: with the result of the recipe `alchemist`.
        title: of the page.
    """
    folder = Path(folder)
    job: Mapping[str, Any] = read_json(folder / "result.json")["job"]
    reason = f" ({job['reason']})" if job["reason"] else ""
    page = Page(title, f"{job['id']} on {job['engine']}: {job['state']}{reason}")
    page.section("Time and money")
    page.table(("what", "value"), _totals(job))
    if job["goodput"] is None:
        page.text(
            "The script told of no steps, so that neither goodput nor the useful part is known; "
            "`understudy.launch.state_metrics.log(step, loss=...)` tells of them.",
            tone="note",
        )
    elif job.get("line"):
        page.section("Progress")
        xs, ys = [t for _, t in job["line"]], [step for step, _ in job["line"]]
        page.figure(
            figures.curves({"step": (xs, ys)}, "seconds since the first step", "step"),
            caption="A fall is a kill: work since the last checkpoint is done again.",
        )
    page.section("Attempts")
    page.table(
        ("attempt", "seconds", "why it ended", "exit code"),
        [
            (a["n"], (a["end"] or a["start"]) - a["start"], a["cause"] or a["reason"], a["exit"])
            for a in job["attempts"]
        ],
    )
    page.text(f"{job['restarts']} restarts of all workers inside attempts.")
    page.text("States: " + ", ".join(job["states"]))
    if job["artefacts"]:
        page.section("What it left")
        page.table(
            ("name", "bytes", "sha256", "where"),
            [(a["name"], a["bytes"], a["sha256"], a["uri"]) for a in job["artefacts"]],
        )
    return page.write(folder / "report.html")


def _totals(job: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [
        ("workers", job["workers"]),
        ("waited, s", job["waited_s"]),
        ("ran, s", job["ran_s"]),
        ("goodput: time of kept steps / time", job["goodput"]),
        ("useful part: steps kept / computed", job["useful_fraction"]),
        ("steps kept", job["steps"]["kept"]),
        ("steps computed", job["steps"]["computed"]),
        ("failures", job["failures"]),
        ("seconds between failures", job.get("between_failures_s")),
        ("cost", job["cost"]),
        ("kept, bytes", job["kept_bytes"]),
        ("cost of keeping for a month", job["kept_cost_month"]),
    ]
    young = job.get("young")
    if young:
        rows += [
            ("Young: seconds between checkpoints", young["interval_s"]),
            ("Young: part lost to saving and repeating", young["overhead"]),
        ]
    return rows
