"""From a recipe's `result.json` to the page of its students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.files import read_json
from understudy.report.students import StudentRun, StudentsReport, write_students
from understudy.train.comparison import RESULT

if TYPE_CHECKING:
    from understudy.data.store import Store

PAGE = "report.html"


def _scores(student: Mapping[str, Any]) -> dict[str, float]:
    """Return the averaged weights' metrics where there are some, else the final weights'."""
    weights = student["weights"]
    found = weights.get("ema") or weights.get("final") or {}
    return {name: float(value) for name, value in found.items() if name != "rows"}


def _teachers(store: Store, kind: str, view_set: str) -> list[str]:
    end = f".{kind}.{view_set}.0"
    return [c.removesuffix(end) for c in store.columns if c.endswith(end)]


def _captioner(store: Store) -> str | None:
    found = [c for c in store.columns if c.startswith("caption.") and c.count(".") == 1]
    return found[0].removeprefix("caption.") if found else None


def _costs(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the ledger: generation as the cards add up, and what each student took."""
    costs: dict[str, dict[str, float]] = {}
    generation = (result.get("stored") or {}).get("seconds")
    if generation:
        costs["reinforce once"] = dict(generation)
    for name, student in result["students"].items():
        costs[f"train {name}"] = dict(student["seconds"])
    return costs


def _storage(store: Store) -> dict[str, float]:
    """Return bytes per sample of fixed-size knowledge columns, by kind."""
    import pyarrow as pa

    found: dict[str, float] = {}
    for field in store.schema:
        kind, width = field.type, 0
        if not store.has(field.name) or field.name not in store.cards:
            continue
        if pa.types.is_fixed_size_list(kind):
            width = kind.list_size * kind.value_type.bit_width // 8
        parts = field.name.split(".")
        what = "view parameters" if parts[0] == "view" else f"{parts[0]}, {parts[1]}"
        if width and parts[0] != "caption":
            found[what] = found.get(what, 0) + width
    return found


def _verdict(result: Mapping[str, Any], headline: str) -> tuple[str, bool]:
    base = result["baseline"]
    gains = {n: g.get(headline) for n, g in result.get("gain", {}).items() if headline in g}
    if not headline or not gains:
        return "", True
    words = [f"{name} {gain:+.3f} over {base}" for name, gain in gains.items()]
    best = max(gains.values())
    return f"{headline}: {', '.join(words)}.", best > 0


def report_of(
    folder: str | Path,
    *,
    title: str,
    lead: str = "",
    store: Store | None = None,
    headline: str = "",
    text: str = "text",
    latency: Sequence[Sequence[Any]] = (),
    checks: Mapping[str, Any] | None = None,
) -> StudentsReport:
    """Return the page's content for the students of a recipe's output folder.

    Args:
        folder: what the recipe's `run` returned; it holds `result.json`.
        title: of the page.
        lead: one sentence.
        store: the data, for pictures and bytes.
        headline: the metric that decides; the first one that all students share by default.
        text: the text column.
        latency: a latency table with its header as the first row.
        checks: other facts to show.

    Raises:
        DataError: there is no `result.json`.
    """
    result = read_json(Path(folder) / RESULT)
    students = result["students"]
    runs = [
        StudentRun(name=name, path=Path(student["run"]), scores=_scores(student))
        for name, student in students.items()
    ]
    shared = [m for m in runs[0].scores if all(m in run.scores for run in runs)]
    headline = headline or (shared[0] if shared else "")
    verdict, held = _verdict(result, headline)
    config = result.get("config", {})
    view_set = str(config.get("view_set", "main"))
    shows = store is not None and any(c.startswith(f"view.{view_set}.") for c in store.columns)
    return StudentsReport(
        title=title,
        lead=lead,
        runs=runs,
        store=store if shows else None,
        view_set=view_set,
        teachers=_teachers(store, "image", view_set) if store is not None else (),
        classifiers=_teachers(store, "topk", view_set) if store is not None else (),
        captioner=_captioner(store) if store is not None else None,
        text=text,
        headline=headline,
        costs=_costs(result),
        storage=_storage(store) if store is not None else {},
        latency=latency,
        verdict=verdict,
        held=held,
        checks=checks or {},
        facts={
            **result.get("machine", {}),
            **result.get("versions", {}),
            "seed": config.get("seed"),
        },
    )


def write_report(folder: str | Path, **options: Any) -> Path:
    """Write `<folder>/report.html` (see `report_of` for the options) and return its path."""
    return write_students(report_of(folder, **options), Path(folder) / PAGE)
