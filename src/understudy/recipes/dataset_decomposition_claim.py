"""The claim of dataset decomposition at small scale: Python sources and docstrings, a file each.

Documents are cut on their own into powers of two (32 to 1,024 tokens) and drawn by bucket with as
many tokens in every step, or glued together and cut. Held-out documents are read one by one with
their full context. Time is the processor's, of training alone, on one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.evaluate.claims import (
    Arm,
    AtMost,
    Check,
    Claim,
    Difference,
    Predicate,
    Results,
)
from understudy.recipes.dataset_decomposition_arms import ARMS, POINTS, prepare, run_arm

LOSS = "held_out_nll"
SETTINGS: dict[str, Any] = {
    "packages": 0,
    "vocab_size": 4_096,
    "min_log2": 5,
    "max_log2": 10,
    "model": "openlm-nano",
    "precision": "bf16",
    "budget": 3_000_000,
    "tokens_per_step": 16_384,
    "lr": 3e-3,
    "watched": 120,
}
"""The decoder's RoPE base is 100,000, as published."""


def _seconds(results: Results, arm: str) -> np.ndarray:
    return np.asarray(results[arm]["seconds"], np.float64)


def saves_time(results: Results) -> tuple[bool, str]:
    """Compare the natural mixture's time with chunks of the longest and of the mean length."""
    long = np.median(_seconds(results, "natural") / _seconds(results, "chunks"))
    short = np.median(_seconds(results, "natural") / _seconds(results, "short"))
    text = f"{long:.3f} of the time of chunks, {short:.3f} of that of chunks of the mean length"
    return bool(long <= 0.9 and abs(short - 1) <= 0.1), text


def sooner(results: Results) -> tuple[bool, str]:
    """Say after what share of its time the other reaches the final watched loss of chunks."""
    shares = []
    last = POINTS - 1
    for seed in range(len(_seconds(results, "chunks"))):
        goal = results["chunks"][f"watched@{last}"][seed]
        whole = results["chunks"][f"seconds@{last}"][seed]
        found = [
            (results["grow-p2"][f"seconds@{k}"][seed], results["grow-p2"][f"watched@{k}"][seed])
            for k in range(POINTS)
        ]
        shares.append(next((s for s, loss in found if loss <= goal), np.inf) / whole)
    text = ", ".join(f"{share:.2f}" for share in shares)
    return bool(np.mean(shares) <= 0.8), f"share of its time, by seed: {text}"


def calmer(results: Results) -> tuple[bool, str]:
    """Compare spikes of the training loss at three times the learning rate."""
    grow, uniform = (np.asarray(results[a]["spikes"]) for a in ("grow-p2-hot", "uniform-hot"))
    text = f"{grow.mean():.1f} spikes short to long, {uniform.mean():.1f} with equal odds"
    return bool(grow.mean() <= uniform.mean()), text


CHECKS: tuple[Check, ...] = (
    Difference(
        name="buckets against chunks, equal tokens",
        metric=LOSS,
        better="grow-p2",
        worse="chunks",
        margin=0.01,
        lower_is_better=True,
    ),
    Difference(
        name="buckets against masked chunks",
        metric=LOSS,
        better="grow-p2",
        worse="chunks-mask",
        lower_is_better=True,
        required=False,
    ),
    Predicate(
        name="a step costs less",
        statement="natural mixture: at most 0.9 of the time of chunks, within 10 % of short ones",
        fn=saves_time,
        reads=("natural", "chunks", "short"),
    ),
    Predicate(
        name="the loss of chunks is reached sooner",
        statement="short to long reaches the chunks' final loss in at most 80 % of their time",
        fn=sooner,
        reads=("grow-p2", "chunks"),
    ),
    Difference(
        name="short to long is no worse than equal odds",
        metric=LOSS,
        better="grow-p2",
        worse="uniform",
        margin=-0.02,
        ci_above=None,
        lower_is_better=True,
    ),
    Predicate(
        name="short to long has no more spikes",
        statement="at three times the learning rate and without clipping",
        fn=calmer,
        reads=("grow-p2-hot", "uniform-hot"),
        required=False,
    ),
    AtMost(
        name="tokens of a step are equal",
        metric="steps",
        arm="grow-p2",
        limit=float(SETTINGS["budget"] // SETTINGS["tokens_per_step"]),
        reduce="median",
    ),
)

CLAIM = Claim(
    recipe="dataset-decomposition",
    statement=(
        "At equal tokens a model trained on documents cut into powers of two, short to long in "
        "cycles, reads held-out documents at least 0.01 nat a token better than one trained on "
        "glued chunks of the longest length; a step of the mixture costs at most 0.9 of a step of "
        "chunks, and the chunks' final loss is reached in at most 80 % of their time."
    ),
    arms=tuple(Arm(name=name, description=text) for name, (_, text) in ARMS.items()),
    seeds=(81, 82, 83),
    metrics=(LOSS, "seconds", "spikes"),
    checks=CHECKS,
    budget=(
        "183 steps of 16,384 tokens for every arm, the same model of 1.9 M parameters, cosine "
        "schedule; times are the processor's, one thread"
    ),
    failure=("the mean over seeds of buckets - chunks is above -0.01, or no time is saved"),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
