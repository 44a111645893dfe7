"""Claims: arms, seeds, a metric, a budget, a margin and what counts as failure, before running.

A recipe states its claim as a `Claim`, with the checks that this module names too;
`understudy.evaluate.claim_verify` puts it to the test.

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

from understudy.core.errors import ConfigError
from understudy.evaluate.check_base import Check, CheckResult, Results
from understudy.evaluate.check_limits import AtLeast, AtMost
from understudy.evaluate.checks import Difference, Predicate, Within

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
    "Within",
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
