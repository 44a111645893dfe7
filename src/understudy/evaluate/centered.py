"""Centered accuracy: how much of the way from guessing to perfection a model has gone.

    >>> from understudy.evaluate.centered import centered_accuracy
    >>> centered_accuracy(0.7, 0.4)
    0.5

CORE is the mean over 22 tasks, EXTENDED over 53. A task that is missing makes the mean not
available: a mean over what happens to be there is another metric.

References:
    arXiv 2406.11794, sec. 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from understudy.core.errors import DataError
from understudy.evaluate.core_tasks import MMLU, TaskTable, task_table


def centered_accuracy(accuracy: float, baseline: float) -> float:
    """Return (accuracy - baseline) / (1 - baseline): 0 for guessing, 1 for all right.

    Args:
        accuracy: a fraction in [0, 1].
        baseline: accuracy of guessing, a fraction in [0, 1).

    Raises:
        DataError: one is out of range.
    """
    if not 0 <= accuracy <= 1:
        raise DataError(
            f"centered_accuracy: expected an accuracy in [0, 1], got {accuracy}; percentages are "
            "divided by 100 first."
        )
    if not 0 <= baseline < 1:
        raise DataError(f"centered_accuracy: expected a baseline in [0, 1), got {baseline}.")
    return (accuracy - baseline) / (1.0 - baseline)


@dataclass(frozen=True)
class CenteredScores:
    """CORE, EXTENDED and MMLU of one model.

    Attributes:
        version: of the baselines.
        core: mean centered accuracy over CORE; None if a task is missing.
        extended: the same over EXTENDED; None if a task or a baseline is missing.
        mmlu: 5-shot accuracy, not centered; None if it is missing.
        mean: mean accuracy over CORE, not centered; None if a task is missing.
        accuracies: what went in, by task.
        centered: centered accuracy by task, where the baseline is known.
        missing_core: tasks of CORE without a result.
        missing_extended: tasks of EXTENDED without a result.
        no_baseline: tasks of EXTENDED whose baseline this version does not know.
        unused: results of tasks that the version does not have.
    """

    version: str
    core: float | None
    extended: float | None
    mmlu: float | None
    mean: float | None
    accuracies: dict[str, float]
    centered: dict[str, float]
    missing_core: tuple[str, ...] = ()
    missing_extended: tuple[str, ...] = ()
    no_baseline: tuple[str, ...] = ()
    unused: tuple[str, ...] = field(default=())

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain data, "N/A" and the reason where a mean is not available."""
        data = asdict(self)
        for name in ("core", "extended", "mmlu", "mean"):
            if data[name] is None:
                data[name] = "N/A"
        return data

    def require(self, which: str = "core") -> float:
        """Return `core`, `extended` or `mmlu`.

        Raises:
            DataError: it is not available; the message lists the missing tasks and the version.
        """
        value = getattr(self, which)
        if value is not None:
            return value
        missing = {"core": self.missing_core, "extended": self.missing_extended}.get(which, (MMLU,))
        reasons = []
        if missing:
            reasons.append(f"no result of {', '.join(missing)}")
        if which == "extended" and self.no_baseline:
            reasons.append(
                f"no baseline of {', '.join(self.no_baseline)} (give a table file with all of them "
                "and a version name)"
            )
        raise DataError(f"{which.upper()} {self.version} is N/A: {'; '.join(reasons)}.")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def aggregate(
    accuracies: Mapping[str, float], table: TaskTable | str = "v2", *, where: str = "results"
) -> CenteredScores:
    """Return CORE, EXTENDED and MMLU of accuracies by task.

    Args:
        accuracies: fractions by the name of the task.
        table: baselines, or the name of a published version.
        where: what to call the results in errors.

    Raises:
        DataError: an accuracy outside [0, 1] or not a number; the task is named.
    """
    table = task_table(table) if isinstance(table, str) else table
    centered: dict[str, float] = {}
    for name, value in accuracies.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(
                f"{where}: accuracy of '{name}' is {value!r}; expected a fraction in [0, 1]."
            )
        task = table.tasks.get(name)
        if task is not None and task.baseline is not None:
            centered[name] = centered_accuracy(value, task.baseline / 100)
    missing_core = tuple(n for n in table.core if n not in centered)
    missing_extended = tuple(n for n in table.tasks if n not in accuracies)
    whole = not missing_extended and not table.unknown
    return CenteredScores(
        version=table.version,
        core=None if missing_core else _mean([centered[n] for n in table.core]),
        extended=_mean([centered[n] for n in table.tasks]) if whole else None,
        mmlu=accuracies.get(MMLU),
        mean=None if missing_core else _mean([accuracies[n] for n in table.core]),
        accuracies=dict(accuracies),
        centered=centered,
        missing_core=missing_core,
        missing_extended=missing_extended,
        no_baseline=table.unknown,
        unused=tuple(n for n in accuracies if n not in table.tasks),
    )
