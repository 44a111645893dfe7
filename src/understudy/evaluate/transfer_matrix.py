"""Transfer matrices: every checkpoint of a stream on the data of every time.

E[i, j] is a metric of the model after step i on the data of step j. In-domain performance is the
mean of the diagonal, backward transfer the mean below it (old data), forward transfer the mean
above it (data that is yet to come): averages of performance, not differences
(arXiv 2310.16226, sec. 3). Any metric will do; where lower is better, `regret` and reports turn the
sign, the means do not.

    >>> matrix = TransferMatrix.square([[1, 2, 3], [4, 5, 6], [7, 8, 9]], ("a", "b", "c"))
    >>> matrix.in_domain, round(matrix.backward, 3), round(matrix.forward, 3)
    (5.0, 6.333, 3.667)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from understudy.core.errors import DataError

ModelT = TypeVar("ModelT")
SetT = TypeVar("SetT")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Scores of checkpoints (rows) on evaluation sets (columns).

    Rows and columns may differ, as where checkpoints are monthly and evaluation sets yearly: times
    decide what is backward, in-domain and forward.

    Attributes:
        values: float64 [rows, columns]; NaN marks a missing cell.
        rows: names of the checkpoints.
        columns: names of the evaluation sets.
        row_times: order of the checkpoints, comparable with `column_times`.
        column_times: order of the sets.
        metric: what was measured.
        lower_is_better: such as losses.
    """

    values: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_times: tuple[float, ...]
    column_times: tuple[float, ...]
    metric: str = ""
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        object.__setattr__(self, "values", values)
        shape = (len(self.rows), len(self.columns))
        if values.shape != shape or not values.size:
            raise DataError(
                f"transfer matrix: {list(values.shape)} values for {shape[0]} checkpoints and "
                f"{shape[1]} evaluation sets."
            )
        if (len(self.row_times), len(self.column_times)) != shape:
            raise DataError(
                f"transfer matrix: {len(self.row_times)} times for {shape[0]} checkpoints and "
                f"{len(self.column_times)} for {shape[1]} evaluation sets; give each one."
            )

    @classmethod
    def square(
        cls,
        values: Any,
        names: Sequence[str],
        *,
        metric: str = "",
        lower_is_better: bool = False,
    ) -> Self:
        """Return the matrix of as many checkpoints as sets, in one order."""
        times = tuple(float(i) for i in range(len(names)))
        return cls(
            values=values,
            rows=tuple(names),
            columns=tuple(names),
            row_times=times,
            column_times=times,
            metric=metric,
            lower_is_better=lower_is_better,
        )

    # -- what is where

    def _order(self) -> np.ndarray:
        """Return the sign of checkpoint's time - set's time, [rows, columns]."""
        return np.sign(np.subtract.outer(self.row_times, self.column_times))

    def missing(self) -> list[tuple[str, str]]:
        """Return (checkpoint, set) of every cell that is missing or not finite."""
        places = np.argwhere(~np.isfinite(self.values))
        return [(self.rows[i], self.columns[j]) for i, j in places.tolist()]

    def _mean(self, where: np.ndarray) -> float | None:
        self.check()
        return float(self.values[where].mean()) if where.any() else None

    def check(self) -> None:
        """Raise `DataError` naming the cells that are missing; no mean is taken over the rest."""
        lost = self.missing()
        if lost:
            shown = ", ".join(f"({a}, {b})" for a, b in lost[:_SHOWN])
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            raise DataError(
                f"transfer matrix: {len(lost)} cells of {self.metric or 'the metric'} are missing "
                f"or not finite: {shown}{more} (checkpoint, evaluation set); metrics were not "
                "computed. Score these cells first."
            )

    @property
    def in_domain(self) -> float | None:
        """Mean over sets of the checkpoints' own time; None if there is none."""
        return self._mean(self._order() == 0)

    @property
    def backward(self) -> float | None:
        """Mean over sets older than their checkpoint; None if there is none."""
        return self._mean(self._order() > 0)

    @property
    def forward(self) -> float | None:
        """Mean over sets newer than their checkpoint; None if there is none."""
        return self._mean(self._order() < 0)

    def summary(self) -> dict[str, float | None]:
        """Return `in_domain`, `backward`, `forward`, and `last`: the last checkpoint's mean.

        Raises:
            DataError: a cell is missing; it is named.
        """
        self.check()
        return {
            "in_domain": self.in_domain,
            "backward": self.backward,
            "forward": self.forward,
            "last": float(self.values[-1].mean()),
        }

    def regret(self, reference: Mapping[str, float] | Sequence[float]) -> TransferMatrix:
        """Return how much worse every cell is than a reference: larger is worse.

        Args:
            reference: score of a model that saw everything, for each set.

        Raises:
            DataError: a set has no reference; it is named.
        """
        if isinstance(reference, Mapping):
            lost = [name for name in self.columns if name not in reference]
            if lost:
                raise DataError(
                    f"transfer matrix: the reference has no score on '{lost[0]}'; regret was not "
                    "computed."
                )
            reference = [reference[name] for name in self.columns]
        if len(reference) != len(self.columns):
            raise DataError(
                f"transfer matrix: {len(reference)} reference scores for {len(self.columns)} sets."
            )
        sign = 1.0 if self.lower_is_better else -1.0
        return TransferMatrix(
            values=sign * (self.values - np.asarray(reference, np.float64)),
            rows=self.rows,
            columns=self.columns,
            row_times=self.row_times,
            column_times=self.column_times,
            metric=f"regret of {self.metric}" if self.metric else "regret",
            lower_is_better=True,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; missing cells are null."""
        values = [[v if np.isfinite(v) else None for v in row] for row in self.values.tolist()]
        return {
            "values": values,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "row_times": list(self.row_times),
            "column_times": list(self.column_times),
            "metric": self.metric,
            "lower_is_better": self.lower_is_better,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described."""
        values = [[np.nan if v is None else v for v in row] for row in data["values"]]
        fields = ("rows", "columns", "row_times", "column_times")
        return cls(
            values=np.array(values, np.float64),
            metric=data["metric"],
            lower_is_better=data["lower_is_better"],
            **{name: tuple(data[name]) for name in fields},
        )


def transfer_matrix(
    checkpoints: Mapping[str, ModelT],
    sets: Mapping[str, SetT],
    metric: Callable[[ModelT, SetT], float],
    *,
    name: str = "",
    lower_is_better: bool = False,
) -> TransferMatrix:
    """Score every checkpoint on every set.

    Args:
        checkpoints: name -> model (or whatever `metric` takes), in the order of time.
        sets: name -> evaluation set. Sets of a checkpoint's name are of its time; all names must
            be in both if times are to be compared.
        metric: `metric(checkpoint, set) -> score`.
        name: of the metric.
        lower_is_better: such as losses.

    Raises:
        DataError: checkpoints and sets have other names, or another order.
    """
    if list(checkpoints) != list(sets):
        raise DataError(
            f"transfer matrix: checkpoints {', '.join(checkpoints)} and evaluation sets "
            f"{', '.join(sets)} are not the same steps in the same order; make a TransferMatrix "
            "with times of its own for these."
        )
    values = [[float(metric(model, part)) for part in sets.values()] for model in
              checkpoints.values()]  # fmt: skip
    return TransferMatrix.square(values, list(sets), metric=name, lower_is_better=lower_is_better)
