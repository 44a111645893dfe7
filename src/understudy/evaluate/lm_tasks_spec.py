"""What a task is made of, and its questions, in LLM-Foundry's JSONL layout.

One question a line: `{query, choices, gold}` (multiple choice), `{context_options, continuation,
gold}` (schema), `{context, continuation}` (language modelling) or `{context, answer, aliases,
chain_of_thought}` (question answering); `category` where a task has several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from understudy.core.config import check_choice, check_keys, load_yaml
from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.core_tasks import Kind, task_table

KINDS: tuple[str, ...] = get_args(Kind)
SEED = 1234
"""LLM-Foundry's seed of few-shot sampling."""
FIELDS: dict[str, dict[str, type]] = {
    "multiple_choice": {"query": str, "choices": list, "gold": int},
    "schema": {"context_options": list, "continuation": str, "gold": int},
    "language_modeling": {"context": str, "continuation": str},
    "question_answering": {"context": str, "answer": str},
}
"""Fields that a question of each kind must have."""
_FOUNDRY_KEYS = {
    "label": "name",
    "dataset_uri": "file",
    "icl_task_type": "kind",
    "question_prelimiter": "prelimiter",
    "prompt_string": "prompt",
    "fewshot_random_seed": "seed",
    "early_stopping_criteria": "stops",
    "has_categories": "categories",
    "do_normalization": "normalise",
}
_FOUNDRY_KINDS = {"generation_task_with_answers": "question_answering"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """Describe a task.

    Attributes:
        name: of the task.
        kind: how it is scored.
        file: its questions; relative to the task list that names it.
        num_fewshot: solved questions of the same file before each question.
        seed: of their choice.
        prompt: text before everything.
        example_delimiter: stands before each question but the first of a prompt.
        continuation_delimiter: between a question and its answer.
        prelimiter: before each question.
        cot_delimiter: between a chain of thought and the answer.
        stops: texts that end a generated answer.
        categories: whether accuracy is the mean over the questions' categories, each with examples
            of its own.
        strip: whether outer spaces of fields and the end of a prompt are removed.
        prefix_space: whether a space stands before a scored answer: `auto` asks the tokenizer
            whether a space and a letter are one token.
        normalise: whether case, punctuation and articles of generated answers count.
        max_tokens: of a generated answer; 0 takes the longest accepted answer's.
    """

    name: str
    kind: Kind
    file: str = ""
    num_fewshot: int = 0
    seed: int = SEED
    prompt: str = ""
    example_delimiter: str = "\n"
    continuation_delimiter: str = " "
    prelimiter: str = ""
    cot_delimiter: str = ""
    stops: tuple[str, ...] = ()
    categories: bool = False
    strip: bool = True
    prefix_space: Literal["auto", "yes", "no"] = "auto"
    normalise: bool = True
    max_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("TaskSpec.name: expected a name, got ''.")
        check_choice(self.kind, KINDS, f"task '{self.name}', kind")
        check_choice(self.prefix_space, ("auto", "yes", "no"), f"task '{self.name}', prefix_space")
        for name in ("num_fewshot", "max_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"task '{self.name}', {name}: expected 0 or more, got {getattr(self, name)}."
                )


def _spec(entry: Mapping[str, Any], where: str) -> list[TaskSpec]:
    """Read one entry of a task list; several few-shot counts make several tasks."""
    known = [f.name for f in fields(TaskSpec)]
    data = {_FOUNDRY_KEYS.get(key, key): value for key, value in entry.items()}
    check_keys(data, known, where)
    if "name" not in data or "kind" not in data:
        raise ConfigError(
            f"{where}: expected a label and an icl_task_type, got {', '.join(entry)}."
        )
    data["kind"] = _FOUNDRY_KINDS.get(data["kind"], data["kind"])
    data["stops"] = tuple(data.get("stops") or ())
    shots = data.pop("num_fewshot", 0)
    counts = list(shots) if isinstance(shots, list | tuple) else [shots]
    many = len(counts) > 1
    names = [f"{data['name']}_{n}shot" if many else data["name"] for n in counts]
    try:
        return [
            TaskSpec(**{**data, "name": name, "num_fewshot": int(n)})
            for name, n in zip(names, counts, strict=True)
        ]
    except TypeError as error:
        raise ConfigError(f"{where}: {error}.") from None


def read_task_list(path: str | Path) -> list[TaskSpec]:
    """Read a task list: a YAML file with `icl_tasks`, in LLM-Foundry's keys or those of `TaskSpec`.

    Raises:
        ConfigError: no tasks, an unknown key or value, or two tasks of one name.
        DataError: a task's file is missing.
    """
    path = Path(path)
    entries = load_yaml(path).get("icl_tasks")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: expected a list 'icl_tasks' of at least one task.")
    found: dict[str, TaskSpec] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}, task {number}: expected keys and values, got {entry!r}.")
        for spec in _spec(entry, f"{path}, task {number}"):
            if spec.name in found:
                raise ConfigError(f"{path}: two tasks are named '{spec.name}'.")
            file = path.parent / spec.file
            if not file.is_file():
                raise DataError(f"{path}: task '{spec.name}' reads {spec.file}, which is missing.")
            found[spec.name] = replace(spec, file=str(file))
    return list(found.values())


