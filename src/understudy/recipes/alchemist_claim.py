"""The claims of alchemist: kills cost little and change nothing, two are faster, engines agree.

The margins are those that were set before anything ran.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.evaluate.claims import (
    Arm,
    AtLeast,
    AtMost,
    Check,
    Claim,
    Predicate,
    Results,
)
from understudy.recipes.alchemist_arms import ARMS, MAIN, run_arm, setup
from understudy.train.parallel.step_model import StepModel

SETTINGS: dict[str, Any] = {
    "held_out": 0.25,
    "timeout_s": 1800.0,
    "restarts": 200,
    "kill_every_s": 20.0,
    "kill_steps": 8000,
    "kill_batch": 128,
    "kill_width": 16,
    "mode_steps": 300,
    "mode_batch": 128,
    "mode_width": 64,
    "half_steps": 60,
    "slow_steps": 240,
    "slower": 3.0,
    "lr": 0.05,
    "momentum": 0.9,
    "keep": 5,
    "target": 0.97,
}
LEAST_GOODPUT, LEAST_KILLS = 0.8, 3
MOST_TIME, POINTS = 0.65, 0.005
LEAST_EFFICIENCY, LEAST_RATIO = 0.75, 10.0
ENGINES = ("local", "ray", "slurm")


def _same(results: Results, arms: tuple[str, ...], prefix: str) -> np.ndarray:
    """Say by seed whether the hashes under a prefix are equal in all arms."""
    first = results[arms[0]]
    names = [name for name in first if name.startswith(f"{prefix}_")]
    equal = [np.asarray(first[n]) == np.asarray(results[a][n]) for n in names for a in arms[1:]]
    return np.logical_and.reduce(equal)


def _in_seeds(held: np.ndarray, what: str) -> tuple[bool, str]:
    return bool(held.all()), f"{what} in {int(held.sum())} of {len(held)} seeds"


def same_weights(results: Results) -> tuple[bool, str]:
    """Judge whether killed and unbroken training leave the same file."""
    return _in_seeds(_same(results, ("unbroken", "killed"), "weights"), "the same bytes")


def same_order(results: Results) -> tuple[bool, str]:
    """Judge the order of data that the final weights saw."""
    killed = results["killed"]
    held = _same(results, ("unbroken", "killed"), "rows")
    for name, value in (("trained_twice", 0), ("left_out", 0), ("in_order", 1)):
        held = held & (np.asarray(killed[name]) == value)
    return _in_seeds(held, "every step once, in order, with the same rows")


def little_lost(results: Results) -> tuple[bool, str]:
    """Judge what a kill costs against the pause between checkpoints and a restart."""
    killed = {k: np.asarray(v) for k, v in results["killed"].items()}
    allowed = killed["interval_s"] + killed["restart_s"]
    shown = ", ".join(
        f"{lost:.2f} of {most:.2f} s"
        for lost, most in zip(killed["lost_per_kill_s"], allowed, strict=True)
    )
    return bool((killed["lost_per_kill_s"] < allowed).all()), f"by seed: {shown}"


def same_accuracy(results: Results) -> tuple[bool, str]:
    """Judge the difference of mean accuracies."""
    means = [float(np.mean(results[arm]["accuracy"])) for arm in ("one", "two")]
    return abs(means[1] - means[0]) <= POINTS, f"one {means[0]:.4f}, two {means[1]:.4f}"


def more_samples(results: Results) -> tuple[bool, str]:
    """Judge the samples that the target took without waiting and with it."""
    waits, never = (
        np.asarray(results[arm]["samples_to_target"]) for arm in ("sync-slow", "async-slow")
    )
    if not np.isfinite([*waits, *never]).all():
        return False, "the target was not reached in every run"
    return bool(never.mean() > waits.mean()), f"async {never.mean():,.0f}, sync {waits.mean():,.0f}"


def efficient(results: Results) -> tuple[bool, str]:
    """Judge E(2) of a model that computes more than ten times as long as it communicates."""
    half, two = results["half"], results["two"]
    ratio = np.asarray(half["step_s"]) / np.asarray(two["communicate_s"])
    found = np.asarray(two["step_samples_per_s"]) / (2 * np.asarray(half["step_samples_per_s"]))
    text = f"E(2) {found.mean():.3f}, computing over communicating {ratio.min():.0f} at least"
    return bool(ratio.min() > LEAST_RATIO and found.mean() >= LEAST_EFFICIENCY), text


def predicted(results: Results) -> tuple[bool, str]:
    """Judge T(2) of the step model, with the link as it was measured, against the median step."""
    half, two = results["half"], results["two"]
    errors = []
    for i, measured in enumerate(np.asarray(two["step_s"])):
        model = StepModel(
            compute_s=float(half["step_s"][i]),
            bytes=float(two["bytes"][i]),
            bandwidth=float(two["bandwidth"][i]),
            latency_s=float(two["latency_s"][i]),
        )
        errors.append(model.seconds(2) / float(measured) - 1)
    shown = ", ".join(f"{error:+.0%}" for error in errors)
    return max(abs(e) for e in errors) <= 0.2, f"predicted against measured: {shown}"


def ran_on_all(results: Results) -> tuple[bool, str]:
    """Say on which engines the spec files ran."""
    missing = [name for name in ENGINES if not np.asarray(results[name]["ran"]).all()]
    if missing:
        return False, f"not run on {', '.join(missing)}: none answered; why.txt of the arm says why"
    return True, f"run on {', '.join(ENGINES)}"


def same_states(results: Results) -> tuple[bool, str]:
    """Judge the sequences of states."""
    return _on_all(results, "states")


def same_artefacts(results: Results) -> tuple[bool, str]:
    """Judge the hashes of what was left."""
    return _on_all(results, "artefacts")


def same_exits(results: Results) -> tuple[bool, str]:
    """Judge final states and exit codes."""
    return _on_all(results, "exits")


def _on_all(results: Results, part: str) -> tuple[bool, str]:
    ran, detail = ran_on_all(results)
    there = tuple(name for name in ENGINES if np.asarray(results[name]["ran"]).all())
    if len(there) < 2:
        return False, detail
    held, text = _in_seeds(_same(results, there, part), f"the same on {', '.join(there)}")
    return held and ran, text if ran else f"{text}; {detail}"


CHECKS: tuple[Check, ...] = (
    Predicate(
        name="A: the same weights",
        statement="the weights of killed and unbroken training are equal bit for bit in every seed",
        fn=same_weights,
        reads=("unbroken", "killed"),
    ),
    Predicate(
        name="A: no step twice",
        statement="the final weights saw every step once, in order, with the unbroken run's rows",
        fn=same_order,
        reads=("unbroken", "killed"),
    ),
    AtLeast(name="A: workers were killed", metric="kills", arm="killed", limit=LEAST_KILLS,
            reduce="min"),
    AtLeast(name="A: goodput over Young's prediction", metric="goodput_over_young", arm="killed",
            limit=LEAST_GOODPUT, reduce="min"),
    Predicate(
        name="A: a kill costs less than a pause and a restart",
        statement="time lost per kill < pause between checkpoints + time to the first new step, in "
        "every seed",
        fn=little_lost,
        reads=("killed",),
    ),
    AtMost(name="B: two workers are faster", metric="seconds_to_target", arm="two", over="one",
           limit=MOST_TIME),
    Predicate(
        name="B: equally good",
        statement=f"mean accuracies of one and two workers differ by at most {POINTS:g}",
        fn=same_accuracy,
        reads=("one", "two"),
    ),
    AtLeast(name="B: not waiting for a straggler is faster", metric="samples_per_s",
            arm="async-slow", over="sync-slow", limit=1.2),
    Predicate(
        name="B: and needs more samples",
        statement="mean samples to the target: async-slow > sync-slow",
        fn=more_samples,
        reads=("sync-slow", "async-slow"),
    ),
    Predicate(
        name="B: efficiency",
        statement=f"mean E(2) >= {LEAST_EFFICIENCY:g}, where a gradient takes more than "
        f"{LEAST_RATIO:g} times as long as its all-reduce",
        fn=efficient,
        reads=("half", "two"),
    ),
    Predicate(
        name="B: the step model",
        statement="T(2) from one worker's step and the measured link is within 20 % of the step",
        fn=predicted,
        reads=("half", "two"),
        required=False,
    ),
    Predicate(name="C: all engines", statement="the spec files ran on local, Ray and Slurm",
              fn=ran_on_all, reads=ENGINES),
    Predicate(name="C: the same states", statement="equal sequences of states", fn=same_states,
              reads=ENGINES),
    Predicate(name="C: the same artefacts", statement="equal hashes of all outputs",
              fn=same_artefacts, reads=ENGINES),
    Predicate(name="C: the same exits", statement="equal final states and exit codes",
              fn=same_exits, reads=ENGINES),
)  # fmt: skip

CLAIM = Claim(
    recipe="alchemist",
    statement=(
        "A training script with four added lines survives a killed worker every 20 s with the "
        "same weights, bit for bit, and at least 0.8 of the goodput that Young's rule predicts; "
        "two workers need at most 0.65 of one worker's time to 97 % accuracy; not waiting for a "
        "slow worker gives more samples a second and needs more of them; a spec file has the same "
        "states, outputs and exit codes on a laptop, on Ray and on Slurm."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(401, 402, 403),
    metrics=(MAIN, "goodput_over_young", "seconds_to_target"),
    checks=CHECKS,
    budget=(
        "A: 8,000 steps of 128 digits, a kill every 15 to 25 s; B: 300 steps of 128 digits (240 "
        "with a straggler), SGD 0.05 with momentum 0.9, a quarter of the 1,797 digits held out; "
        "two workers of one thread each, so nothing else may run; C: five spec files"
    ),
    failure=(
        "weights differ, a step is trained twice in the order that the weights saw, goodput is "
        "below 0.8 of Young's prediction; two workers take more than 0.65 of the time, differ by "
        "more than 0.5 points or have E(2) below 0.75; the parameter server is not faster with a "
        "straggler, or needs no more samples; one engine differs or could not be run"
    ),
    run_arm=run_arm,
    setup=setup,
    scales={"laptop": SETTINGS},
)
