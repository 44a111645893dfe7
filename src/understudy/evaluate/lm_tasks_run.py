"""Score a language model on task files.

>>> from understudy.evaluate.lm_tasks_run import run_task
>>> from understudy.evaluate.lm_tasks_spec import find_tasks, read_questions
>>> for spec in find_tasks("tasks"):                              # doctest: +SKIP
...     print(run_task(model, read_questions(spec.file, spec.kind), spec).accuracy)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import DataError, ModelError
from understudy.core.hashing import hash_data
from understudy.evaluate.lm_tasks import (
    MEASURES,
    answers_match,
    choose,
    exact_match,
    extract_answer,
)
from understudy.evaluate.lm_tasks_generate import Generate, greedy, stop_at
from understudy.evaluate.lm_tasks_prompts import Prompted, answer_tokens, prompts
from understudy.evaluate.lm_tasks_spec import TaskSpec, find_tasks, read_questions
from understudy.evaluate.token_losses import ReadConfig, token_losses
from understudy.models.language.coder import Coder

QUESTIONS = 256
"""Questions that are tokenised and read at a time."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """How well a model did.

    Attributes:
        name: of the task.
        kind: how it was scored.
        num_fewshot: solved examples before each question.
        seed: of their choice.
        accuracy: the task's own measure; with categories, the mean over them.
        standard_error: of the share of right answers over all questions.
        count: questions.
        categories: accuracy by category; empty without.
        others: accuracy by other measures (`sum`, `characters` of multiple choice), and `loss`,
            the mean loss a token of the right answers, in nats.
        right: of each question.
        questions_hash: of the questions.
    """

    name: str
    kind: str
    num_fewshot: int
    seed: int
    accuracy: float
    standard_error: float
    count: int
    categories: dict[str, float] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)
    right: tuple[bool, ...] = ()
    questions_hash: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return everything but the single questions as plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "right"}


def tokenizer_of(model: Any, tokenizer: Coder | None = None) -> Coder:
    """Return the given tokenizer or the model's own.

    Raises:
        ModelError: there is none.
    """
    found = tokenizer or getattr(model, "tokenizer", None)
    if found is None:
        raise ModelError("evaluate: the model has no tokenizer; give the one it was trained with.")
    return found


def run_task(
    model: Any,
    questions: Sequence[Mapping[str, Any]],
    spec: TaskSpec,
    *,
    tokenizer: Coder | None = None,
    config: ReadConfig | None = None,
    generate: Generate | None = None,
) -> TaskResult:
    """Score a model on one task.

    Args:
        model: in eval mode; see `understudy.evaluate.token_losses`.
        questions: see `read_questions`.
        spec: the task.
        tokenizer: the model's own by default.
        config: how sequences are read; its context also limits prompts.
        generate: continues prompts, for question answering; greedy decoding by default.

    Raises:
        ModelError: no tokenizer.
        DataError: no questions, or an answer that does not fit the context.
    """
    if not questions:
        raise DataError(f"task '{spec.name}': no questions.")
    tokenizer, config = tokenizer_of(model, tokenizer), config or ReadConfig()
    context, _ = config.resolve(model)
    parts: dict[str, list[int]] = {}
    for i, row in enumerate(questions):
        parts.setdefault(str(row.get("category", "")) if spec.categories else "", []).append(i)
    marks: dict[str, list[dict[str, float]]] = {}
    for name, numbers in parts.items():
        rows = [questions[i] for i in numbers]
        asked = prompts(spec, rows, tokenizer, context)
        if spec.kind == "question_answering":
            limit = answer_tokens(spec, rows, tokenizer)
            writer = generate or greedy(model, end_ids=(tokenizer.end_id,), context=context)
            marks[name] = _write(asked, spec, tokenizer, writer, limit)
        else:
            marks[name] = [
                mark
                for at in range(0, len(asked), QUESTIONS)
                for mark in _read(model, asked[at : at + QUESTIONS], spec, config)
            ]
    return _result(spec, questions, parts, marks)


def _read(
    model: Any, asked: Sequence[Prompted], spec: TaskSpec, config: ReadConfig
) -> list[dict[str, float]]:
    """Score candidates by the losses of their tokens."""
    pairs = [pair for question in asked for pair in question.pairs]
    scores = token_losses(
        model,
        [context + scored for context, scored in pairs],
        config,
        scored_from=[len(context) for context, _ in pairs],
    )
    found, at = [], 0
    for question in asked:
        part = scores[at : at + len(question.pairs)]
        lengths = [len(scored) for _, scored in question.pairs]
        losses = [s.losses[-n:] for s, n in zip(part, lengths, strict=True)]
        at += len(part)
        mark = {"loss": float(losses[question.gold].mean(dtype=np.float64))}
        if spec.kind == "language_modeling":
            mark["right"] = float(exact_match(part[0].greedy[-lengths[0] :]))
        else:
            measures = MEASURES if spec.kind == "multiple_choice" else ("mean", "sum")
            for measure in measures:
                hit = choose(losses, measure, question.texts) == question.gold
                mark["right" if measure == "mean" else measure] = float(hit)
        found.append(mark)
    return found


def _write(
    asked: Sequence[Prompted], spec: TaskSpec, tokenizer: Coder, generate: Generate, limit: int
) -> list[dict[str, float]]:
    """Score generated answers."""
    stop = stop_at(spec.stops, tokenizer)
    written = generate([question.pairs[0][0] for question in asked], limit, stop)
    found = []
    for question, ids in zip(asked, written, strict=True):
        answer = extract_answer(tokenizer.decode(ids), spec.stops, spec.cot_delimiter)
        hit = answers_match(answer, question.accepted, normalise=spec.normalise)
        found.append({"right": float(hit)})
    return found


def _result(
    spec: TaskSpec,
    questions: Sequence[Mapping[str, Any]],
    parts: Mapping[str, list[int]],
    marks: Mapping[str, list[dict[str, float]]],
) -> TaskResult:
    right = np.zeros(len(questions), bool)
    for name, numbers in parts.items():
        right[numbers] = [bool(mark["right"]) for mark in marks[name]]

    def by_part(key: str) -> dict[str, float]:
        return {n: float(np.mean([mark[key] for mark in part])) for n, part in marks.items()}

    def mean(key: str) -> float:
        return float(np.mean(list(by_part(key).values())))

    share = float(right.mean())
    others = [key for key in next(iter(marks.values()))[0] if key != "right"]
    return TaskResult(
        name=spec.name,
        kind=spec.kind,
        num_fewshot=spec.num_fewshot,
        seed=spec.seed,
        accuracy=mean("right"),
        standard_error=float(np.sqrt(share * (1 - share) / len(right))),
        count=len(right),
        categories=by_part("right") if spec.categories else {},
        others={key: mean(key) for key in others},
        right=tuple(right.tolist()),
        questions_hash=hash_data([dict(row) for row in questions]),
    )


def run_tasks(
    model: Any,
    folder: str | Path,
    *,
    tokenizer: Coder | None = None,
    config: ReadConfig | None = None,
    names: Sequence[str] = (),
) -> list[TaskResult]:
    """Score a model on the tasks of a folder.

    Args:
        model: see `run_task`.
        folder: see `find_tasks`.
        tokenizer: the model's own by default.
        config: how sequences are read.
        names: only these tasks; all by default.

    Raises:
        DataError: no tasks, or none of such a name.
    """
    specs = {spec.name: spec for spec in find_tasks(folder)}
    for name in names:
        check_choice(name, specs, f"{folder}, task")
    found = []
    for name in names or specs:
        spec = specs[name]
        rows = read_questions(spec.file, spec.kind, strip=spec.strip)
        found.append(run_task(model, rows, spec, tokenizer=tokenizer, config=config))
    return found
