"""Read other harnesses' result files as accuracies by task.

Their accuracies are not the same measure: LLM-Foundry chooses by the mean loss of the tokens,
EleutherAI's lm-eval by the summed loss (`acc`) or by the loss a character (`acc_norm`). `Results`
says which metric each number is, and belongs beside the score.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.core.files import read_json

LM_EVAL_NAMES = {
    "openbookqa": "openbook_qa",
    "wsc273": "winograd",
    "social_iqa": "siqa",
    "logiqa": "logi_qa",
    "mathqa": "math_qa",
    "pubmedqa": "pubmed_qa_labeled",
    "squad_completion": "squad",
    "agieval_lsat_ar": "agi_eval_lsat_ar",
    "agieval_lsat_lr": "agi_eval_lsat_lr",
    "agieval_lsat_rc": "agi_eval_lsat_rc",
    "agieval_sat_en": "agi_eval_sat_en",
    "gpqa_main_n_shot": "gpqa_main",
    "gpqa_diamond_n_shot": "gpqa_diamond",
}
"""lm-eval's name of a task to the suite's, where they differ."""
LM_EVAL_METRICS = ("acc_norm", "acc", "exact_match", "contains", "em")
"""Metrics of lm-eval that are accuracies, the preferred first."""


@dataclass(frozen=True)
class Results:
    """Accuracies of one model.

    Attributes:
        accuracies: fractions by task.
        metrics: the metric of each, in its harness's words.
        harness: `lm-eval`, `llm-foundry` or `plain`.
    """

    accuracies: dict[str, float]
    metrics: dict[str, str]
    harness: str


def read_results(path: str | Path, names: Mapping[str, str] | None = None) -> Results:
    """Read a result file.

    Args:
        path: lm-eval's JSON (`results`); LLM-Foundry's CSV (`Benchmark`, `Accuracy`); the JSON of
            DCLM's evaluation (`eval_metrics.icl`); or a JSON object `{task: accuracy}`.
        names: further names, `{theirs: ours}`.

    Raises:
        DataError: no such file, none of these layouts, or two results of one task.
    """
    path = Path(path)
    if path.suffix == ".csv":
        found = _foundry_csv(path)
    else:
        data = read_json(path)
        if not isinstance(data, dict):
            raise DataError(f"{path}: expected a JSON object with results by task.")
        if isinstance(data.get("results"), dict):
            found = _lm_eval(data, path)
        else:
            found = _plain(data, path)
    if not names:
        return found
    return Results(
        {names.get(k, k): v for k, v in found.accuracies.items()},
        {names.get(k, k): v for k, v in found.metrics.items()},
        found.harness,
    )


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: accuracy {value!r} is not a number.") from None


def _lm_eval(data: Mapping[str, Any], path: Path) -> Results:
    accuracies: dict[str, float] = {}
    metrics: dict[str, str] = {}
    shots = data.get("n-shot") or {}
    for name, entry in data["results"].items():
        # keys are "metric,filter"; the first filter that has the metric counts
        given: dict[str, tuple[str, float]] = {}
        for key, value in entry.items():
            metric = key.split(",")[0]
            if metric in LM_EVAL_METRICS and isinstance(value, int | float):
                given.setdefault(metric, (key, value))
        best = next((given[m] for m in LM_EVAL_METRICS if m in given), None)
        if best is None:
            continue
        ours = LM_EVAL_NAMES.get(str(name), str(name))
        if name == "hellaswag" and shots.get(name) == 0:
            ours = "hellaswag_zeroshot"
        elif name == "mmlu":
            ours = "mmlu_zeroshot" if shots.get(name, 0) == 0 else "mmlu_fewshot"
        if ours in accuracies:
            raise DataError(f"{path}: two results of task '{ours}' ('{name}' is the second).")
        accuracies[ours], metrics[ours] = float(best[1]), best[0]
    if not accuracies:
        raise DataError(
            f"{path}: no accuracy in its results; known metrics are {', '.join(LM_EVAL_METRICS)}."
        )
    return Results(accuracies, metrics, "lm-eval")


def _plain(data: Mapping[str, Any], path: Path) -> Results:
    """Read DCLM's layout, or a plain object; keys may be `metrics/task/10-shot/Metric`."""
    inner = data.get("eval_metrics")
    table = inner.get("icl") if isinstance(inner, dict) else None
    harness = "plain" if table is None else "llm-foundry"
    table = data if table is None else table
    accuracies: dict[str, float] = {}
    metrics: dict[str, str] = {}
    for key, value in table.items():
        parts = str(key).split("/")
        name = parts[1] if parts[0] == "metrics" and len(parts) > 1 else str(key)
        if isinstance(value, dict | list | str | bool | None):
            if harness == "plain":
                raise DataError(
                    f"{path}: '{key}' is no accuracy; expected lm-eval's or LLM-Foundry's results "
                    "or an object {task: accuracy}."
                )
            continue
        if name in accuracies:
            raise DataError(f"{path}: two results of task '{name}'; leave one out.")
        accuracies[name], metrics[name] = float(value), parts[-1] if len(parts) > 1 else "accuracy"
    return Results(accuracies, metrics, harness)


def _foundry_csv(path: Path) -> Results:
    """Read LLM-Foundry's table; a task of several categories has a row each, or one `Average`."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or []
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error}).") from None
    for column in ("Benchmark", "Accuracy"):
        if column not in header:
            raise DataError(f"{path}: no column '{column}'; it has {', '.join(header) or 'none'}.")
    names = {row.get("Model") for row in rows}
    if len(names) > 1:
        raise DataError(
            f"{path}: results of {len(names)} models ({', '.join(sorted(map(str, names)))}); keep "
            "the rows of one."
        )
    parts: dict[str, dict[str, float]] = {}
    for i, row in enumerate(rows, start=2):
        name, part = (row["Benchmark"] or "").strip(), (row.get("Subtask") or "").strip()
        table = parts.setdefault(name, {})
        if part in table:
            raise DataError(f"{path}, row {i}: a second result of '{name}' {part}".rstrip() + ".")
        table[part] = _number(row["Accuracy"], f"{path}, row {i}, task '{name}'")
    accuracies = {}
    for name, table in parts.items():
        whole = [v for k, v in table.items() if k.lower() == "average"]
        values = whole or list(table.values())
        accuracies[name] = sum(values) / len(values)
    return Results(accuracies, dict.fromkeys(accuracies, "Accuracy"), "llm-foundry")
