"""The pages of fct and fastfill: what each way of updating gives, and curves of backfilling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.page import Page
from understudy.report.updates import curve_figure, gap_figure

PAGE = "report.html"
SCORES = {"map": "mAP", "cmc_1": "CMC-1", "cmc_5": "CMC-5"}


def _updates(page: Page, result: Mapping[str, Any]) -> None:
    """Add scores of every way of updating, as bars and as a table."""
    updates = result["updates"]
    page.section("Retrieval by gallery")
    page.text(
        f"{result['rows']['test']:,} items are queries and gallery, each left out of its own "
        "ranking; queries of all rows but old/old are the new model's.",
        "note",
    )
    bars = {n: {SCORES[k]: row[k] for k in SCORES} for n, row in updates.items()}
    page.figure(figures.bars(bars, "share"))
    header = ("gallery", *SCORES.values(), "share of the gain", "parameters", "held-out R^2")
    rows = [
        (
            name,
            *(row[k] for k in SCORES),
            row.get("gain_map"),
            row.get("parameters"),
            row.get("held_out_r2"),
        )
        for name, row in updates.items()
    ]
    page.table(header, rows, strong=[i for i, row in enumerate(rows) if row[0] == "new/new"])
    odd = {f"{n}: {text}" for n, row in updates.items() for text in row.get("warnings", ())}
    for sentence in sorted(odd):
        page.text(sentence, "bad")


def _costs(page: Page, costs: Mapping[str, Any]) -> None:
    page.section("Cost")
    rows = [("side information of an item, bytes", costs["side_bytes_per_item"])]
    rows += [("items a second, h", costs["mapped_per_s"])]
    rows += [(f"items a second, {part} model", r) for part, r in costs["embedded_per_s"].items()]
    page.table(("what", "value"), rows)


def _curves(page: Page, loss: str, curves: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    page.section(f"Backfilling, loss {loss}")
    for metric in ("map", "cmc_1"):
        page.figure(curve_figure(curves, metric))
    if curves.get("minority") is not None:
        page.figure(gap_figure(curves))
    header = ("order", "AUC mAP", "AUC CMC-1", "AUC CMC-5", "95 % of the end at")
    rows = [
        (
            name,
            *(curve["auc"][k] for k in ("map", "cmc_1", "cmc_5")),
            curve["beta_95"]["map"],
        )
        for name, curve in curves["orders"].items()
    ]
    page.table(header, rows)
    if facts.get("spearman") is not None:
        page.text(f"Spearman of uncertainty and true error: {facts['spearman']:.3f}.")
    for sentence in facts.get("warnings", ()):
        page.text(sentence, "bad")


def update_page(result: Mapping[str, Any], title: str) -> Page:
    """Return the page of a `result.json` of fct or fastfill.

    Args:
        result: what the recipe wrote.
        title: of the page.
    """
    spaces = ", ".join(f"{part} {space}" for part, space in result["spaces"].items())
    page = Page(title, spaces)
    _updates(page, result)
    for loss, curves in result.get("curves", {}).items():
        _curves(page, loss, curves, result["maps"][loss])
    if "costs" in result:
        _costs(page, result["costs"])
    return page


def write_update_page(folder: str | Path, *, title: str) -> Path:
    """Write `report.html` beside a recipe's `result.json` and return its path."""
    folder = Path(folder)
    return update_page(read_json(folder / "result.json"), title).write(folder / PAGE)
