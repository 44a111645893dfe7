"""The page of a claim: what was asked, every arm and seed, every check, where it ran."""

from __future__ import annotations

from pathlib import Path

from understudy.evaluate.check_base import CheckResult
from understudy.evaluate.stats import mean_and_spread
from understudy.evaluate.verdict import Verdict
from understudy.report import figures
from understudy.report.page import Page


def _interval(check: CheckResult) -> tuple[str, float, float, float, float | None] | None:
    found = check.values
    low, high = found.get("ci95") or (None, None)
    if found.get("mean") is None or low is None or high is None:
        return None
    return check.name, found["mean"], low, high, found.get("margin")


def _arms(page: Page, verdict: Verdict) -> None:
    page.section("Arms")
    metrics = [verdict.metric] if verdict.metric else []
    for values in verdict.arms.values():
        metrics += [name for name in values if name not in metrics]
    rows = []
    for arm, values in verdict.arms.items():
        cells = []
        for metric in metrics:
            found = [v for v in values.get(metric) or () if v is not None]
            cells.append(mean_and_spread(found) if found else None)
        rows.append((arm, verdict.descriptions.get(arm, ""), *cells))
    page.table(
        ("arm", "what is done", *metrics),
        rows,
        caption=f"Mean and standard deviation over seeds {', '.join(map(str, verdict.seeds))}.",
    )
    for metric in metrics[:4]:
        arms = {a: v[metric] for a, v in verdict.arms.items() if metric in v}
        page.figure(figures.seeds(arms, metric), caption=f"{metric}: one dot a seed, bar = mean.")


def _checks(page: Page, verdict: Verdict) -> None:
    page.section("Checks")
    rows = [
        (
            "pass" if check.passed else "FAIL",
            check.name,
            "required" if check.required else "reported",
            check.statement,
            check.detail,
        )
        for check in verdict.checks
    ]
    page.table(("", "check", "", "asked", "found"), rows)
    found = [row for row in map(_interval, verdict.checks) if row is not None]
    if found:
        page.figure(
            figures.intervals(found, "difference, paired by seed"),
            caption="Paired differences with bootstrap 95% intervals; red marks are the margins.",
            height=120 + 44 * len(found),
        )


def claim_page(verdict: Verdict) -> Page:
    """Return the page of a verdict."""
    page = Page(f"{verdict.recipe}: {verdict.scale} claim", verdict.statement)
    word = "The claim holds." if verdict.passed else "The claim failed."
    page.text(word, "good" if verdict.passed else "bad")
    if verdict.budget:
        page.text(f"Budget: {verdict.budget}", "note")
    if verdict.failure:
        page.text(f"Counts as failure: {verdict.failure}", "note")
    _arms(page, verdict)
    _checks(page, verdict)
    page.section("Where and with what")
    facts = {"seconds of computing": round(verdict.seconds, 1), **verdict.machine}
    page.table(("fact", "value"), list({**facts, **verdict.versions}.items()))
    return page


def write_page(verdict: Verdict, path: str | Path) -> Path:
    """Write the page of a verdict and return its path."""
    return claim_page(verdict).write(path)
