"""The claims of the hierarchical solver: flat iterations, robustness to contrast, exact labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.evaluate.claims import (
    Arm,
    AtLeast,
    AtMost,
    Check,
    Claim,
    Context,
    Predicate,
    Results,
)
from understudy.recipes.hierarchical_solver_arms import (
    ARMS,
    CONTRASTS,
    SIDES,
    run_grids,
    run_labels,
    run_media,
)

METRIC = "iterations_65k"
SETTINGS: dict[str, Any] = {
    "eps": 0.1,
    "leaf": 32,
    "sides": SIDES,
    "repeats": 3,
    "media_side": 128,
    "neighbours": 10,
    "given": 5,
    "spread": 0.99,
}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Run one arm; every arm reports `iterations_65k`, 0 where there is none."""
    if arm == "labels":
        return {METRIC: 0.0, **run_labels(seed, context.settings)}
    if arm.startswith("media"):
        return {METRIC: 0.0, **run_media(arm, seed, context.settings)}
    return run_grids(arm, seed, context.settings)


def growth(results: Results, arm: str) -> np.ndarray:
    """Return iterations at 65k over those at 4k, by seed."""
    return np.asarray(results[arm][METRIC]) / np.asarray(results[arm]["iterations_4k"])


def near_growth(results: Results) -> tuple[bool, str]:
    """Judge how the near/far driver's iterations grow."""
    kept, bare = growth(results, "hsolve-ones").mean(), growth(results, "hsolve").mean()
    return bool(kept <= 1.8 and bare >= 2.2), f"preserved x{kept:.2f}, not x{bare:.2f}"


def near_exponents(results: Results) -> tuple[bool, str]:
    """Judge the ratio of growth exponents."""
    ratio = np.mean(results["hsolve-ones"]["exponent"]) / np.mean(results["hsolve"]["exponent"])
    return bool(ratio < 0.7), f"ratio of exponents {ratio:.2f}"


def nested_growth(results: Results) -> tuple[bool, str]:
    """Judge how the nested-dissection driver's iterations grow."""
    arm = results["spand-ones"]
    more = float(np.max(np.asarray(arm[METRIC]) - np.asarray(arm["iterations_4k"])))
    bare = growth(results, "spand").min()
    return bool(more <= 3 and bare >= 3), f"preserved +{more:g}, not x{bare:.2f}"


def half_of_multigrid(results: Results) -> tuple[bool, str]:
    """Judge iterations against smoothed aggregation at contrasts of 1e4 and above."""
    worst = 0.0
    for name in CONTRASTS[1:]:
        key = f"iterations_{name}"
        ratio = np.asarray(results["media-ones"][key]) / np.asarray(results["media-sa"][key])
        worst = max(worst, float(ratio.max()))
    return worst < 0.5, f"largest ratio {worst:.2f}"


def few_at_any_contrast(results: Results) -> tuple[bool, str]:
    """Judge the largest number of iterations with ones preserved."""
    arm = results["media-ones"]
    most = max(float(np.max(arm[f"iterations_{name}"])) for name in CONTRASTS)
    return most <= 15, f"at most {most:g}"


def grows_with_contrast(results: Results) -> tuple[bool, str]:
    """Judge whether iterations grow with contrast where nothing is preserved."""
    means = [float(np.mean(results["media"][f"iterations_{name}"])) for name in CONTRASTS]
    text = ", ".join(f"{mean:.1f}" for mean in means)
    return means[0] < means[1] < means[2], f"means {text}"


CHECKS: tuple[Check, ...] = (
    AtMost(
        name="A: near/far, fewer iterations at 65k",
        metric=METRIC, arm="hsolve-ones", over="hsolve", limit=0.6, reduce="max",
    ),
    Predicate(
        name="A: near/far, flat against growing",
        statement="iterations grow at most 1.8 times from 4k to 65k, without ones at least 2.2",
        fn=near_growth,
        reads=("hsolve-ones", "hsolve"),
    ),
    Predicate(
        name="A: near/far, growth exponents",
        statement="the growth exponent with ones is below 0.7 of that without",
        fn=near_exponents,
        reads=("hsolve-ones", "hsolve"),
    ),
    AtMost(
        name="A: near/far, memory",
        metric="memory_65k", arm="hsolve-ones", over="hsolve", limit=1.3, reduce="max",
    ),
    AtMost(name="A: near/far, no pivot is lost", metric="rungs", arm="hsolve-ones", limit=0.0,
           reduce="max"),
    AtMost(name="A: near/far, linear setup", metric="setup_ratio", arm="hsolve-ones", limit=5.0,
           reduce="median"),
    Predicate(
        name="A: nested dissection, flat against growing",
        statement="at most 3 more iterations from 4k to 65k, without ones at least 3 times as many",
        fn=nested_growth,
        reads=("spand-ones", "spand"),
    ),
    AtMost(
        name="A: nested dissection, memory",
        metric="memory_65k", arm="spand-ones", over="spand", limit=1.3, reduce="max",
    ),
    AtMost(name="A: nested dissection, linear setup", metric="setup_ratio", arm="spand-ones",
           limit=5.0, reduce="median"),
    Predicate(
        name="B: few iterations at any contrast",
        statement="at most 15 iterations for contrasts of 1e2 to 1e6; no Cholesky fails",
        fn=few_at_any_contrast,
        reads=("media-ones",),
    ),
    Predicate(
        name="B: half of smoothed aggregation",
        statement="below half of smoothed aggregation's iterations at 1e4 and 1e6",
        fn=half_of_multigrid,
        reads=("media-ones", "media-sa"),
    ),
    Predicate(
        name="B: nothing preserved grows with contrast",
        statement="without ones the mean iterations grow from 1e2 to 1e4 to 1e6",
        fn=grows_with_contrast,
        reads=("media",),
    ),
    AtLeast(name="C: labels as by a dense solve", metric="same_label", arm="labels", limit=1.0,
            reduce="min"),
    AtMost(name="C: harmonic functions as by a dense solve", metric="harmonic_error",
           arm="labels", limit=1e-8, reduce="max"),
)  # fmt: skip

CLAIM = Claim(
    recipe="hierarchical-solver",
    statement=(
        "At fixed eps, preserving constants makes iterations nearly independent of the size, and "
        "of the contrast of the medium, at no more than 30 % extra memory and linear cost; labels "
        "spread on a graph of digits are those of a dense solve."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(301, 302, 303, 304, 305),
    metrics=(METRIC,),
    checks=CHECKS,
    budget=(
        "eps 0.1, leaves of 32, trees by coordinates, conjugate gradients to a true residual of "
        "1e-10: Poisson grids of 64, 128 and 256 squared, media of 128 squared with a random "
        "field each seed, 1,797 digits with 10 neighbours and 5 labels a class"
    ),
    failure=(
        "iterations with ones preserved grow more than 1.8 times (near/far) or by more than 3 "
        "(nested dissection) from 4k to 65k, their growth exponent reaches 0.7 of that without, a "
        "pivot is lost on Poisson or by nested dissection, or one label differs from a dense solve"
    ),
    run_arm=run_arm,
    scales={"laptop": SETTINGS},
)