def find_tasks(folder: str | Path) -> list[TaskSpec]:
    """Return the tasks of a folder: those of its `tasks.yaml`, or one a JSONL file.

    Without a list a file's name is its task's name, its fields say how it is scored, and a task of
    the published suite has the published shots.

    Raises:
        DataError: no such folder, no tasks, or a file whose fields fit no kind of task.
    """
    folder = Path(folder)
    if folder.is_file():
        return read_task_list(folder) if folder.suffix in (".yaml", ".yml") else [_guess(folder)]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of tasks.")
    lists = [folder / name for name in ("tasks.yaml", "tasks.yml") if (folder / name).is_file()]
    if lists:
        return read_task_list(lists[0])
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise DataError(f"{folder}: neither tasks.yaml nor JSONL files in this folder.")
    return [_guess(path) for path in files]


def _guess(path: Path) -> TaskSpec:
    from understudy.data.importers.jsonl import read_lines

    first = next(read_lines(path), None)
    if first is None:
        raise DataError(f"{path}: no questions in this file.")
    kinds = [kind for kind, wanted in FIELDS.items() if all(name in first[1] for name in wanted)]
    if not kinds:
        layouts = "; ".join(f"{k}: {', '.join(v)}" for k, v in FIELDS.items())
        raise DataError(f"{path}, line {first[0]}: its fields fit no kind of task ({layouts}).")
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    known = task_table("v1").tasks.get(name)
    shots = known.num_fewshot if known else 0
    kind: Any = kinds[0]
    return TaskSpec(name=name, kind=kind, file=str(path), num_fewshot=shots)


def read_questions(
    path: str | Path, kind: str, *, strip: bool = True
) -> tuple[dict[str, Any], ...]:
    """Read a task's questions.

    Args:
        path: JSON lines, plain or compressed.
        kind: of the task.
        strip: remove outer spaces of text fields.

    Raises:
        DataError: no questions, or a field that is missing or of another type; file, line and field
            are named.
    """
    from understudy.data.importers.jsonl import read_lines

    found = [
        _question(row, kind, f"{path}, line {number}", strip)
        for number, row in read_lines(Path(path))
    ]
    if not found:
        raise DataError(f"{path}: no questions in this file.")
    return tuple(found)


def _question(row: dict[str, Any], kind: str, where: str, strip: bool) -> dict[str, Any]:
    for name, wanted in FIELDS[kind].items():
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, wanted):
            given = "nothing" if name not in row else f"{value!r:.40}"
            raise DataError(f"{where}, field '{name}': expected {wanted.__name__}, got {given}.")
    options = {"multiple_choice": "choices", "schema": "context_options"}.get(kind)
    if options is not None:
        _check_options(row, options, where)
    for name in ("continuation", "answer"):
        if name in FIELDS[kind] and not row[name].strip():
            raise DataError(f"{where}, field '{name}': empty; there is nothing to score.")
    if kind == "question_answering":
        aliases = row.get("aliases") or []
        if not isinstance(aliases, Sequence) or not all(isinstance(a, str) for a in aliases):
            raise DataError(f"{where}, field 'aliases': expected a list of texts, got {aliases!r}.")
    if not strip:
        return row
    return {k: v.strip() if isinstance(v, str) else v for k, v in row.items()}


def _check_options(row: Mapping[str, Any], name: str, where: str) -> None:
    options, gold = row[name], row["gold"]
    if len(options) < 2 or not all(isinstance(option, str) for option in options):
        raise DataError(f"{where}, field '{name}': expected at least two texts, got {options!r}.")
    if name == "choices" and not all(option.strip() for option in options):
        raise DataError(f"{where}, field '{name}': an empty choice has nothing to score.")
    if not 0 <= gold < len(options):
        raise DataError(f"{where}, field 'gold': {gold} is none of {len(options)} in '{name}'.")
