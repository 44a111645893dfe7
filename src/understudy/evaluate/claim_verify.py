"""Put a claim to the test: train its arms, pair them by seed, judge, write the verdict.

A claim that fails is written in the same way as one that passes, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.provenance import machine, versions
from understudy.evaluate.check_base import CheckResult, Results
from understudy.evaluate.checks import Difference
from understudy.evaluate.claims import Claim, check_seeds
from understudy.evaluate.verdict import Verdict


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
