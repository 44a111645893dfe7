"""Checks that hold one arm's metric, or its ratio over another arm's, against a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError
from understudy.evaluate.check_base import (
    CheckResult,
    Results,
    check_result,
    not_finite,
    values_of,
)


@dataclass(frozen=True, kw_only=True)
class _Limit:
    name: str
    metric: str
    arm: str
    limit: float
    over: str | None = None
    reduce: str = "mean"
    required: bool = True

    def __post_init__(self) -> None:
        if self.reduce not in ("mean", "median", "max", "min"):
            raise ConfigError(
                f"check '{self.name}': reduce is '{self.reduce}'; expected mean, median, max "
                "or min."
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm, and the one that it is divided by."""
        return (self.arm,) if self.over is None else (self.arm, self.over)

    def values(self, results: Results) -> np.ndarray:
        """Return the value, or the paired ratio, by seed."""
        top = values_of(results, self.arm, self.metric)
        if self.over is None:
            return top
        bottom = values_of(results, self.over, self.metric)
        with np.errstate(divide="ignore", invalid="ignore"):
            return top / bottom

    def _words(self, sign: str) -> str:
        what = self.arm if self.over is None else f"{self.arm} / {self.over}"
        return f"{self.metric}: {self.reduce} of {what} {sign} {self.limit:g}"

    def _judge(self, results: Results, holds: Callable[[float], bool]) -> CheckResult:
        found = self.values(results)
        if not_finite(found):
            return check_result(self, False, "a result is not finite", value=None)  # type: ignore[arg-type]
        value = float(getattr(np, self.reduce)(found))
        spread = f"{found.min():.4g} to {found.max():.4g}"
        return check_result(
            self,  # type: ignore[arg-type]
            holds(value),
            f"{self.reduce} {value:.4g} (seeds {spread})",
            value=value,
            per_seed=found.tolist(),
            limit=self.limit,
        )


@dataclass(frozen=True, kw_only=True)
class AtMost(_Limit):
    """A metric of an arm, or its paired ratio over another arm's, stays at or below a limit.

    Attributes:
        name: a short name.
        metric: what is read.
        arm: the arm.
        limit: the bound, inclusive.
        over: the arm whose metric divides, seed by seed; None compares the metric itself.
        reduce: how seeds are joined: mean, median, max or min.
        required: whether the verdict depends on it.
    """

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        return self._words("<=")

    def judge(self, results: Results) -> CheckResult:
        """Compare the joined value with the limit."""
        return self._judge(results, lambda value: value <= self.limit)


@dataclass(frozen=True, kw_only=True)
class AtLeast(_Limit):
    """A metric of an arm, or its paired ratio over another arm's, reaches a limit.

    Attributes:
        name: a short name.
        metric: what is read.
        arm: the arm.
        limit: the bound, inclusive.
        over: the arm whose metric divides, seed by seed; None compares the metric itself.
        reduce: how seeds are joined: mean, median, max or min.
        required: whether the verdict depends on it.
    """

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        return self._words(">=")

    def judge(self, results: Results) -> CheckResult:
        """Compare the joined value with the limit."""
        return self._judge(results, lambda value: value >= self.limit)
