"""The methods of continual training: where a step begins, what it learns from, what it may spend.

C is the compute of one step: a fixed number of iterations of a fixed batch. All methods spend C a
step, except the oracle (t C at step t: a new model on everything seen so far), the starred form of
cumulative training (more in the last steps) and learning without forgetting (the last checkpoint's
forward passes). arXiv 2310.16226, table 1; the budgets of the starred form are read off the
figure of compute against quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.data.sampler_replay_plan import Method as Replay

STAR = (1.5, 2.0, 3.0)
"""Budgets of the last three steps of `cumulative-all-star`; 1 before."""
LWF_COMPUTE = 1.2
"""Compute of a step that also asks the last checkpoint, in C (arXiv 2310.16226)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to go through a stream.

    Attributes:
        name: a key of `METHODS`.
        start: `fresh` weights at every step, or those of the `last` step.
        replay: which old data a step also learns from.
        teacher: stay close to the last checkpoint's similarities.
        patch: interpolate with the last step's weights afterwards.
        description: in a sentence.
    """

    name: str
    start: Literal["fresh", "last"] = "last"
    replay: Replay = "none"
    teacher: bool = False
    patch: bool = False
    description: str = ""


_LIST = (
    Method(
        name="oracle",
        start="fresh",
        replay="all",
        description="a new model on all data so far, t times the compute at step t",
    ),
    Method(name="restart", start="fresh", description="a new model on the step's data alone"),
    Method(name="sequential", description="the last model on the step's data alone"),
    Method(name="cumulative-all", replay="all", description="the last model on all data so far"),
    Method(
        name="cumulative-exp",
        replay="exp",
        description="the last model on the step's data and a buffer that halves with age",
    ),
    Method(
        name="cumulative-equal",
        replay="equal",
        description="the last model on the step's data and a buffer of equal shares",
    ),
    Method(
        name="cumulative-all-star",
        replay="all",
        description="cumulative-all with 1.5, 2 and 3 times the compute in the last steps",
    ),
    Method(
        name="patching",
        patch=True,
        description="sequential, then interpolated with the last step's weights",
    ),
    Method(
        name="lwf",
        teacher=True,
        description="sequential, with the last checkpoint's similarities as a second target",
    ),
)
METHODS = {method.name: method for method in _LIST}


def method_of(name: str) -> Method:
    """Return a method.

    Raises:
        ConfigError: there is none of that name; the names are listed.
    """
    check_choice(name, METHODS, "method")
    return METHODS[name]


def budget(name: str, step: int, total: int) -> float:
    """Return the iterations of a step, in those of C.

    Args:
        name: of the method.
        step: from 1.
        total: steps of the stream.
    """
    method = method_of(name)
    if not 1 <= step <= total:
        raise ConfigError(f"budget: step {step} of {total}; steps count from 1.")
    if method.name == "oracle":
        return float(step)
    left = total - step
    if method.name == "cumulative-all-star" and step > 1 and left < len(STAR):
        return STAR[len(STAR) - 1 - left]
    return 1.0


def compute(name: str, step: int, total: int) -> float:
    """Return the compute of a step, in C; the first step has no last checkpoint to ask."""
    extra = LWF_COMPUTE if method_of(name).teacher and step > 1 else 1.0
    return extra * budget(name, step, total)


def total_compute(name: str, total: int) -> float:
    """Return the compute of a whole stream, in C: 28 for the oracle at 7 steps, T(T+1)/2."""
    return sum(compute(name, step, total) for step in range(1, total + 1))


@dataclass(frozen=True, slots=True)
class ComputeRow:
    """What a method spends on a stream.

    Attributes:
        method: its name.
        steps: compute of each step, in C.
        total: their sum.
        saving: the oracle's total over this one.
    """

    method: str
    steps: tuple[float, ...]
    total: float
    saving: float


def compute_table(total: int, methods: Sequence[str] = tuple(METHODS)) -> list[ComputeRow]:
    """Return the accounting of equal compute for a stream of `total` steps."""
    oracle = total_compute("oracle", total)
    rows = []
    for name in methods:
        steps = tuple(compute(name, step, total) for step in range(1, total + 1))
        rows.append(ComputeRow(name, steps, sum(steps), oracle / sum(steps)))
    return rows
