"""Claims: arms, seeds, a metric, a budget, a margin and what counts as failure, before running.

A recipe states its claim as a `Claim`; `verify` trains every arm with every seed, pairs the arms by
seed and writes the verdict. A claim that fails is written in the same way and stays.

    >>> from understudy.evaluate.claims import Arm, Claim, Difference
    >>> def run_arm(arm, seed, context):
    ...     return {"top1": {"plain": 0.6, "reinforced": 0.7}[arm] + seed / 1000}
    >>> claim = Claim(
    ...     recipe="example",
    ...     statement="Reinforced beats plain by five points.",
    ...     arms=(Arm(name="plain", description="CE"), Arm(name="reinforced", description="KL")),
    ...     seeds=(0, 1, 2),
    ...     metrics=("top1",),
    ...     checks=(Difference(name="gain", metric="top1", better="reinforced", worse="plain",
    ...                        margin=0.05),),
    ...     budget="nothing is trained",
    ...     failure="the interval touches 0",
    ...     run_arm=run_arm,
    ...     scales={"laptop": {}},
    ... )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.provenance import machine, versions
from understudy.evaluate.checks import (
    AtLeast,
    AtMost,
    Check,
    CheckResult,
    Difference,
    Predicate,
    Results,
    Within,
)
from understudy.evaluate.verdict import Verdict

__all__ = [
    "Arm",
    "AtLeast",
    "AtMost",
    "Check",
    "CheckResult",
    "Claim",
    "Context",
    "Difference",
    "Predicate",
    "Results",
    "Verdict",
    "Within",
    "judge",
    "verify",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: a short name, unique in the claim; part of file names.
        description: what is done, in one sentence.
    """

    name: str
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What an arm gets besides its name and seed.

    Attributes:
        recipe: name of the recipe.
        scale: at which scale the claim is tested.
        settings: the claim's settings of that scale (sizes, steps, ...).
        shared_dir: kept for all seeds; written by `setup` only.
        seed_dir: kept for one seed; written by `prepare` only, read by all its arms.
        arm_dir: this arm's own folder of this seed; kept when a run is stopped, so that training
            can resume in it. In `setup` and `prepare` it equals the folder that they may write.
        prepared: what `prepare` returned for this seed.
        shared: what `setup` returned.
    """

    recipe: str
    scale: str
    settings: Mapping[str, Any]
    shared_dir: Path
    seed_dir: Path
    arm_dir: Path
    prepared: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)


RunArm = Callable[[str, int, Context], Mapping[str, float]]
Prepare = Callable[[int, Context], Mapping[str, Any] | None]
Setup = Callable[[Context], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a recipe claims, and how it is put to the test.

    The functions must be importable by name (defined at the top of a module), because arms may run
    in processes of their own. They must depend on nothing but their arguments, and must bear being
    called again after an interruption, with whatever files they left in their folder.

    Attributes:
        recipe: name of the recipe.
        statement: the claim in one or two sentences.
        arms: the sides of the comparison; every one runs with every seed.
        seeds: at least two; they pair the arms.
        metrics: the metrics that decide, the main one first.
        checks: what the results must show. The first `Difference` among the required ones is the
            headline of the verdict.
        budget: what every arm may spend, in words.
        failure: what counts as failure, in words.
        run_arm: `run_arm(arm, seed, context) -> {metric: value}`.
        prepare: `prepare(seed, context)`, run once a seed before its arms: data, teachers. What it
            returns (plain data) is `context.prepared`; files go to `context.seed_dir`.
        setup: `setup(context)`, run once before everything; files go to `context.shared_dir`.
        scales: settings (plain data) by scale: `"laptop"`, `"gpu"`.
    """

    recipe: str
    statement: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    checks: tuple[Check, ...]
    budget: str
    failure: str
    run_arm: RunArm
    prepare: Prepare | None = None
    setup: Setup | None = None
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"laptop": {}})

    def __post_init__(self) -> None:
        where = f"claim of {self.recipe}"
        names = [arm.name for arm in self.arms]
        _unique(names, f"{where}: arms")
        _unique([check.name for check in self.checks], f"{where}: checks")
        check_seeds(self.seeds, where)
        if not self.metrics:
            raise ConfigError(f"{where}: name at least one metric.")
        if not any(check.required for check in self.checks):
            raise ConfigError(f"{where}: no check is required, so it could not fail.")
        for name in names:
            if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
                raise ConfigError(f"{where}: arm '{name}' cannot be part of a file name.")
        for check in self.checks:
            for arm in check.arms:
                if arm not in names:
                    raise ConfigError(
                        f"{where}: check '{check.name}' reads arm '{arm}'; there are "
                        f"{', '.join(names)}."
                    )

    def settings(self, scale: str) -> Mapping[str, Any]:
        """Return the settings of a scale.

        Raises:
            ConfigError: the claim cannot be tested at that scale.
        """
        if scale not in self.scales:
            hint = f" 'understudy plan {self.recipe}' counts that size." if scale == "paper" else ""
            raise ConfigError(
                f"claim of {self.recipe}: no scale '{scale}'; it is tested at "
                f"{', '.join(self.scales)}.{hint}"
            )
        return self.scales[scale]

    def describe(self) -> str:
        """Return the claim in words: statement, arms, checks, budget, failure."""
        lines = [self.statement, "", "arms:"]
        width = max(len(arm.name) for arm in self.arms)
        lines += [f"  {arm.name.ljust(width)}  {arm.description}" for arm in self.arms]
        lines.append("checks:")
        for check in self.checks:
            extra = "" if check.required else " (reported only)"
            lines.append(f"  {check.name}: {check.statement}{extra}")
        lines.append(f"seeds:   {', '.join(str(seed) for seed in self.seeds)}")
        lines.append(f"budget:  {self.budget}")
        lines.append(f"failure: {self.failure}")
        lines.append(f"scales:  {', '.join(self.scales)}")
        return "\n".join(lines)


