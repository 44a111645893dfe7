"""Continual training: a model goes through a stream of time steps (arXiv 2310.16226).

    >>> from understudy.update.continual import run_stream
    >>> config = ContinualConfig(method="cumulative-exp", memory=2.0)
    >>> result = run_stream(store, stream, config, "runs/stream", score)     # doctest: +SKIP

At every step: put the new data and a buffer of old data together, train with a fixed budget from
fresh or from the last weights, score on the data of all steps. Every step has a folder that loads
as a run, and `stream.json` lets `understudy update continue` go on from the last one; a stream that
was killed goes on where it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.files import read_json, write_json
from understudy.data.periods_stream import Stream, TimeStep
from understudy.data.sampler_replay import ReplayMix
from understudy.evaluate.transfer_matrix import TransferMatrix
from understudy.models import io
from understudy.train.checkpoint import same_run
from understudy.update.continual_advance import STEP, advance, step_facts
from understudy.update.continual_config import ContinualConfig
from understudy.update.continual_methods import budget, compute
from understudy.update.continual_start import fresh_model
from understudy.update.continual_state import record_stream

if TYPE_CHECKING:
    from understudy.data.store import Store

Scores = Mapping[str, Mapping[str, float]]
"""Task -> time step -> score."""
Score = Callable[[Any, Mapping[str, np.ndarray]], Scores]
"""`score(model, {time step: rows}) -> {task: {time step: value}}`; the first task decides."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step came to.

    Attributes:
        name: of the period.
        run: folder that holds the model after it.
        iterations: optimiser steps.
        compute: in those of C.
        rows: of the period.
        replayed: old step -> rows that were replayed.
        scores: task -> time step -> score on its evaluation rows.
        weights: hash of the model after it.
        seconds: wall seconds, of this call.
        alpha: weight of the trained model, of method `patching`; None for others.
        alphas: the scores it was chosen by.
    """

    name: str
    run: str
    iterations: int
    compute: float
    rows: int
    replayed: dict[str, int]
    scores: dict[str, dict[str, float]]
    weights: str
    seconds: float
    alpha: float | None = None
    alphas: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """What a stream came to.

    Attributes:
        method: its name.
        steps: one record each.
    """

    method: str
    steps: tuple[StepRecord, ...]

    @property
    def compute(self) -> float:
        """Compute of all steps, in C."""
        return sum(step.compute for step in self.steps)

    def matrix(self, task: str) -> TransferMatrix:
        """Return the transfer matrix of a task."""
        names = [step.name for step in self.steps]
        values = [[step.scores[task].get(name, np.nan) for name in names] for step in self.steps]
        return TransferMatrix.square(values, names, metric=task)


def folder_name(number: int, name: str) -> str:
    """Return the folder of a step: `step-03-2018`."""
    return f"step-{number:02d}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}"


def mix_of(
    config: ContinualConfig, seen: Sequence[TimeStep], kept: Sequence[int] | None = None
) -> ReplayMix:
    """Return what the newest of some steps learns from.

    Args:
        config: the method.
        seen: steps so far, the current one last.
        kept: see `ReplayPlan.counts`.
    """
    steps = {step.name: step.rows for step in seen}
    return ReplayMix(current=seen[-1].rows, replayed=config.plan().rows(steps, kept))


def run_stream(
    store: Store,
    stream: Stream,
    config: ContinualConfig,
    out: str | Path,
    score: Score,
    *,
    start: str | Path | None = None,
) -> StreamResult:
    """Go through a stream with one method.

    Args:
        store: holds the rows.
        stream: the time steps.
        config: the method and the budget of a step.
        out: folder of the steps' folders.
        score: scores a model on rows of time steps.
        start: a finished run whose weights the first step begins with; None for fresh ones.

    Returns:
        a record of every step.

    Raises:
        DataError: a step is empty or smaller than a batch.
        ConfigError: `patching` without held rows, or folders of another stream.
        ModelError: `start` is of another architecture.
    """
    stream.check_steps(config.student.train.batch_size)
    if config.how.patch and not all(len(step.held_rows) for step in stream):
        raise ConfigError(
            "patching: every step needs held rows to choose alpha on; give the store a split "
            "'val', or set held_share."
        )
    walk = _Walk(store, stream, config, Path(out), score, start)
    result = StreamResult(
        method=config.method, steps=tuple(walk.step(t) for t in range(1, len(stream) + 1))
    )
    runs = [(step.run, step.replayed) for step in result.steps]
    base = config.student.train.steps
    record_stream(Path(out), stream, store.path, config.method, runs, base)
    return result


class _Walk:
    """One call of `run_stream`."""

    def __init__(
        self,
        store: Store,
        stream: Stream,
        config: ContinualConfig,
        out: Path,
        score: Score,
        start: str | Path | None,
    ) -> None:
        self.store, self.stream, self.config = store, stream, config
        self.out, self.score, self.start = out, score, start
        self.last: Path | None = Path(start) if start is not None else None
        self.sets = {step.name: step.eval_rows for step in stream}

    def step(self, t: int) -> StepRecord:
        """Do one step, or return what it came to."""
        now, total = self.stream[t - 1], len(self.stream)
        folder = self.out / folder_name(t, now.name)
        mix = mix_of(self.config, self.stream.steps[:t])
        iterations = round(budget(self.config.method, t, total) * self.config.student.train.steps)
        facts = step_facts(self.config, t, now.name, iterations, mix, self._last_run())
        done = folder / STEP
        if done.exists():
            found = read_json(done)
            same_run(found["facts"], facts, folder)
            self.last = folder
            return StepRecord(**found["record"])
        begun = time.perf_counter()
        held = {step.name: step.held_rows for step in self.stream.steps[:t]}
        made = advance(
            self.store,
            self.config,
            now.name,
            mix,
            iterations,
            folder,
            self._last_run(),
            fresh=lambda: fresh_model(self.store, self.config.student, self.stream[0].rows),
            choose=lambda model: first_mean(self.score(model, held)),
        )
        scores = {k: dict(v) for k, v in self.score(made.model, self.sets).items()}
        record = StepRecord(
            name=now.name,
            run=str(folder),
            iterations=iterations,
            compute=compute(self.config.method, t, total),
            rows=len(now.rows),
            replayed=mix.counts,
            scores=scores,
            weights=io.weights_hash(made.model),
            seconds=time.perf_counter() - begun,
            alpha=made.alpha,
            alphas=made.alphas,
        )
        write_json(done, {"record": asdict(record), "facts": facts})
        self.last = folder
        return record

    def _last_run(self) -> Path | None:
        """Return the run that this step begins from; None for fresh weights."""
        return None if self.config.how.start == "fresh" else self.last


def first_mean(scores: Scores) -> float:
    """Return the mean over time steps of the first task's scores."""
    task = next(iter(scores.values()))
    return float(np.mean(list(task.values())))
