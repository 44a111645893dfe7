"""What all checks share: the results they read, what they return, how they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from understudy.core.errors import DataError

Results = Mapping[str, Mapping[str, np.ndarray]]
"""arm -> metric -> float64 [seeds], in the order of the claim's seeds."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: the check's name.
        statement: what was asked, in words.
        required: whether it decides the verdict.
        passed: whether the results show it.
        detail: the numbers, in words.
        values: the numbers, as plain data.
    """

    name: str
    statement: str
    required: bool
    passed: bool
    detail: str
    values: dict[str, Any]


class Check(Protocol):
    """One thing that results must show."""

    @property
    def name(self) -> str:
        """A short name, unique in its claim."""
        ...

    @property
    def required(self) -> bool:
        """Whether the verdict depends on it; otherwise it is only reported."""
        ...

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        ...

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it reads."""
        ...

    def judge(self, results: Results) -> CheckResult:
        """Compare the results with what is asked."""
        ...


def values_of(results: Results, arm: str, metric: str) -> np.ndarray:
    """Return one metric of one arm by seed.

    Raises:
        DataError: there is no such arm or metric.
    """
    if arm not in results:
        raise DataError(f"results have no arm '{arm}'; there are {', '.join(results)}.")
    if metric not in results[arm]:
        known = ", ".join(sorted(results[arm]))
        raise DataError(f"arm '{arm}' reports no metric '{metric}'; it reports {known}.")
    return np.asarray(results[arm][metric], dtype=np.float64)


def not_finite(*arrays: np.ndarray) -> bool:
    """Say whether any value is infinite or NaN; such results never pass."""
    return not all(np.isfinite(a).all() for a in arrays)


def check_result(check: Check, passed: bool, detail: str, **values: Any) -> CheckResult:
    """Return what a check found, with its name and what it asked."""
    return CheckResult(
        name=check.name,
        statement=check.statement,
        required=check.required,
        passed=bool(passed),
        detail=detail,
        values=values,
    )
