"""Dynamic tasks: one score of a model on the data of each time step.

`retrieval` is the mean of Recall@1 from image to text and from text to image among the pairs of a
step; `zeroshot` the accuracy of naming a step's pictures by all classes (arXiv 2310.16226, sec. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.run import evaluate_model
from understudy.evaluate.zeroshot import TEMPLATES, Prompts

if TYPE_CHECKING:
    from understudy.data.store import Store

MAIN = {"retrieval": "mean_r1", "zeroshot": "top1"}
"""Task -> its score."""

StepScores = dict[str, dict[str, float]]
"""Task -> step -> score."""


def step_scores(
    model: Any,
    store: Store,
    sets: Mapping[str, np.ndarray],
    *,
    tasks: Sequence[str] = ("retrieval",),
    prompts: Prompts = TEMPLATES,
    text: str = "text",
    batch_size: int = 256,
) -> StepScores:
    """Score a model on the rows of every time step.

    Args:
        model: a CLIP.
        store: holds the rows.
        sets: step -> row numbers.
        tasks: `retrieval`, `zeroshot` or both.
        prompts: of zero-shot classification.
        text: column of the captions.
        batch_size: images at once.

    Raises:
        ConfigError: no task, or an unknown one.
        DataError: a step without rows, or without what a task needs; the step is named.
    """
    if not tasks:
        raise ConfigError(f"dynamic tasks: give at least one of {', '.join(MAIN)}.")
    for task in tasks:
        check_choice(task, MAIN, "dynamic task")
    out: StepScores = {task: {} for task in tasks}
    for name, rows in sets.items():
        try:
            found = evaluate_model(
                model,
                store,
                tasks=tasks,
                rows=rows,
                prompts=prompts,
                ks=(1,),
                batch_size=batch_size,
                text=text,
            )
        except DataError as error:
            raise DataError(f"time step '{name}': {error}") from None
        for task in tasks:
            out[task][name] = found[f"{task}.{MAIN[task]}"]
    return out


def scorer_of(
    store: Store, sets: Mapping[str, np.ndarray], **options: Any
) -> Callable[[Any], StepScores]:
    """Return `step_scores` as a function of the model alone."""
    return lambda model: step_scores(model, store, sets, **options)
