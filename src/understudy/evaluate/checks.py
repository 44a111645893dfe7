"""What a claim must show: small, pure judgements of results by arm, metric and seed.

A check sees only numbers. It names the arms and metrics that it needs, so that a claim can be
refused before anything is trained when it asks for an arm that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.stats import bootstrap, paired_bootstrap, standard_error

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


def _not_finite(*arrays: np.ndarray) -> bool:
    return not all(np.isfinite(a).all() for a in arrays)


def _result(check: Check, passed: bool, detail: str, **values: Any) -> CheckResult:
    return CheckResult(
        name=check.name,
        statement=check.statement,
        required=check.required,
        passed=bool(passed),
        detail=detail,
        values=values,
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One arm is better than another by a margin, paired by seed.

    Passes when the mean of the paired differences is at least `margin`, the lower end of their
    bootstrap 95% interval lies above `ci_above`, and, with `each_seed`, the difference is at least
    `each_seed_margin` in every seed.

    Attributes:
        name: a short name.
        metric: what is compared.
        better: the arm that should win.
        worse: the arm that should lose.
        margin: least mean difference, in the metric's unit; may be negative ("no worse than").
        ci_above: bound of the interval's lower end; None asks nothing of the interval.
        each_seed: also ask for it in every single seed.
        each_seed_margin: least difference in every seed; None takes `margin`.
        lower_is_better: the difference is `worse - better` (errors, ECE, seconds).
        required: whether the verdict depends on it.
    """

    name: str
    metric: str
    better: str
    worse: str
    margin: float = 0.0
    ci_above: float | None = 0.0
    each_seed: bool = False
    each_seed_margin: float | None = None
    lower_is_better: bool = False
    required: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        """The two arms."""
        return (self.better, self.worse)

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        sign = (
            f"{self.worse} - {self.better}"
            if self.lower_is_better
            else (f"{self.better} - {self.worse}")
        )
        text = f"{self.metric}: mean of {sign} >= {self.margin:g}"
        if self.ci_above is not None:
            text += f", 95% interval above {self.ci_above:g}"
        if self.each_seed:
            text += f", >= {self._seed_margin:g} in every seed"
        return text

    @property
    def _seed_margin(self) -> float:
        return self.margin if self.each_seed_margin is None else self.each_seed_margin

    def differences(self, results: Results) -> np.ndarray:
        """Return the paired differences by seed, positive when `better` is better."""
        delta = values_of(results, self.better, self.metric) - values_of(
            results, self.worse, self.metric
        )
        return -delta if self.lower_is_better else delta

    def judge(self, results: Results) -> CheckResult:
        """Compare the paired differences with the margin and the interval's bound."""
        delta = self.differences(results)
        if _not_finite(delta):
            return _result(self, False, "a result is not finite", mean=None, ci95=[None, None])
        found = paired_bootstrap(delta, np.zeros_like(delta))
        passed = found.mean >= self.margin
        detail = f"mean {found.mean:+.4g}, 95% [{found.low:+.4g}, {found.high:+.4g}]"
        if self.ci_above is not None:
            if found.count < 2:
                passed, detail = False, detail + "; one seed gives no interval"
            passed = passed and found.low > self.ci_above
        if self.each_seed:
            held = int((delta >= self._seed_margin).sum())
            passed = passed and held == len(delta)
            detail += f"; holds in {held} of {len(delta)} seeds"
        return _result(
            self,
            passed,
            detail,
            mean=found.mean,
            ci95=[found.low, found.high],
            per_seed=delta.tolist(),
            margin=self.margin,
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
        if _not_finite(found):
            return _result(self, False, "a result is not finite", value=None)  # type: ignore[arg-type]
        value = float(getattr(np, self.reduce)(found))
        spread = f"{found.min():.4g} to {found.max():.4g}"
        return _result(
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


@dataclass(frozen=True, kw_only=True)
class Within:
    """Two arms are equal, or an arm equals a number, up to some standard errors.

    Attributes:
        name: a short name.
        metric: what is compared.
        a: an arm.
        b: the other arm; None compares with `value`.
        value: a number such as the accuracy of chance; used when `b` is None.
        num_se: how many standard errors of the (paired) mean are allowed.
        floor: a deviation that is allowed whatever the standard error, in the metric's unit; the
            standard error of a few equal seeds may be zero.
        required: whether the verdict depends on it.
    """

    name: str
    metric: str
    a: str
    b: str | None = None
    value: float = 0.0
    num_se: float = 2.0
    floor: float = 0.0
    required: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it reads."""
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        other = f"{self.value:g}" if self.b is None else self.b
        text = f"{self.metric}: |{self.a} - {other}| <= {self.num_se:g} standard errors"
        return text + (f" or {self.floor:g}" if self.floor else "")

    def judge(self, results: Results) -> CheckResult:
        """Compare the mean deviation with its standard error."""
        delta = values_of(results, self.a, self.metric) - (
            self.value if self.b is None else values_of(results, self.b, self.metric)
        )
        if _not_finite(delta):
            return _result(self, False, "a result is not finite", mean=None)
        error = standard_error(delta)
        mean = float(delta.mean())
        allowed = max(self.floor, 0.0 if np.isnan(error) else self.num_se * error)
        found = bootstrap(delta)
        return _result(
            self,
            abs(mean) <= allowed,
            f"mean {mean:+.4g}, standard error {error:.3g}, allowed {allowed:.3g}",
            mean=mean,
            standard_error=None if np.isnan(error) else error,
            ci95=[found.low, found.high],
            per_seed=delta.tolist(),
        )


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """Anything else: a function of all results.

    Attributes:
        name: a short name.
        statement: what is asked, in words.
        fn: takes the results, returns (passed, detail).
        reads: the arms that it reads, so that a claim can be checked before it runs.
        required: whether the verdict depends on it.
    """

    name: str
    statement: str
    fn: Callable[[Results], tuple[bool, str]]
    reads: tuple[str, ...] = ()
    required: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it declared."""
        return self.reads

    def judge(self, results: Results) -> CheckResult:
        """Call the function."""
        passed, detail = self.fn(results)
        return _result(self, passed, detail)
