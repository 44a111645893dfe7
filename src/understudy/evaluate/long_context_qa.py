"""Questions about one document among many (arXiv 2307.03172, sec. 2; arXiv 2405.13226, sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.lm_tasks import normalise_answer
from understudy.evaluate.lm_tasks_generate import Generate, greedy
from understudy.evaluate.lm_tasks_run import tokenizer_of
from understudy.models.language.coder import Coder

MAX_TOKENS = 100
"""Tokens of an answer at most, as published."""
NUM_DOCUMENTS = (10, 20, 30)
"""Published numbers of documents."""
OPENING = "Answer the question from the documents below. Only some of them matter.\n"


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its documents.

    Attributes:
        question: the text.
        answers: accepted answers.
        documents: (title, text) each.
        gold: numbers of the documents that hold the answer.
    """

    question: str
    answers: tuple[str, ...]
    documents: tuple[tuple[str, str], ...]
    gold: tuple[int, ...]


def read_multi_document(path: str | Path) -> list[Question]:
    """Read questions: `{question, answers, ctxs: [{title, text, isgold}]}`, one a line.

    `documents` may stand for `ctxs`, `gold` (a number or numbers) for `isgold`.

    Raises:
        DataError: no questions, or a field that is missing or of another type; the line is named.
    """
    from understudy.data.importers.jsonl import read_lines

    found = []
    for number, row in read_lines(Path(path)):
        where = f"{path}, line {number}"
        answers = row.get("answers")
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise DataError(f"{where}, field 'question': expected a text.")
        if not isinstance(answers, list) or not answers or not all(map(_is_text, answers)):
            raise DataError(f"{where}, field 'answers': expected a list of texts.")
        name = "ctxs" if "ctxs" in row else "documents"
        entries = row.get(name)
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{where}, field '{name}': expected a list of documents.")
        documents = tuple(_document(e, f"{where}, document {i}") for i, e in enumerate(entries))
        gold = _gold(row, entries, where)
        found.append(Question(row["question"].strip(), tuple(answers), documents, gold))
    if not found:
        raise DataError(f"{path}: no questions in this file.")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _document(entry: Any, where: str) -> tuple[str, str]:
    if isinstance(entry, str):
        return "", entry
    if not isinstance(entry, Mapping) or not isinstance(entry.get("text"), str):
        raise DataError(f"{where}: expected a text, or an object with a field 'text'.")
    return str(entry.get("title") or ""), entry["text"]


def _gold(row: Mapping[str, Any], entries: Sequence[Any], where: str) -> tuple[int, ...]:
    if "gold" in row:
        given = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
        if not all(isinstance(g, int) and 0 <= g < len(entries) for g in given):
            raise DataError(f"{where}, field 'gold': {given} is none of {len(entries)} documents.")
        return tuple(given)
    marks = [isinstance(e, Mapping) and bool(e.get("isgold")) for e in entries]
    if not any(marks):
        raise DataError(f"{where}: no document is marked as the one with the answer (isgold).")
    return tuple(i for i, mark in enumerate(marks) if mark)


def multi_document_prompt(
    question: Question, num_documents: int, *, place: int | None = None
) -> str:
    """Return the prompt with a number of documents, those with the answer among them.

    Args:
        question: with at least as many documents.
        num_documents: documents in the prompt.
        place: position from 0 of the first document with the answer; as in the file by default.

    Raises:
        DataError: the question has fewer documents.
        ConfigError: a place beyond the documents.
    """
    if len(question.documents) < num_documents:
        raise DataError(
            f"multi-document question '{question.question:.60}': {len(question.documents)} "
            f"documents, {num_documents} were asked for."
        )
    others = [i for i in range(len(question.documents)) if i not in question.gold]
    right = list(question.gold)[:num_documents]
    kept = sorted([*right, *others[: num_documents - len(right)]])
    if place is not None:
        if not 0 <= place <= num_documents - len(right):
            raise ConfigError(f"multi-document: place {place} is not among {num_documents}.")
        rest = [i for i in kept if i not in right]
        kept = [*rest[:place], *right, *rest[place:]]
    lines = [OPENING]
    for number, i in enumerate(kept, start=1):
        title, text = question.documents[i]
        lines.append(f"Document {number}{f' ({title})' if title else ''}: {text}")
    return "\n".join([*lines, "", f"Question: {question.question}", "Answer:"])


def first_line(text: str) -> str:
    """Return the answer in a generated text: the first text before a newline that is not empty."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def answer_scores(text: str, answers: Sequence[str]) -> tuple[bool, bool]:
    """Return whether the first line equals an accepted answer, and whether it contains one.

    Case, punctuation and articles do not count.
    """
    given = normalise_answer(first_line(text))
    wanted = [label for label in map(normalise_answer, answers) if label]
    return given in wanted, any(f" {label} " in f" {given} " for label in wanted)


def multi_document(
    model: Any,
    questions: Sequence[Question],
    num_documents: Sequence[int] = NUM_DOCUMENTS,
    *,
    place: int | None = None,
    max_tokens: int = MAX_TOKENS,
    tokenizer: Coder | None = None,
    generate: Generate | None = None,
) -> dict[int, dict[str, float]]:
    """Return accuracies by number of documents.

    Args:
        model: in eval mode.
        questions: see `read_multi_document`.
        num_documents: of the prompts.
        place: see `multi_document_prompt`.
        max_tokens: of an answer.
        tokenizer: the model's own by default.
        generate: continues prompts; greedy decoding by default.

    Returns:
        `{documents: {"exact": ..., "contains": ..., "count": ..., "cut": ...}}`; `cut` is the share
        of prompts that were too long for the context and lost their beginning.
    """
    coder = tokenizer_of(model, tokenizer)
    writer = generate or greedy(model, end_ids=(coder.end_id,), batch_size=4)
    context = getattr(model, "context", 0)
    room = context - max_tokens if context else 0
    if context and room < 1:
        raise ConfigError(
            f"multi-document: answers of {max_tokens} tokens leave no room in a context of "
            f"{context}; lower max_tokens."
        )
    found = {}
    for count in num_documents:
        rows = [coder.encode(multi_document_prompt(q, count, place=place)) for q in questions]
        cut = sum(len(row) > room for row in rows) if room else 0
        rows = [row[-room:] if room else row for row in rows]
        # an answer ends with the first newline after it has begun
        written = writer(rows, max_tokens, lambda ids: "\n" in coder.decode(ids).lstrip())
        pairs = zip(questions, written, strict=True)
        hits = [answer_scores(coder.decode(ids), q.answers) for q, ids in pairs]
        found[count] = {
            "exact": sum(h[0] for h in hits) / len(hits),
            "contains": sum(h[1] for h in hits) / len(hits),
            "count": float(len(hits)),
            "cut": cut / len(hits),
        }
    return found
