"""The page of a dense transfer: caption scores, label curves, and what caused the gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.page import Page

PAGE = "transfer.html"
SCORES = ("align", "rank", "grounded", "length")


def curve_figure(comparison: Sequence[Mapping[str, Any]]) -> figures.Figure:
    """Return score against labels, one line an arm, on a logarithmic axis of labels.

    Args:
        comparison: entries of one task, as `understudy.evaluate.compare.to_plain` gives them.
    """
    series: dict[str, tuple[list[float], list[float]]] = {}
    for entry in comparison:
        labels, means = series.setdefault(entry["arm"], ([], []))
        labels.append(entry["labels"])
        means.append(sum(entry["values"]) / len(entry["values"]))
    made = figures.curves(series, "labelled pictures", comparison[0]["metric"], markers=True)
    made["layout"]["xaxis"]["type"] = "log"
    return made


def _interval(ends: Sequence[float] | None) -> str:
    return "one seed" if ends is None else f"[{ends[0]:+.4f}, {ends[1]:+.4f}]"


def _captions(page: Page, scored: Mapping[str, Any]) -> None:
    scorer = scored["scorer"]
    page.section("Captions, before anything is trained")
    page.text(
        f"Scored by {scorer['name']} ({scorer['hash'][:12]}), which teaches no arm, on "
        f"{scored['rows']:,} pictures; ranks are among {scored['block']:,} captions.",
        "note",
    )
    rows = []
    for name, arm in scored["arms"].items():
        for score in SCORES:
            if score in arm:
                rows.append((name, score, *(arm[score][k] for k in ("mean", "p10", "p50", "p90"))))
    page.table(("arm", "score", "mean", "10%", "50%", "90%"), rows)
    others = ("type_token_ratio", "near_duplicates")
    page.table(
        ("arm", "different words / words", "near-duplicates"),
        [(name, *(arm[k] for k in others)) for name, arm in scored["arms"].items()],
    )


def transfer_page(result: Mapping[str, Any], title: str) -> Page:
    """Return the page of a `result.json` with `comparison`, `effects` and `captions`.

    Args:
        result: what the recipe wrote.
        title: of the page.
    """
    comparison = result["comparison"]
    page = Page(title, "The same head, crops and steps on every tower; arms differ in pretraining.")
    if result.get("captions"):
        _captions(page, result["captions"])
    for task in dict.fromkeys(entry["task"] for entry in comparison):
        own = [entry for entry in comparison if entry["task"] == task]
        page.section(f"Score by labels: {task}")
        page.figure(curve_figure(own))
        header = ("labels", "arm", own[0]["metric"], "difference", "95%", "relative", "labels x")
        rows = [
            (
                entry["labels"],
                entry["arm"],
                sum(entry["values"]) / len(entry["values"]),
                entry["difference"],
                "" if entry["difference"] is None else _interval(entry["ci95"]),
                entry["relative"],
                entry["efficiency"],
            )
            for entry in own
        ]
        page.table(header, rows, strong=[i for i, r in enumerate(rows) if r[3] is None])
    page.section("Captions or teachers")
    page.text(
        "Paired by seed. The interaction says how much more distillation adds with the new "
        "captions than with the old ones.",
        "note",
    )
    effects = [
        (where, effect, found["mean"], _interval(found["ci95"]), found["seeds"])
        for where, own in result["effects"].items()
        for effect, found in own.items()
    ]
    page.table(("where", "effect of", "mean", "95%", "seeds"), effects)
    return page


def write_transfer_page(folder: str | Path, *, title: str) -> Path:
    """Write `transfer.html` beside a recipe's `result.json` and return its path."""
    folder = Path(folder)
    return transfer_page(read_json(folder / "result.json"), title).write(folder / PAGE)
