"""What a claim must show: small, pure judgements of results by arm, metric and seed.

A check sees only numbers. It names the arms and metrics that it needs, so that a claim can be
refused before anything is trained when it asks for an arm that does not exist. Limits of one arm's
metric are in `understudy.evaluate.check_limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from understudy.evaluate.check_base import (
    CheckResult,
    Results,
    check_result,
    not_finite,
    values_of,
)
from understudy.evaluate.stats import bootstrap, paired_bootstrap, standard_error


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
        if not_finite(delta):
            return check_result(self, False, "a result is not finite", mean=None, ci95=[None, None])
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
        return check_result(
            self,
            passed,
            detail,
            mean=found.mean,
            ci95=[found.low, found.high],
            per_seed=delta.tolist(),
            margin=self.margin,
        )


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
        if not_finite(delta):
            return check_result(self, False, "a result is not finite", mean=None)
        error = standard_error(delta)
        mean = float(delta.mean())
        allowed = max(self.floor, 0.0 if np.isnan(error) else self.num_se * error)
        found = bootstrap(delta)
        return check_result(
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
        return check_result(self, passed, detail)
