"""The page of a text recipe: held-out loss by set of documents, learning curves, weight decays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.page import Page
from understudy.train.logs import read_metrics

LOSS = "held_out_nll"
_SHOWN = ("documents", "steps", "tokens", "unique_tokens", "epochs", "train_nll", "gap", "seconds")


def write_text_page(folder: str | Path, *, title: str) -> Path:
    """Write `report.html` beside a text recipe's `result.json` and return its path.

    Args:
        folder: of the recipe's run.
        title: of the page.
    """
    folder = Path(folder)
    found = read_json(folder / "result.json")
    arms = found.get("arms") or {"final": found["final"]}
    page = Page(title, "Losses in nats a token, on documents that no model has seen.")
    page.section("Held-out loss")
    _losses(page, arms)
    if found.get("decays"):
        page.section("Weight decay")
        _decays(page, found)
    page.section("Learning curves")
    _curves(page, folder, arms)
    if found.get("plan"):
        page.section("Counts")
        page.table(("what", "value"), [(k, _plain(v)) for k, v in found["plan"].items()])
    if found.get("funnel"):
        page.section("Funnel")
        rows = found["funnel"]
        page.table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    return page.write(folder / "report.html")


def _losses(page: Page, arms: Mapping[str, Mapping[str, Any]]) -> None:
    facts = [key for key in _SHOWN if any(key in arm for arm in arms.values())]
    best = min(range(len(arms)), key=lambda i: list(arms.values())[i][LOSS])
    page.table(
        ("documents of", LOSS, *facts),
        [(name, arm[LOSS], *(arm.get(key) for key in facts)) for name, arm in arms.items()],
        strong=[best],
    )
    if len(arms) > 1:
        page.figure(figures.seeds({name: [arm[LOSS]] for name, arm in arms.items()}, LOSS))


def _decays(page: Page, found: Mapping[str, Any]) -> None:
    decays = {float(decay): facts[LOSS] for decay, facts in found["decays"].items()}
    xs = sorted(decays)
    series = {LOSS: (xs, [decays[x] for x in xs])}
    page.figure(figures.curves(series, "weight decay", LOSS, markers=True))
    chosen = found["weight_decay"]
    page.text(
        f"Chosen: {chosen['chosen']:g}, {chosen['factor']:g} times the usual one; each candidate "
        "had a share of the budget with as many repeats."
    )


def _curves(page: Page, folder: Path, arms: Mapping[str, Mapping[str, Any]]) -> None:
    series = {}
    for name, arm in arms.items():
        lines = [m for m in read_metrics(folder / arm.get("run", name)) if "nll" in m]
        if lines:
            series[name] = ([m["step"] for m in lines], [m["nll"] for m in lines])
    if series:
        page.figure(figures.curves(series, "step", "training loss, nats a token"))
    else:
        page.text("The runs left no metrics.")


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)
