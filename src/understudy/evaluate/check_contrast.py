"""Checks of several arms at once: a weighted sum of arms, an order of arms, label efficiency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.check_base import CheckResult, Results, check_result, values_of
from understudy.evaluate.label_curves import label_efficiency
from understudy.evaluate.stats import bootstrap, spearman


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A weighted sum of arms, seed by seed: effects, interactions, differences of differences.

    Passes when the mean is at least `margin` and the lower end of its bootstrap 95% interval lies
    above `ci_above`.

    Attributes:
        name: a short name.
        metric: what is summed.
        weights: (arm, weight) pairs; weights that sum to 0 compare arms.
        margin: least mean, in the metric's unit.
        ci_above: bound of the interval's lower end; None asks nothing of the interval.
        required: whether the verdict depends on it.
    """

    name: str
    metric: str
    weights: tuple[tuple[str, float], ...]
    margin: float = 0.0
    ci_above: float | None = 0.0
    required: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of the sum."""
        return tuple(arm for arm, _ in self.weights)

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        terms = " ".join(
            f"{'+' if w > 0 else '-'} {'' if abs(w) == 1 else f'{abs(w):g} '}{arm}"
            for arm, w in self.weights
        )
        text = f"{self.metric}: mean of {terms.removeprefix('+ ')} >= {self.margin:g}"
        return text if self.ci_above is None else f"{text}, 95% interval above {self.ci_above:g}"

    def judge(self, results: Results) -> CheckResult:
        """Sum the arms in each seed and compare."""
        total = sum(w * values_of(results, arm, self.metric) for arm, w in self.weights)
        values = np.asarray(total, np.float64)
        if not np.isfinite(values).all():
            return check_result(self, False, "a result is not finite", mean=None)
        found = bootstrap(values)
        passed = found.mean >= self.margin
        if self.ci_above is not None:
            passed = passed and found.count > 1 and found.low > self.ci_above
        detail = f"mean {found.mean:+.4g}, 95% [{found.low:+.4g}, {found.high:+.4g}]"
        return check_result(
            self,
            passed,
            detail,
            mean=found.mean,
            ci95=[found.low, found.high],
            per_seed=values.tolist(),
        )


@dataclass(frozen=True, kw_only=True)
class SameOrder:
    """One metric orders some arms as another does: Spearman's rho of their means over seeds.

    Attributes:
        name: a short name.
        first: the metric that predicts.
        second: the metric that is predicted.
        arms: at least four, so that a high rho is not luck.
        at_least: least rho.
        required: whether the verdict depends on it.
    """

    name: str
    first: str
    second: str
    arms: tuple[str, ...]
    at_least: float = 0.8
    required: bool = True

    def __post_init__(self) -> None:
        if len(self.arms) < 4:
            raise ConfigError(
                f"check '{self.name}': an order of {len(self.arms)} arms says little; name at "
                "least 4."
            )

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        return (
            f"Spearman's rho of {self.first} and {self.second} over {', '.join(self.arms)} >= "
            f"{self.at_least:g}"
        )

    def judge(self, results: Results) -> CheckResult:
        """Correlate the ranks of the means."""
        means = {
            metric: [float(values_of(results, arm, metric).mean()) for arm in self.arms]
            for metric in (self.first, self.second)
        }
        rho = spearman(means[self.first], means[self.second])
        shown = "; ".join(
            f"{arm} {a:.4g} -> {b:.4g}"
            for arm, a, b in zip(self.arms, *means.values(), strict=True)
        )
        return check_result(
            self, rho >= self.at_least - 1e-12, f"rho {rho:.3g} ({shown})", rho=rho, means=means
        )


@dataclass(frozen=True, kw_only=True)
class FewerLabels:
    """One arm reaches another's score with several times fewer labels.

    In each seed the score is that of `worse` at `labels`; the ratio is what `worse` needs for it
    over what `better` needs, by interpolation that is linear in log(labels). A curve that ends
    before the score gives a bound, which counts as the ratio. Passes when the geometric mean over
    seeds is at least `ratio` and the bootstrap 95% interval of it lies above `ci_above`.

    Attributes:
        name: a short name.
        metric: prefix; `metric@n` is the score with n labels.
        better: the arm that should need fewer.
        worse: the arm that sets the score.
        curve: the label counts that both arms report.
        labels: where `worse` sets the score.
        ratio: least ratio.
        ci_above: bound of the interval's lower end, as a ratio.
        required: whether the verdict depends on it.
    """

    name: str
    metric: str
    better: str
    worse: str
    curve: tuple[int, ...]
    labels: int
    ratio: float = 2.0
    ci_above: float = 1.0
    required: bool = True

    def __post_init__(self) -> None:
        if self.labels not in self.curve or len(self.curve) < 2:
            raise ConfigError(
                f"check '{self.name}': {self.labels} labels must be one of at least two counts, "
                f"got {self.curve}."
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The two arms."""
        return (self.better, self.worse)

    @property
    def statement(self) -> str:
        """What is asked, in words."""
        return (
            f"{self.metric}: labels of {self.worse} / labels of {self.better} for {self.worse}'s "
            f"score with {self.labels} labels: geometric mean >= {self.ratio:g}, 95% interval "
            f"above {self.ci_above:g}"
        )

    def ratios(self, results: Results) -> np.ndarray:
        """Return the ratio of each seed."""
        table: Mapping[str, np.ndarray] = {
            arm: np.stack([values_of(results, arm, f"{self.metric}@{n}") for n in self.curve])
            for arm in self.arms
        }
        found = []
        for better, worse in zip(table[self.better].T, table[self.worse].T, strict=True):
            score = float(worse[self.curve.index(self.labels)])
            mine, theirs = (dict(zip(self.curve, c.tolist(), strict=True)) for c in (better, worse))
            try:
                found.append(label_efficiency(mine, theirs, score).ratio)
            except DataError:  # both reach it with the fewest labels: no difference is seen
                found.append(1.0)
        return np.array(found)

    def judge(self, results: Results) -> CheckResult:
        """Compare the geometric mean with the ratio and the interval with its bound."""
        if not all(
            np.isfinite(values_of(results, arm, f"{self.metric}@{n}")).all()
            for arm in self.arms
            for n in self.curve
        ):
            return check_result(self, False, "a result is not finite", ratio=None)
        ratios = self.ratios(results)
        found = bootstrap(np.log(ratios))
        mean, low, high = (float(np.exp(v)) for v in (found.mean, found.low, found.high))
        passed = mean >= self.ratio and found.count > 1 and low > self.ci_above
        return check_result(
            self,
            passed,
            f"geometric mean {mean:.3g}, 95% [{low:.3g}, {high:.3g}]",
            ratio=mean,
            ci95=[low, high],
            per_seed=ratios.tolist(),
        )
