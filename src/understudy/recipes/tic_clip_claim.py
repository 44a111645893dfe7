"""The claim of tic-clip at small scale: warm starts and replay keep up with the oracle.

Six steps of about 250 training pairs of real handwritten digits: two new digits appear at a step
and fade later, pictures turn and lose contrast, captions change their words. Every method may spend
C = 150 iterations of batch 128 a step; the oracle spends t C at step t.
"""

from __future__ import annotations

from typing import Any

from understudy.evaluate.check_base import Check
from understudy.evaluate.check_limits import AtMost
from understudy.evaluate.checks import Difference, Within
from understudy.evaluate.claims import Arm, Claim
from understudy.recipes.tic_clip_arms import prepare, run_arm

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "train": 278,
    "test": 62,
    "size": 16,
    "held_share": 0.1,
    "iterations": 150,
    "batch": 128,
    "lr": 2e-3,
    "warmup": 20,
    "vocab": 520,
    "context": 20,
    "lwf_weight": 1.0,
}

ARMS = {
    "sequential": "the last model on the step's data alone, 6 C in all",
    "cumulative-all": "the last model on all data so far, 6 C",
    "cumulative-exp": "the last model, replay from a buffer of 2 D that halves with age, 6 C",
    "cumulative-equal": "the last model, replay from a buffer of 2 D in equal shares, 6 C",
    "oracle": "a new model on all data so far at every step, 21 C",
    "cumulative-exp-small": "cumulative-exp with a buffer of D",
    "cumulative-equal-small": "cumulative-equal with a buffer of D",
    "restart": "a new model on the step's data alone, 6 C",
    "patching": "sequential, then interpolated with the weights before",
    "lwf": "sequential, kept near the last checkpoint's similarities",
}


def _between(arm: str) -> tuple[Check, ...]:
    return (
        Difference(
            name=f"{arm} is not below sequential",
            metric="backward",
            better=arm,
            worse="sequential",
            margin=0.0,
            ci_above=None,
        ),
        Difference(
            name=f"{arm} is not above cumulative-all",
            metric="backward",
            better="cumulative-all",
            worse=arm,
            margin=0.0,
            ci_above=None,
        ),
    )


def _level(arm: str, required: bool) -> Check:
    return Within(
        name=f"forward transfer: cumulative-all and {arm} differ by less than 3 points",
        metric="forward",
        a="cumulative-all",
        b=arm,
        num_se=0.0,
        floor=0.03,
        required=required,
    )


CHECKS: tuple[Check, ...] = (
    Difference(
        name="replay keeps old data: cumulative-all beats sequential",
        metric="backward",
        better="cumulative-all",
        worse="sequential",
        margin=0.10,
    ),
    Within(
        name="cumulative-all keeps up with the oracle",
        metric="backward",
        a="cumulative-all",
        b="oracle",
        num_se=0.0,
        floor=0.03,
    ),
    AtMost(
        name="at 6 C instead of 21 C",
        metric="compute",
        arm="cumulative-all",
        over="oracle",
        limit=6 / 21,
        reduce="max",
    ),
    *_between("cumulative-exp"),
    *_between("cumulative-equal"),
    _level("sequential", True),
    _level("cumulative-exp", True),
    _level("cumulative-equal", True),
    _level("oracle", False),
    Difference(
        name="a warm start helps: sequential beats restart",
        metric="backward",
        better="sequential",
        worse="restart",
        required=False,
    ),
    Difference(
        name="patching forgets less than sequential",
        metric="backward",
        better="patching",
        worse="sequential",
        required=False,
    ),
    Difference(
        name="lwf forgets less than sequential",
        metric="backward",
        better="lwf",
        worse="sequential",
        required=False,
    ),
    Difference(
        name="a larger buffer is better: exp with 2 D over D",
        metric="backward",
        better="cumulative-exp",
        worse="cumulative-exp-small",
        required=False,
    ),
    Difference(
        name="a larger buffer is better: equal with 2 D over D",
        metric="backward",
        better="cumulative-equal",
        worse="cumulative-equal-small",
        required=False,
    ),
)

CLAIM = Claim(
    recipe="tic-clip",
    statement=(
        "With equal compute a step, going on from the last checkpoint with all old data replayed "
        "scores at least ten points more on old steps than going on with new data alone, and "
        "within three points of an oracle that is trained from scratch on everything at each step, "
        "at 6 C instead of 21 C; bounded buffers of two steps' size lie between, and forward "
        "transfer differs by less than three points."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(41, 42, 43, 44, 45),
    metrics=("backward", "forward", "in_domain", "last", "compute"),
    checks=CHECKS,
    budget=(
        "150 iterations of 128 pairs a step (C) for every method; t C at step t for the oracle; "
        "asking the last checkpoint counts 1.2 C"
    ),
    failure=(
        "sequential is within a standard error of cumulative-all on backward transfer or gains "
        "less than ten points, cumulative-all and the oracle differ by more than three points "
        "(more than five in the oracle's favour refutes the paper's finding at this scale), a "
        "bounded buffer is outside the two, or forward transfer differs by three points"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
