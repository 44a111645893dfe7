"""How language models' tasks are scored: pure functions of losses and texts.

- multiple choice: the choice whose tokens have the lowest mean loss after the question
- schema: the same continuation after different contexts; the context that makes it likeliest
- language modelling: every token of the continuation is the likeliest one (greedy exact match)
- question answering: the answer is taken out of a generated text and compared with accepted ones

References:
    mosaicml/llm-foundry 0.9, llmfoundry/eval (scoring types; few-shot sampling); arXiv 1806.02847
    (schema); arXiv 1705.03551 (normalisation of answers).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Literal

import numpy as np

from understudy.core.errors import DataError

Measure = Literal["mean", "sum", "characters"]
MEASURES: tuple[Measure, ...] = ("mean", "sum", "characters")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MARKS = str.maketrans({mark: " " for mark in string.punctuation + "‘’´`"})


def choose(
    losses: Sequence[Sequence[float] | np.ndarray],
    measure: Measure = "mean",
    texts: Sequence[str] | None = None,
) -> int:
    """Return the number of the likeliest candidate; of equal ones the first.

    Args:
        losses: loss of each token of each candidate, in nats.
        measure: `mean` over tokens (LLM-Foundry), `sum` (lm-eval's `acc`), or the sum over the
            `characters` of the candidate's text (lm-eval's `acc_norm`).
        texts: the candidates, for `characters`.

    Raises:
        DataError: no candidates, one without tokens, or a loss that is not a number.
    """
    if not len(losses):
        raise DataError("choose: no candidates.")
    values = []
    for i, row in enumerate(losses):
        array = np.asarray(row, np.float64)
        if not len(array) or np.isnan(array).any():
            raise DataError(f"choose: candidate {i} has no tokens or a loss that is not a number.")
        if measure == "mean":
            values.append(array.mean())
        elif measure == "sum" or texts is None:
            values.append(array.sum())
        else:
            values.append(array.sum() / max(len(texts[i]), 1))
    return int(np.argmin(values))


def exact_match(greedy: Sequence[bool] | np.ndarray) -> bool:
    """Return whether every token of a continuation is the likeliest one.

    Args:
        greedy: of each token.

    Raises:
        DataError: no tokens.
    """
    if not len(greedy):
        raise DataError("exact_match: a continuation without tokens.")
    return bool(np.all(greedy))


def normalise_answer(text: str) -> str:
    """Return an answer in lower case, without punctuation, articles and extra spaces."""
    text = text.replace("_", " ").lower().translate(_MARKS)
    return " ".join(_ARTICLES.sub(" ", text).split())


def extract_answer(text: str, stops: Sequence[str] = (), delimiter: str = "") -> str:
    """Take the answer out of a generated text.

    Args:
        text: what was generated.
        stops: the text ends before the first of these.
        delimiter: the answer follows its last occurrence, after a chain of thought; without one in
            the text, all of the text is the answer.
    """
    for stop in stops:
        if stop:
            text = text.split(stop, 1)[0]
    return text.rsplit(delimiter, 1)[-1] if delimiter else text


def answers_match(text: str, accepted: Sequence[str], *, normalise: bool = True) -> bool:
    """Return whether a text begins with an accepted answer.

    Accepted answers of which normalisation leaves nothing (such as `the`) match an equal text only:
    every text begins with nothing.

    Args:
        text: the extracted answer.
        accepted: right answers.
        normalise: compare without case, punctuation and articles.

    Raises:
        DataError: no accepted answer.
    """
    if not accepted:
        raise DataError("answers_match: a question without any accepted answer.")
    if not normalise:
        return any(text.startswith(answer) for answer in accepted if answer)
    cleaned = normalise_answer(text)
    labels = [normalise_answer(answer) for answer in accepted]
    if any(label and cleaned.startswith(label) for label in labels):
        return True
    bare = [a.strip().lower() for a, label in zip(accepted, labels, strict=True) if not label]
    return text.strip().lower() in bare
