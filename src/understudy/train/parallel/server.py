"""A parameter server with bounded staleness: it holds the weights, workers send gradients.

A worker's clock is the number of gradients that it has sent. Before its next one it reads the
weights, and a worker at clock t may read only if the slowest one is at t - s or later. With s = 0
the gradients of one clock are applied together, as their mean and in the order of the workers:
synchronous SGD, whoever comes first. With s > 0 each is applied when it comes, with the learning
rate divided by the number of workers, so that as many samples move the weights as far.

References:
    Q. Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server,
    NeurIPS 2013.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.train.optim import LR_SCALE, clip_gradients, set_rate

Gradients = Sequence[Tensor | None]
Rate = Callable[[int], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a worker is given.

    Attributes:
        clock: the worker's.
        version: updates that the weights have had.
        weights: copies, in the order of the parameters.
    """

    clock: int
    version: int
    weights: list[Tensor]


class ParameterServer:
    """Weights, their optimiser, and the clock of every worker. Safe to call from many threads.

    Args:
        parameters: what is learned; changed in place.
        optimizer: of these parameters.
        workers: how many; they are numbered from 0.
        staleness: s, steps that workers may be apart; None sets no bound.
        rate: learning rate of a clock; None leaves the optimiser's own.
        clip_norm: largest norm of what is applied at once.
        after: called after every update, such as to keep a scale in bounds.
        clock: of all workers at the start.
        limit: updates in all; then readers are told to stop. None: workers stop by themselves.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        workers: int,
        staleness: int | None,
        *,
        rate: Rate | None = None,
        clip_norm: float | None = None,
        after: Callable[[], object] | None = None,
        clock: int = 0,
        limit: int | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"parameter server: workers: expected at least 1, got {workers}.")
        if staleness is not None and staleness < 0:
            raise ConfigError(f"parameter server: staleness: expected at least 0, got {staleness}.")
        self.parameters, self.optimizer = list(parameters), optimizer
        self.workers, self.staleness = workers, staleness
        self._own_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._rate, self._clip, self._after, self._limit = rate, clip_norm, after, limit
        self.clocks = [clock] * workers
        self.version = 0
        self.largest_gap = 0
        self._read = [False] * workers
        self._kept: dict[int, Gradients] = {}
        self._kept_clock = clock
        self._left: set[int] = set()
        self._failure = ""
        self._moved = threading.Condition()

    # -- what workers call

    def read(self, worker: int) -> Reading | None:
        """Wait until this worker may go on and return the weights; None: all is done.

        Raises:
            UnderstudyError: another worker is gone.
        """
        with self._moved:
            self._check(worker)
            self._moved.wait_for(lambda: self._failure or self._done or self._may_read(worker))
            self._raise()
            if self._done:
                return None
            clock = self.clocks[worker]
            self.largest_gap = max(self.largest_gap, clock - self.slowest)
            self._read[worker] = True
            weights = [p.detach().clone() for p in self.parameters]
            return Reading(clock=clock, version=self.version, weights=weights)

    def push(self, worker: int, gradients: Gradients) -> int:
        """Take a worker's gradients and return its clock.

        Args:
            worker: who sends them.
            gradients: one for each parameter, None for those that had no part in the loss.

        Raises:
            ConfigError: another number of gradients, or nothing was read before.
            UnderstudyError: another worker is gone.
        """
        with self._moved:
            self._check(worker)
            self._raise()
            if len(gradients) != len(self.parameters):
                raise ConfigError(
                    f"parameter server: worker {worker} sent {len(gradients)} gradients, expected "
                    f"{len(self.parameters)}, one for each parameter."
                )
            if not self._read[worker]:
                raise ConfigError(
                    f"parameter server: worker {worker} sent gradients of weights that it has not "
                    "read; call read() before each push()."
                )
            self._read[worker] = False
            clock = self.clocks[worker]
            if self.staleness == 0:
                self._kept[worker], self._kept_clock = gradients, clock
                self._apply_if_whole()
            elif not self._done:  # the last update was somebody else's
                self._apply(gradients, clock, 1 / self.workers)
            self.clocks[worker] = clock + 1
            self._moved.notify_all()
            return clock + 1

    def leave(self, worker: int) -> None:
        """Do not wait for a worker any more: it has done its part."""
        with self._moved:
            self._left.add(worker)
            self._apply_if_whole()
            self._moved.notify_all()

    def fail(self, reason: str) -> None:
        """Let every call of a worker raise `UnderstudyError` from now on."""
        with self._moved:
            self._failure = self._failure or reason
            self._moved.notify_all()

    # -- what they wait for

    @property
    def slowest(self) -> int:
        """The clock of the slowest worker that is still there."""
        there = [c for w, c in enumerate(self.clocks) if w not in self._left]
        return min(there, default=max(self.clocks))

    @property
    def _done(self) -> bool:
        return self._limit is not None and self.version >= self._limit

    def _may_read(self, worker: int) -> bool:
        if self.staleness is None:
            return True
        return self.slowest >= self.clocks[worker] - self.staleness

    def _check(self, worker: int) -> None:
        if not 0 <= worker < self.workers:
            raise ConfigError(
                f"parameter server: there is no worker {worker}; expected 0 to {self.workers - 1}."
            )

    def _raise(self) -> None:
        if self._failure:
            raise UnderstudyError(f"parameter server: {self._failure}")

    # -- updates

    def _apply_if_whole(self) -> None:
        """Apply the mean of a clock's gradients once all workers that are there have sent one."""
        if not self._kept or not self._kept.keys() | self._left >= set(range(self.workers)):
            return
        clock, order = self._kept_clock, [self._kept[worker] for worker in sorted(self._kept)]
        self._kept.clear()
        means: list[Tensor | None] = []
        for parts in zip(*order, strict=True):
            there = [part for part in parts if part is not None]
            total = there[0].clone() if there else None
            for part in there[1:]:
                total += part
            means.append(None if total is None else total / self.workers)
        self._apply(means, clock, 1.0)

    def _apply(self, gradients: Gradients, clock: int, share: float) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        if self._clip is not None:
            clip_gradients(self.parameters, self._clip)
        if self._rate is not None:
            set_rate(self.optimizer, self._rate(clock) * share)
        else:
            for group, rate in zip(self.optimizer.param_groups, self._own_rates, strict=True):
                group["lr"] = rate * share
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._after is not None:
            self._after()
        self.version += 1


def masters(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Return copies of parameters for a server, with what an optimiser looks at."""
    found = {}
    for name, parameter in parameters.items():
        copy = torch.nn.Parameter(parameter.detach().clone())
        if hasattr(parameter, LR_SCALE):
            setattr(copy, LR_SCALE, getattr(parameter, LR_SCALE))
        found[name] = copy
    return found
