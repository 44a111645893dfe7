"""The tasks behind CORE and EXTENDED: shots and random baselines, by version.

A baseline is the accuracy of guessing, or of always giving the commonest answer where a test set is
lopsided (BoolQ: 62 %). Version v2, of September 2025, corrected several baselines of v1; scores of
the two versions must not be compared, so that every table carries its version.

References:
    arXiv 2406.11794, sec. 3.5 and app. G; mlfoundations/dclm, eval/eval_meta_data_v1.csv (tasks,
    shots, v1 baselines), eval/additional_aggregation.json (the 22 tasks of CORE); its issue 114
    (why the baselines changed).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json

Kind = Literal["multiple_choice", "schema", "language_modeling", "question_answering"]
_KINDS: dict[str, Kind] = {
    "mc": "multiple_choice",
    "sc": "schema",
    "lm": "language_modeling",
    "qa": "question_answering",
}
VERSIONS = ("v1", "v2")
MMLU = "mmlu_fewshot"
"""The 5-shot MMLU, which is also reported raw."""

# name, kind, shots, v1 baseline in percent
_TASKS = """
mmlu_zeroshot mc 0 25
hellaswag_zeroshot mc 0 25
jeopardy lm 10 0
triviaqa_sm_sub qa 3 0
gsm8k_cot qa 3 0
agi_eval_sat_math_cot qa 3 0
aqua_cot qa 3 0
svamp_cot qa 3 0
bigbench_qa_wikidata lm 10 0
arc_easy mc 10 25
arc_challenge mc 10 25
mmlu_fewshot mc 5 25
bigbench_misconceptions mc 10 50
copa mc 0 50
siqa mc 10 33.3
commonsense_qa mc 10 20
piqa mc 10 50
openbook_qa mc 0 25
bigbench_novel_concepts mc 10 20
bigbench_strange_stories mc 10 50
bigbench_strategy_qa mc 10 50
lambada_openai lm 0 0
hellaswag mc 10 25
winograd sc 0 50
winogrande sc 0 50
bigbench_conlang_translation lm 0 0
bigbench_language_identification mc 10 9.1
bigbench_conceptual_combinations mc 10 25
bigbench_elementary_math_qa mc 10 20
bigbench_dyck_languages lm 10 0
agi_eval_lsat_ar mc 3 20
bigbench_cs_algorithms lm 10 0
bigbench_logical_deduction mc 10 20
bigbench_operators lm 10 0
bigbench_repeat_copy_logic lm 10 0
simple_arithmetic_nospaces lm 10 0
simple_arithmetic_withspaces lm 10 0
math_qa mc 10 20
logi_qa mc 10 27
pubmed_qa_labeled lm 10 0
squad lm 10 0
agi_eval_lsat_rc mc 3 20
agi_eval_lsat_lr mc 3 20
coqa lm 0 0
bigbench_understanding_fables mc 10 20
boolq mc 10 62
agi_eval_sat_en mc 3 25
winogender_mc_female mc 10 50
winogender_mc_male mc 10 50
enterprise_pii_classification mc 10 50
bbq mc 3 50
gpqa_main mc 5 25
gpqa_diamond mc 5 25
"""
CORE = (
    "hellaswag_zeroshot",
    "jeopardy",
    "bigbench_qa_wikidata",
    "arc_easy",
    "arc_challenge",
    "copa",
    "commonsense_qa",
    "piqa",
    "openbook_qa",
    "lambada_openai",
    "hellaswag",
    "winograd",
    "winogrande",
    "bigbench_dyck_languages",
    "agi_eval_lsat_ar",
    "bigbench_cs_algorithms",
    "bigbench_operators",
    "bigbench_repeat_copy_logic",
    "squad",
    "coqa",
    "boolq",
    "bigbench_language_identification",
)
"""The 22 tasks of CORE."""
_V2_CHANGES = {
    "commonsense_qa": 40.3,
    "agi_eval_lsat_ar": 25.0,
    "bigbench_language_identification": 25.0,
    "siqa": 50.0,
}


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of the suite.

    Attributes:
        name: of the task.
        kind: how it is scored.
        num_fewshot: solved examples before each question.
        baseline: accuracy of guessing, in percent; None where this version's is not known here.
    """

    name: str
    kind: Kind
    num_fewshot: int
    baseline: float | None


