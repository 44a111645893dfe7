"""The report of the main job: what was reinforced, how students learned, what they can do, cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.report import figures
from understudy.report.gallery import add_gallery
from understudy.report.page import Page
from understudy.train.logs import read_metrics

if TYPE_CHECKING:
    from understudy.data.store import Store


_SHARE = re.compile(r"(mean_)?r\d+|top\d+|per_class")
"""Scores that are shares, higher being better: recall at K, accuracy."""


@dataclass(frozen=True, kw_only=True)
class StudentRun:
    """One trained student.

    Attributes:
        name: "plain", "reinforced", ...
        path: its run folder, with `metrics.jsonl`; None if there is none.
        scores: metric -> value, all of the same kind for every student.
        description: what was done, in one sentence.
    """

    name: str
    path: Path | None
    scores: Mapping[str, float]
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class StudentsReport:
    """Everything that the page shows; empty parts are left out.

    Attributes:
        title: of the page.
        lead: one sentence: data, teachers, budget.
        runs: the students, the baseline first.
        store: the reinforced data set.
        view_set: whose views are shown.
        teachers: whose neighbours are shown.
        classifiers: whose likeliest classes are shown.
        captioner: whose captions are shown.
        text: the text column.
        headline: the metric that decides.
        costs: step (`"reinforce"`, `"train plain"`, ...) -> part -> seconds.
        storage: what -> bytes per sample.
        latency: rows of a latency table, with a header as the first row.
        verdict: what the comparison says, in a sentence.
        held: whether it is good news.
        checks: other checked facts: what -> value.
        facts: machine, versions, seeds.
    """

    title: str
    lead: str
    runs: Sequence[StudentRun]
    store: Store | None = None
    view_set: str = "main"
    teachers: Sequence[str] = ()
    classifiers: Sequence[str] = ()
    captioner: str | None = None
    text: str = "text"
    headline: str = ""
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    storage: Mapping[str, float] = field(default_factory=dict)
    latency: Sequence[Sequence[Any]] = ()
    verdict: str = ""
    held: bool = True
    checks: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def _scores(page: Page, report: StudentsReport) -> None:
    page.section("Scores")
    metrics = list(dict.fromkeys(m for run in report.runs for m in run.scores))
    rows = [(m, *[run.scores.get(m) for run in report.runs]) for m in metrics]
    strong = [i for i, m in enumerate(metrics) if m == report.headline]
    page.table(("metric", *[run.name for run in report.runs]), rows, strong=strong)
    shown = [m for m in metrics if _SHARE.fullmatch(m.rpartition(".")[2])]
    if shown:
        shares = {r.name: {m: r.scores[m] for m in shown if m in r.scores} for r in report.runs}
        page.figure(figures.bars(shares, "share of the test set"), caption="Higher is better.")
    for run in report.runs:
        if run.description:
            page.text(f"{run.name}: {run.description}", "note")


def _curves(page: Page, report: StudentsReport) -> None:
    logs = {run.name: read_metrics(run.path) for run in report.runs if run.path is not None}
    logs = {name: lines for name, lines in logs.items() if lines}
    if not logs:
        return
    page.section("Learning curves")
    keys = dict.fromkeys(key for lines in logs.values() for line in lines for key in line)
    scored = [k for k in keys if k.startswith("eval/") and _SHARE.fullmatch(k.rpartition(".")[2])]
    scored.sort(key=lambda k: not k.endswith(report.headline or "mean_r1"))
    wanted = ["loss", *scored[:3]]
    for key in wanted:
        series = {}
        for name, lines in logs.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            if points:
                series[name] = tuple(zip(*points, strict=True))
        if series:
            title = key.removeprefix("eval/")
            note = (
                "Training loss; students minimise different losses, so compare its shape only."
                if key == "loss"
                else f"{title} during training."
            )
            page.figure(figures.curves(series, "step", title, markers=key != "loss"), caption=note)


def _costs(page: Page, report: StudentsReport) -> None:
    if not report.costs and not report.storage:
        return
    page.section("What it cost")
    if report.costs:
        rows = [
            (step, part, seconds)
            for step, parts in report.costs.items()
            for part, seconds in parts.items()
        ]
        page.figure(figures.stacked(report.costs, "seconds"), height=120 + 50 * len(report.costs))
        page.table(("step", "part", "seconds"), rows)
    if report.storage:
        page.table(("stored", "bytes per sample"), list(report.storage.items()))


def students_page(report: StudentsReport) -> Page:
    """Return the page."""
    page = Page(report.title, report.lead)
    if report.verdict:
        page.text(report.verdict, "good" if report.held else "bad")
    _scores(page, report)
    if report.store is not None:
        page.section("What was reinforced")
        page.text(
            "Each strip: the sample and its texts, then stored views, replayed bit for bit, with "
            "the text that each teacher puts nearest to that very view, or the classes that it "
            "finds likeliest there.",
            "note",
        )
        add_gallery(
            page,
            report.store,
            report.view_set,
            report.teachers,
            classifiers=report.classifiers,
            captioner=report.captioner,
            text=report.text,
        )
    _curves(page, report)
    _costs(page, report)
    if report.latency:
        page.section("Latency")
        page.table(report.latency[0], report.latency[1:])
    if report.checks:
        page.section("Checks")
        page.table(("check", "found"), list(report.checks.items()))
    if report.facts:
        page.section("Where and with what")
        page.table(("fact", "value"), list(report.facts.items()))
    return page


def write_students(report: StudentsReport, path: str | Path) -> Path:
    """Write the page and return its path."""
    return students_page(report).write(path)
