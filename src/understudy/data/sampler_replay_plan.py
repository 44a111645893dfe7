"""How much of every old time step is kept for replay: capacity, split equally or by age.

Allocation by water-filling with caps: step j gets min(cap_j, level * w_j), where the level is such
that the capacity is used up or every step is whole. Equal weights share the capacity equally and
pass on what small steps leave; weights 2^-(t-1-j) halve with every step of age (arXiv 2310.16226,
sec. 4 names both; how the slack is shared is this package's choice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng

Method = Literal["none", "all", "exp", "equal"]
Buffer = Literal["streaming", "archive"]
METHODS = ("none", "all", "exp", "equal")
BUFFERS = ("streaming", "archive")


def water_fill(caps: Sequence[int], weights: Sequence[int], capacity: int) -> tuple[int, ...]:
    """Share a capacity out: min(cap, level * weight) each, in whole samples.

    Fractions are dealt out by largest remainder, to the newer step where they are equal, so that
    equal caps never give an older step more.

    Args:
        caps: largest count of each, oldest first.
        weights: at least 1 each.
        capacity: their sum, unless the caps are smaller.

    Returns:
        counts; they sum to min(capacity, sum of caps).
    """
    total = min(int(capacity), sum(caps))
    counts: list[Fraction] = [Fraction(0)] * len(caps)
    free = [i for i in range(len(caps)) if caps[i] > 0]
    left = Fraction(total)
    while free:
        level = left / sum(weights[i] for i in free)
        full = [i for i in free if caps[i] <= level * weights[i]]
        for i in full or free:
            counts[i] = Fraction(caps[i]) if full else level * weights[i]
        if not full:
            break
        left -= sum(caps[i] for i in full)
        free = [i for i in free if i not in full]
    whole = [int(count) for count in counts]
    order = sorted(range(len(caps)), key=lambda i: (counts[i] - whole[i], i), reverse=True)
    for i in order[: total - sum(whole)]:
        whole[i] += 1
    return tuple(whole)


def replay_counts(
    sizes: Sequence[int], method: Method, capacity: int | None = None
) -> tuple[int, ...]:
    """Return how many samples of each old step are replayed.

    Args:
        sizes: samples that each old step can still give, oldest first.
        method: `none`; `all`; `equal` shares; `exp`: half as much with every step of age.
        capacity: samples of the buffer; not used by `none` and `all`.

    Raises:
        ConfigError: an unknown method, no capacity, or one below a sample for each old step.
    """
    check_choice(method, METHODS, "replay method")
    if method == "none":
        return (0,) * len(sizes)
    if method == "all":
        return tuple(int(size) for size in sizes)
    if capacity is None:
        raise ConfigError(f"replay: method '{method}' needs a capacity, in samples.")
    filled = sum(size > 0 for size in sizes)
    if capacity < filled:
        raise ConfigError(
            f"replay: a capacity of {capacity} samples for {filled} old steps is less than one "
            f"sample each; give at least {filled}."
        )
    weights = [1] * len(sizes) if method == "equal" else [2**j for j in range(len(sizes))]
    return water_fill(sizes, weights, int(capacity))


def memory_samples(memory: float, sizes: Sequence[int]) -> int:
    """Return a capacity in samples: `memory` times the mean size of the steps seen so far.

    Args:
        memory: in steps' sizes; arXiv 2310.16226 takes 2 (2D).
        sizes: of the steps up to the current one.
    """
    if not memory > 0:
        raise ConfigError(f"replay memory: expected more than 0 steps' sizes, got {memory}.")
    return round(memory * sum(sizes) / len(sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayPlan:
    """Which old samples are replayed at which step.

    Attributes:
        method: `none`, `all`, `exp` or `equal`.
        memory: capacity for old samples, in mean sizes of the steps seen so far.
        capacity: the same in samples, instead of `memory`.
        buffer: `streaming` keeps a subset, from which samples only ever leave; `archive` draws anew
            from all old samples at every step.
        seed: of which samples are kept.
    """

    method: Method = "equal"
    memory: float = 2.0
    capacity: int | None = None
    buffer: Buffer = "streaming"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.method, METHODS, "replay method")
        check_choice(self.buffer, BUFFERS, "replay buffer")
        memory_samples(self.memory, (1,))
        if self.capacity is not None and self.capacity < 1:
            raise ConfigError(f"replay capacity: expected at least 1 sample, got {self.capacity}.")

    @staticmethod
    def plan(
        t: int, sizes: Sequence[int], method: Method, capacity: int | None = None
    ) -> tuple[int, ...]:
        """Return the counts of the old steps 1 to t - 1 at step `t` (from 1), oldest first.

        Args:
            t: number of the current step, from 1.
            sizes: samples of each step, at least `t` of them.
            method: see `replay_counts`.
            capacity: see `replay_counts`.
        """
        if not 1 <= t <= len(sizes):
            raise ConfigError(f"replay: step {t} of {len(sizes)}; steps count from 1.")
        return replay_counts(sizes[: t - 1], method, capacity)

    def samples(self, sizes: Sequence[int]) -> int | None:
        """Return the capacity at the newest of some steps; None where the method has none."""
        if self.method in ("none", "all"):
            return None
        return self.capacity if self.capacity is not None else memory_samples(self.memory, sizes)

    def counts(self, sizes: Sequence[int], kept: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the counts of the old steps at the newest of `sizes`.

        Args:
            sizes: of the steps seen so far, the current one last.
            kept: samples that the buffer held of each step at the step before (the then current
                one whole); None for a stream that is looked at from its beginning.
        """
        if self.buffer == "archive":
            return replay_counts(sizes[:-1], self.method, self.samples(sizes))
        if kept is None:
            kept = ()
            for t in range(1, len(sizes)):
                kept = (*self.counts(sizes[:t], kept or ()), sizes[t - 1])
        if len(kept) != len(sizes) - 1:
            raise ConfigError(
                f"replay: the buffer knows {len(kept)} steps, the stream has {len(sizes) - 1} old "
                "ones."
            )
        return replay_counts(kept, self.method, self.samples(sizes))

    def rows(
        self,
        steps: Mapping[str, np.ndarray],
        kept: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the row numbers that are replayed at the newest of some steps.

        Args:
            steps: name -> row numbers to learn from, oldest first, the current one last.
            kept: see `counts`.

        Returns:
            name -> row numbers int64, ascending, of every old step.
        """
        names = list(steps)
        counts = self.counts([len(rows) for rows in steps.values()], kept)
        return {
            name: np.sort(self.order(name, steps[name], names[-1])[:count])
            for name, count in zip(names[:-1], counts, strict=True)
        }

    def order(self, name: str, rows: np.ndarray, now: str) -> np.ndarray:
        """Return the order in which a step's rows would leave the buffer, the last one first out.

        A streaming buffer keeps a prefix of one order for good, so what is dropped cannot return.
        """
        drawn = ("archive", now) if self.buffer == "archive" else ("streaming",)
        return np.asarray(rows, np.int64)[
            rng("replay", *drawn, self.seed, name).permutation(len(rows))
        ]

    def describe(self) -> dict[str, Any]:
        """Return what identifies the plan, as plain data."""
        return {
            "method": self.method,
            "memory": self.memory,
            "capacity": self.capacity,
            "buffer": self.buffer,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class ReplayMix:
    """What one step learns from.

    Attributes:
        current: row numbers int64 of the current step.
        replayed: name of an old step -> row numbers int64.
    """

    current: np.ndarray
    replayed: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> np.ndarray:
        """All of them, ascending."""
        parts = [self.current, *self.replayed.values()]
        return np.sort(np.concatenate(parts).astype(np.int64))

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each old step."""
        return {name: len(rows) for name, rows in self.replayed.items()}