@dataclass(frozen=True)
class TaskTable:
    """Tasks and baselines of one version.

    Attributes:
        version: stands beside every score.
        tasks: by name, all of EXTENDED.
        core: names of the tasks of CORE.
    """

    version: str
    tasks: Mapping[str, TaskInfo]
    core: tuple[str, ...] = CORE

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the tasks without a baseline."""
        return tuple(name for name, task in self.tasks.items() if task.baseline is None)


def _published() -> dict[str, TaskInfo]:
    rows = [line.split() for line in _TASKS.strip().splitlines()]
    return {n: TaskInfo(n, _KINDS[kind], int(shots), float(b)) for n, kind, shots, b in rows}


def task_table(version: str = "v2") -> TaskTable:
    """Return the table of a published version.

    All 53 baselines of v1 are known; of v2 those of CORE and of a few others, so that EXTENDED v2
    needs a table of the user's (`read_table`).

    Raises:
        ConfigError: no such version.
    """
    if version not in VERSIONS:
        raise ConfigError(
            f"core: there is no version '{version}' of the baselines; published are "
            f"{', '.join(VERSIONS)}, others come from a table file."
        )
    tasks = _published()
    if version == "v2":
        known = {*CORE, *_V2_CHANGES}
        for name, task in tasks.items():
            old = task.baseline if name in known else None
            new = _V2_CHANGES.get(name, old)
            tasks[name] = TaskInfo(name, task.kind, task.num_fewshot, new)
    return TaskTable(version, tasks)


def read_table(path: str | Path, version: str) -> TaskTable:
    """Read a table of tasks with baselines.

    Args:
        path: a CSV with the columns `Eval Task` and `Random baseline` in percent, as the published
            tables have (`#shots` and others are optional), or a JSON object `{task: percent}`.
        version: name of the table, stored with every score.

    Returns:
        the table; CORE is the published list, as far as the table has its tasks.

    Raises:
        DataError: no such file, a column that is missing, a task there twice, or a baseline that is
            no percentage; file, row and task are named.
        ConfigError: an empty version, or one that is published.
    """
    if not version or version in VERSIONS:
        raise ConfigError(
            f"core: a table of your own needs a version name of its own, got '{version}'; "
            f"{' and '.join(VERSIONS)} are the published ones."
        )
    published, tasks = _published(), {}
    for where, name, value, shots in _table_rows(Path(path)):
        if name in tasks:
            raise DataError(f"{where}: task '{name}' is there twice.")
        old = published.get(name)
        kind: Kind = old.kind if old else "multiple_choice"
        default = old.num_fewshot if old else 0
        count = int(shots) if str(shots or "").strip().isdigit() else default
        tasks[name] = TaskInfo(name, kind, count, _percent(value, f"{where}, task '{name}'"))
    if not tasks:
        raise DataError(f"{path}: no tasks in this table.")
    return TaskTable(version, tasks)


def _table_rows(path: Path) -> list[tuple[str, str, Any, Any]]:
    if path.suffix == ".json":
        data = read_json(path)
        if not isinstance(data, dict):
            raise DataError(f"{path}: expected a JSON object {{task: baseline in percent}}.")
        return [(str(path), str(name), value, None) for name, value in data.items()]
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or []
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error}).") from None
    for column in ("Eval Task", "Random baseline"):
        if column not in header:
            raise DataError(f"{path}: no column '{column}'; it has {', '.join(header) or 'none'}.")
    found = []
    for i, row in enumerate(rows, start=2):
        name = (row["Eval Task"] or "").strip()
        found.append((f"{path}, row {i}", name, row["Random baseline"], row.get("#shots")))
    return found


def _percent(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: baseline {value!r} is not a number.") from None
    if not 0 <= number < 100:
        raise DataError(f"{where}: baseline {number} is not a percentage from 0 to below 100.")
    if 0 < number < 1:
        raise DataError(
            f"{where}: baseline {number} is below 1 %; baselines are in percent ({100 * number:g} "
            "may be meant)."
        )
    return number
