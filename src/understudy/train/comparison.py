"""Students of one budget side by side: their folded forms and one file with what they came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import write_json
from understudy.core.provenance import machine, versions
from understudy.train.student_run import StudentResult

RESULT = "result.json"
FOLDED = "folded.safetensors"


def fold_student(run: str | Path) -> Path:
    """Write a run's folded model (averaged weights where it has them) and return the file."""
    from understudy import models
    from understudy.models.runs import load_run

    model = load_run(run)
    folded = model if model.is_folded else model.fold()
    return models.save(folded, Path(run) / FOLDED)


def headline(result: StudentResult) -> dict[str, float]:
    """Return a student's metrics: of the averaged weights where there are some, else the final."""
    return result.weights.get("ema") or result.weights.get("final") or {}


def write_comparison(
    out: str | Path,
    students: Mapping[str, StudentResult],
    *,
    baseline: str,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write `<out>/result.json` and return its path.

    It holds each student's metrics, seconds and sizes, and each one's gain over the baseline in
    every metric that both have.

    Args:
        out: folder.
        students: results by name.
        baseline: the name that others are compared with.
        facts: whatever else belongs to the result, such as the price of reinforcing.
    """
    from understudy.models import load
    from understudy.models.count import parameters

    arms: dict[str, Any] = {}
    for name, result in students.items():
        folded = fold_student(result.path)
        arms[name] = {
            "run": str(result.path),
            "folded": str(folded),
            "weights": result.weights,
            "seconds": result.seconds,
            "step_seconds": result.seconds.get("step", 0.0) / max(result.steps, 1),
            "facts": {**result.facts, "folded_parameters": parameters(load(folded))},
        }
    base = headline(students[baseline])
    gains = {
        name: {key: headline(result)[key] - base[key] for key in base if key in headline(result)}
        for name, result in students.items()
        if name != baseline
    }
    data = {
        "baseline": baseline,
        "students": arms,
        "gain": gains,
        **(facts or {}),
        "machine": machine(),
        "versions": versions(),
    }
    return write_json(Path(out) / RESULT, data)