def _unique(names: Sequence[str], where: str) -> None:
    if not names:
        raise ConfigError(f"{where}: expected at least one.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{where}: '{twice[0]}' is there twice.")


def check_seeds(seeds: Sequence[int], where: str) -> None:
    """Raise `ConfigError` unless there are at least two seeds, all different."""
    if len(seeds) < 2:
        raise ConfigError(f"{where}: {len(seeds)} seeds give no interval; give at least 2.")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}: seeds {list(seeds)} are not all different.")


def judge(claim: Claim, results: Results) -> tuple[CheckResult, ...]:
    """Return what each check of a claim finds in the results."""
    return tuple(check.judge(results) for check in claim.checks)


def collect(
    claim: Claim, seeds: Sequence[int], found: Mapping[tuple[str, int], Mapping[str, float]]
) -> dict[str, dict[str, np.ndarray]]:
    """Arrange results by arm, metric and seed.

    Args:
        claim: gives the order of the arms.
        seeds: give the order of the values.
        found: (arm, seed) -> metrics.

    Raises:
        DataError: an arm reports different metrics for different seeds, or misses one that the
            claim names.
    """
    results: dict[str, dict[str, np.ndarray]] = {}
    for arm in claim.arms:
        first = found[arm.name, seeds[0]]
        for seed in seeds:
            if set(found[arm.name, seed]) != set(first):
                odd = sorted(set(found[arm.name, seed]) ^ set(first))[0]
                raise DataError(
                    f"claim of {claim.recipe}: arm '{arm.name}' reports '{odd}' for only one of "
                    f"the seeds {seeds[0]} and {seed}."
                )
        if claim.metrics[0] not in first:
            raise DataError(
                f"claim of {claim.recipe}: arm '{arm.name}' reports no '{claim.metrics[0]}', the "
                f"main metric; it reports {', '.join(first)}."
            )
        results[arm.name] = {
            metric: np.array([found[arm.name, seed][metric] for seed in seeds], dtype=np.float64)
            for metric in first
        }
    return results


def _headline(
    claim: Claim, results: tuple[CheckResult, ...]
) -> tuple[dict[str, Any], float | None]:
    order = sorted(
        (i for i, check in enumerate(claim.checks) if isinstance(check, Difference)),
        key=lambda i: not claim.checks[i].required,
    )
    if not order:
        return {"mean": None, "ci95": [None, None]}, None
    found, check = results[order[0]].values, claim.checks[order[0]]
    assert isinstance(check, Difference)
    return {"mean": found["mean"], "ci95": found["ci95"]}, check.margin


def conclude(
    claim: Claim, scale: str, seeds: Sequence[int], results: Results, seconds: float
) -> Verdict:
    """Judge the results and return the verdict; runs nothing and writes nothing."""
    checks = judge(claim, results)
    difference, margin = _headline(claim, checks)
    return Verdict(
        recipe=claim.recipe,
        scale=scale,
        statement=claim.statement,
        passed=all(check.passed for check in checks if check.required),
        seeds=tuple(seeds),
        arms={arm: {m: v.tolist() for m, v in ms.items()} for arm, ms in results.items()},
        difference=difference,
        margin=margin,
        checks=checks,
        seconds=seconds,
        machine=machine(),
        versions=versions(),
        metric=claim.metrics[0],
        descriptions={arm.name: arm.description for arm in claim.arms},
        budget=claim.budget,
        failure=claim.failure,
    )


def verify(
    claim: Claim,
    *,
    scale: str = "laptop",
    seeds: Sequence[int] | None = None,
    workdir: str | Path = "runs/claims",
    out: str | Path | None = "docs/claims",
    resume: bool = True,
    jobs: int = 1,
    threads: int = 1,
) -> Verdict:
    """Run the arms of a claim, judge them and write the verdict.

    Every finished arm is kept in `workdir`, so a stopped run goes on where it was. What is kept
    belongs to one state of the code and of the settings; when either changes, arms run again.

    Args:
        claim: what to test.
        scale: which of its settings.
        seeds: other seeds than the claim's own.
        workdir: where finished arms are kept.
        out: folder of verdicts, `<out>/<scale>/<recipe>.json`; None writes nothing.
        resume: use finished arms; otherwise forget them first.
        jobs: processes that run arms side by side.
        threads: threads of each process (torch and OpenMP).

    Returns:
        the verdict, passed or failed.

    Raises:
        ConfigError: an unknown scale, too few seeds or jobs.
        DataError: arms report different metrics.
    """
    from understudy.evaluate.claim_runs import run_units

    settings = claim.settings(scale)
    seeds = tuple(claim.seeds if seeds is None else seeds)
    check_seeds(seeds, f"claim of {claim.recipe}")
    if jobs < 1:
        raise ConfigError(f"verify: jobs must be at least 1, got {jobs}.")
    found, seconds = run_units(
        claim,
        scale,
        settings,
        seeds,
        Path(workdir),
        resume=resume,
        jobs=jobs,
        threads=threads,
    )
    verdict = conclude(claim, scale, seeds, collect(claim, seeds, found), seconds)
    if out is not None:
        verdict.write(out)
    return verdict
