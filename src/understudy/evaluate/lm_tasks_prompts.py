"""Questions to token ids: few-shot examples, delimiters, spaces, what is scored.

The rules are LLM-Foundry's, so that equal task files give equal numbers: examples are drawn anew
for each question with one random stream a task; a prompt and its question are tokenised apart from
each other and from the answer; the question's end is stripped and the answer begins with a space if
the tokenizer has tokens that do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import DataError
from understudy.evaluate.lm_tasks_spec import TaskSpec
from understudy.models.language.coder import Coder

Row = Mapping[str, Any]
ROOM_OF_THOUGHT = 10
"""Tokens that a chain of thought may be longer than the longest given one."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """One question as the model reads it.

    Attributes:
        pairs: (context ids, scored ids) of each candidate; scored ids are empty where the answer is
            generated.
        texts: the candidates' texts.
        gold: number of the right candidate.
        accepted: right answers, where the answer is generated.
        category: of the question.
    """

    pairs: tuple[tuple[list[int], list[int]], ...]
    texts: tuple[str, ...]
    gold: int
    accepted: tuple[str, ...]
    category: str


def fewshot_rows(count: int, num_fewshot: int, own: int, stream: random.Random) -> list[int]:
    """Draw the examples of one question, never the question itself.

    Args:
        count: questions of the task.
        num_fewshot: examples wanted; fewer if there are not as many other questions.
        own: number of the question.
        stream: random numbers, used up question by question.
    """
    chosen = set(stream.sample(range(count), min(count - 1, num_fewshot)))
    if own in chosen:
        chosen.remove(own)
        while len(chosen) < min(count - 1, num_fewshot):
            other = stream.randrange(count)
            if other != own:
                chosen.add(other)
    # the order is that of a set of integers, which the published numbers depend on
    return list(chosen)


def needs_space(tokenizer: Coder) -> bool:
    """Return whether a space and a letter are one token, as in byte-pair encodings like GPT's."""
    return len(tokenizer.encode(" a")) == 1


def _answer(spec: TaskSpec, row: Row) -> str:
    if spec.kind == "multiple_choice":
        return row["choices"][row["gold"]]
    if spec.kind == "question_answering":
        thought = row.get("chain_of_thought")
        return row["answer"] if thought is None else f"{thought}{spec.cot_delimiter}{row['answer']}"
    return row["continuation"]


def _question(spec: TaskSpec, row: Row, before: str) -> str:
    name = "query" if spec.kind == "multiple_choice" else "context"
    lead = spec.example_delimiter if before else ""
    return f"{lead}{spec.prelimiter}{row[name]}{spec.continuation_delimiter}"


def _example(spec: TaskSpec, row: Row, before: str) -> str:
    """Return a solved question."""
    if spec.kind == "schema":
        lead = spec.example_delimiter if before else ""
        right = row["context_options"][row["gold"]]
        return f"{spec.prelimiter}{lead}{right}{spec.continuation_delimiter}{row['continuation']}"
    return _question(spec, row, before) + _answer(spec, row)


def _schema_contexts(spec: TaskSpec, row: Row, before: str) -> list[str]:
    if not before:
        return [f"{spec.prelimiter}{option}" for option in row["context_options"]]
    delimiter = spec.continuation_delimiter.rstrip() if spec.strip else spec.continuation_delimiter
    lead = f"{spec.prelimiter}{spec.example_delimiter}"
    return [f"{lead}{option}{delimiter}" for option in row["context_options"]]


def fewshot_text(spec: TaskSpec, rows: Sequence[Row], own: int, stream: random.Random) -> str:
    """Return the prompt and the solved examples before a question."""
    text = spec.prompt
    if spec.num_fewshot:
        for number in fewshot_rows(len(rows), spec.num_fewshot, own, stream):
            text += _example(spec, rows[number], text)
    return text


def prompts(spec: TaskSpec, rows: Sequence[Row], tokenizer: Coder, context: int) -> list[Prompted]:
    """Return all questions of a task (or of one of its categories) as token ids.

    Args:
        spec: the task.
        rows: its questions.
        tokenizer: the model's.
        context: tokens that context and scored answer have together at most; the context loses its
            beginning.

    Raises:
        DataError: an answer that does not fit the context, or without tokens.
    """
    stream = random.Random(spec.seed)
    space = needs_space(tokenizer) if spec.prefix_space == "auto" else spec.prefix_space == "yes"
    limit = answer_tokens(spec, rows, tokenizer) if spec.kind == "question_answering" else 0
    found = []
    for number, row in enumerate(rows):
        before = fewshot_text(spec, rows, number, stream)
        head = tokenizer.encode(before) if before else []
        if spec.kind == "schema":
            contexts = _schema_contexts(spec, row, before)
            answers = [row["continuation"]] * len(contexts)
        else:
            question = _question(spec, row, before)
            answers = row["choices"] if spec.kind == "multiple_choice" else [_answer(spec, row)]
            contexts = [question.rstrip() if spec.strip else question] * len(answers)
        where = f"task '{spec.name}', question {number}"
        pairs = []
        for text, answer in zip(contexts, answers, strict=True):
            ids = head + tokenizer.encode(text) if text else list(head)
            scored: list[int] = []
            if spec.kind != "question_answering":
                spaced = f" {answer}" if space and not answer.startswith(" ") else answer
                scored = tokenizer.encode(spaced)
            pairs.append(_fit(ids or [tokenizer.end_id], scored, limit, context, where))
        found.append(
            Prompted(
                pairs=tuple(pairs),
                texts=tuple(answers),
                gold=int(row.get("gold", 0)),
                accepted=(row["answer"], *(row.get("aliases") or ())) if "answer" in row else (),
                category=str(row.get("category", "")),
            )
        )
    return found


def _fit(
    ids: list[int], scored: list[int], limit: int, context: int, where: str
) -> tuple[list[int], list[int]]:
    if not scored and not limit:
        raise DataError(f"{where}: an answer without tokens cannot be scored.")
    room = context - (len(scored) or limit)
    if room < 1:
        raise DataError(
            f"{where}: an answer of {len(scored) or limit} tokens does not fit the model's context "
            f"of {context}."
        )
    return ids[-room:], scored


def answer_tokens(spec: TaskSpec, rows: Sequence[Row], tokenizer: Coder) -> int:
    """Return how many tokens a generated answer may have: as many as the longest accepted one."""
    if spec.max_tokens:
        return spec.max_tokens
    longest = 1
    for row in rows:
        for answer in (row["answer"], *(row.get("aliases") or ())):
            thought = row.get("chain_of_thought")
            text = answer if thought is None else f"{thought}{spec.cot_delimiter}{answer}"
            longest = max(longest, len(tokenizer.encode(text)))
    return longest + (ROOM_OF_THOUGHT if spec.cot_delimiter else 0)
