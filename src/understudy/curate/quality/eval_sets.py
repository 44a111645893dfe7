"""Test sets as decontamination reads them: JSON lines with a question and its options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.config import check_choice, check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_file

RULES = ("whole", "last-sentence", "none")
_QUESTIONS = ("question", "ctx", "query", "goal", "text")
_OPTIONS = ("options", "choices", "endings")
_KEYS = ("name", "path", "rule", "question", "options")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One test question.

    Attributes:
        question: its text, or the context that is to be continued.
        options: possible answers; empty for a set of plain texts.
        sought: the part of the question that a contaminated page holds.
    """

    question: str
    options: tuple[str, ...]
    sought: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """A test set.

    Attributes:
        name: in reports.
        rule: `"whole"` looks for the whole question (HellaSwag), `"last-sentence"` for its last
            sentence (MMLU), `"none"` only reports shared runs.
        examples: in the order of the file.
    """

    name: str
    rule: str
    examples: tuple[Example, ...]


def last_sentence(text: str) -> str:
    """Return what follows the last end of a sentence inside a text."""
    return _SENTENCE.split(text.strip())[-1]


def check_sets(sets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the descriptions of test sets after checking their keys, with the files' hashes.

    Raises:
        ConfigError: none, an unknown key or rule, or two sets of one name.
        DataError: a file is missing.
    """
    if not sets:
        raise ConfigError("decontaminate: sets: expected at least one test set.")
    out: list[dict[str, Any]] = []
    for number, given in enumerate(sets, 1):
        where = f"decontaminate: sets, entry {number}"
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}: expected a mapping with 'name' and 'path', got {given!r}.")
        check_keys(given, _KEYS, where)
        if not given.get("path"):
            raise ConfigError(f"{where}: missing key 'path'.")
        path = Path(str(given["path"]))
        if not path.is_file():
            raise DataError(f"{path}: no such test set; expected JSON lines.")
        rule = str(given.get("rule", "whole"))
        check_choice(rule, RULES, f"{where}: rule")
        name = str(given.get("name") or path.name.split(".")[0])
        if any(one["name"] == name for one in out):
            raise ConfigError(f"{where}: the name '{name}' is there twice.")
        fields = {key: str(given[key]) for key in ("question", "options") if given.get(key)}
        out.append(
            {"name": name, "path": str(path), "rule": rule, "hash": hash_file(path), **fields}
        )
    return out


def read_set(description: Mapping[str, Any]) -> EvalSet:
    """Read a test set; see `check_sets` for its description.

    Raises:
        DataError: a line is not JSON, or lacks its question; file, line and field are named.
    """
    path, examples = description["path"], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                examples.append(_example(line, description, f"{path}, line {number}"))
    if not examples:
        raise DataError(f"{path}: no questions in it.")
    return EvalSet(name=description["name"], rule=description["rule"], examples=tuple(examples))


def _example(line: str, description: Mapping[str, Any], where: str) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}).") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object with a question, got {record!r:.80}.")
    question = _field(record, description.get("question"), _QUESTIONS, where)
    if not isinstance(question, str):
        raise DataError(f"{where}: the question must be a text, got {question!r:.80}.")
    options = _options(record, description, where)
    if description["rule"] != "none" and not options:
        raise DataError(
            f"{where}: the rule '{description['rule']}' needs options (one of {', '.join(_OPTIONS)}"
            ", or name the field: 'options: FIELD'); for plain texts give 'rule: none'."
        )
    sought = last_sentence(question) if description["rule"] == "last-sentence" else question
    return Example(question=question, options=options, sought=sought)


def _field(record: Mapping[str, Any], named: str | None, usual: Sequence[str], where: str) -> Any:
    names = (named,) if named else usual
    for name in names:
        if name in record:
            return record[name]
    raise DataError(
        f"{where}: no field {' or '.join(names)}; it has {', '.join(map(str, record))}. Name it in "
        "the set's description."
    )


def _options(
    record: Mapping[str, Any], description: Mapping[str, Any], where: str
) -> tuple[str, ...]:
    named = description.get("options")
    if named or any(name in record for name in _OPTIONS):
        found = _field(record, named, _OPTIONS, where)
        if isinstance(found, dict) and "text" in found:  # {"label": [...], "text": [...]}
            found = found["text"]
        if not isinstance(found, list):
            raise DataError(f"{where}: options must be a list of texts, got {found!r:.80}.")
        return tuple(str(option) for option in found)
    return ()
