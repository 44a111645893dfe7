"""The page of an alignment run: pairs, ranking, curation, scores, overfitting, cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json
from understudy.report import figures
from understudy.report.page import Page
from understudy.train.comparison import RESULT

PAGE = "report.html"


def _pairs(page: Page, found: Mapping[str, Any]) -> None:
    page.section("Pairs")
    counts = found.get("pairs") or {}
    empty = counts.get("empty_captions", {})
    rows = [(part, counts[part], empty.get(part, 0)) for part in empty]
    page.table(("part", "pairs", "left out, empty caption"), rows)
    cached = [
        (r["column"], r["rows"], r["written"], r["truncated"], r["num_bytes"], r["seconds"])
        for r in found.get("cache", ())
    ]
    header = ("cached features", "rows", "made by this run", "cut texts", "bytes", "seconds")
    page.table(header, cached)


def _ranking(page: Page, rows: list[Mapping[str, Any]]) -> None:
    page.section("Which encoders fit")
    page.table(
        ("image encoder", "text encoder", "CKA", "mutual kNN", "pairs"),
        [(r["image"], r["text"], r["cka"], r["mutual_knn"], r["pairs"]) for r in rows],
        strong=[0],
        caption="The first pair goes on.",
    )


def _curation(page: Page, report: Mapping[str, Any]) -> None:
    page.section("Curation")
    names = {
        "size": "chosen pairs",
        "distinct_images": "different images",
        "distinct_captions": "different captions",
        "leakage": "left out: in the test set",
        "leaked_images": "of these by image",
        "leaked_captions": "of these by caption",
        "removed_repeats": "left out: repeats",
        "removed_near_repeats": "left out: near repeats",
        "empty_captions": "left out: empty captions",
        "truncated_captions": "captions that the encoder cuts",
    }
    page.table(("", "pairs"), [(text, report.get(name)) for name, text in names.items()])
    coverage = report.get("coverage") or {}
    if coverage:
        page.figure(figures.bars({"pairs": coverage}, "pairs"), caption="Pairs by target class.")
    if report.get("zero_coverage"):
        page.text(f"Classes without a pair: {', '.join(report['zero_coverage'])}.", "bad")


def _scores(page: Page, scores: Mapping[str, Any]) -> None:
    page.section("Scores")
    zeroshot = dict(scores.get("zeroshot") or {})
    seen = zeroshot.pop("seen_names", None)
    plain = {k: v for k, v in scores.items() if not isinstance(v, Mapping | list)}
    rows = [*plain.items(), *((f"zero-shot {k}", v) for k, v in zeroshot.items())]
    page.table(("on held-out pairs", "value"), rows)
    if seen:
        page.text(f"Not zero-shot: training captions contain the names {', '.join(seen)}.", "bad")


def _training(page: Page, facts: Mapping[str, Any]) -> None:
    page.section("Training")
    shown = {k: v for k, v in facts.items() if not isinstance(v, Mapping | list)}
    page.table(("", ""), list(shown.items()))
    curve = facts.get("curve") or []
    kinds = {"": "held-out pairs", "train_": "training pairs"}
    for metric, title in (("recall@1", "recall@1"), ("loss", "contrastive loss")):
        series = {
            name: tuple(zip(*[(p["step"], p[part + metric]) for p in curve], strict=True))
            for part, name in kinds.items()
            if curve and part + metric in curve[0]
        }
        if series:
            note = "As many training pairs as held-out ones: their distance is overfitting."
            page.figure(figures.curves(series, "step", title, markers=True), caption=note)
    flop = facts.get("flop") or {}
    if flop:
        names = {
            "heads": "heads and logits",
            "towers": "towers that learn",
            "encoders_once": "encoders, each pair once",
            "encoders_every_step": "encoders, at every step",
            "cached": "in all, with a cache",
            "uncached": "in all, without",
        }
        rows = [(text, flop[name]) for name, text in names.items() if name in flop]
        page.table(("operations", "FLOP"), rows)


def alignment_page(result: Mapping[str, Any], *, title: str, lead: str = "") -> Page:
    """Return the page of what `understudy run ape` found; parts that it did not do are left out.

    Args:
        result: the content of `result.json`.
        title: of the page.
        lead: one sentence.
    """
    page = Page(title, lead)
    if "scores" in result:
        _scores(page, result["scores"])
    _pairs(page, result)
    if "ranking" in result:
        _ranking(page, result["ranking"])
    if "curation" in result:
        _curation(page, result["curation"])
    if "training" in result:
        _training(page, result["training"])
    return page


def write_alignment(folder: str | Path, *, title: str, lead: str = "") -> Path:
    """Write `<folder>/report.html` from its `result.json` and return the path.

    Raises:
        DataError: there is no `result.json`.
        MissingExtraError: Jinja or Plotly is missing.
    """
    result = read_json(Path(folder) / RESULT)
    return alignment_page(result, title=title, lead=lead).write(Path(folder) / PAGE)
