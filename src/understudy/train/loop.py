"""The one loop: `fit` trains any model on any objective and any batches.

An objective is called as `objective(model, batch)` and returns a dictionary of scalar tensors with
the one to minimise under `"loss"`; `understudy.train.steps` binds the pure functions of
`understudy.objectives` to models. It may have a method `check(batch)`, called on each batch in host
memory before it is used, and parameters of its own are not trained: put what learns in the model.

A batch is a dictionary; tensors, and lists of tensors, move to the device. The loop adds `"step"`.

Everything random inside a step is seeded by (seed, step, rank), and batches come by number, so a
run that was killed and resumed ends with the same bytes as one that was not (on the processor).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core import progress
from understudy.core.config import to_dict
from understudy.core.errors import DataError, UnderstudyError
from understudy.core.files import read_json, write_json
from understudy.core.provenance import machine, versions
from understudy.core.seeds import seed_for
from understudy.train import checkpoint
from understudy.train.config import TrainConfig
from understudy.train.distributed import Ranks, join, sync_whole, to_device, wrap
from understudy.train.ema import Ema
from understudy.train.guard import SIGTERM_STATUS, FiniteGuard, StopRequest, shown
from understudy.train.logs import RunLog
from understudy.train.optim import (
    clip_gradients,
    keep_below,
    logit_scales,
    make_optimizer,
    set_rate,
    set_training,
    trainable,
)
from understudy.train.precision import autocast, scaler
from understudy.train.schedule import learning_rate
from understudy.train.state import RunState, frozen_hash
from understudy.train.weights import save_best, save_final

Objective = Callable[[nn.Module, Mapping[str, Any]], Mapping[str, Tensor]]
LoaderFactory = Callable[[int, int], Iterable[Mapping[str, Any]]]
Evaluate = Callable[[nn.Module, int], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        path: the run's folder.
        steps: optimiser steps done.
        metrics: the last evaluation, and the last training means with the prefix `train/`.
        seconds: wall seconds by part: `data` (waiting for batches), `step`, `evaluate`,
            `checkpoint`. On an accelerator `step` is what the host waited.
        finished: False if the time limit ended it; call again to go on.
    """

    path: Path
    steps: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    finished: bool = True


def fit(
    model: nn.Module,
    objective: Objective,
    loader_factory: LoaderFactory,
    config: TrainConfig,
    out: str | Path,
    *,
    evaluate: Evaluate | None = None,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train a model.

    Args:
        model: what learns; frozen parameters stay out of the optimiser, the average and the
            checkpoints, and modules that are frozen as a whole stay in eval mode.
        objective: `objective(model, batch) -> {"loss": scalar, ...}`.
        loader_factory: `loader_factory(start, count)` yields `count` micro-batches from number
            `start` on (`config.accumulate` per step). Every rank yields its own.
        config: how long and how fast.
        out: the run's folder: `config.json`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`,
            `model-ema.safetensors`, `record.json`.
        evaluate: `evaluate(model, step) -> metrics`, called in eval mode without gradients on every
            rank; with averaged weights a second time, as `ema_<name>`.
        resume: go on from the newest checkpoint in `out`, or return at once if the run is done;
            False deletes nothing but starts over.
        context: facts for the run's record.
        data: what a resumed run must find unchanged, such as a sampler's `describe()`; by default
            `loader_factory.describe()` if it has one.

    Returns:
        where everything is, and the metrics.

    Raises:
        ConfigError: the checkpoint in `out` is of another run.
        UnderstudyError: the loss is not finite; the step and rows are named and the state saved.
        SystemExit: status 143, after SIGTERM and a checkpoint.
    """
    run = _Run(model, objective, loader_factory, config, Path(out), evaluate, context, data)
    done = run.begin(resume)
    return done if done is not None else run.train()


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        loader_factory: LoaderFactory,
        config: TrainConfig,
        out: Path,
        evaluate: Evaluate | None,
        context: Mapping[str, Any] | None,
        data: Mapping[str, Any] | None,
    ) -> None:
        self.config, self.out, self.objective = config, out, objective
        self.loader_factory, self.evaluate = loader_factory, evaluate
        self.context = dict(context or {})
        self.ranks: Ranks = join(config.device, config.strategy)
        model.to(self.ranks.device)
        self.model = model
        self.module = wrap(model, self.ranks)
        self.call = torch.compile(self.module) if config.compile else self.module
        if data is None and hasattr(loader_factory, "describe"):
            data = loader_factory.describe()  # type: ignore[attr-defined]
        ema = None
        if config.ema_decay is not None:
            ema = Ema(model, config.ema_decay, config.ema_warmup)
        self.state = RunState(
            model=model,
            optimizer=make_optimizer(trainable(model), config),
            scaler=scaler(config.precision, self.ranks.device),
            ema=ema,
            ranks=self.ranks,
            facts={
                "config": _plain(config.identity()),
                "data": _plain(data or {}),
                "frozen": frozen_hash(model),
                "world": self.ranks.world,
            },
        )
        self.parameters = list(trainable(model).values())
        self.scales = logit_scales(model)
        self.guard = FiniteGuard(self.ranks.device)
        self.train_metrics: dict[str, float] = {}

    # -- beginning and end

    def begin(self, resume: bool) -> RunResult | None:
        """Write the configuration and restore; return the result if the run is done already."""
        root = self.out / "checkpoints"
        record = self.out / "record.json"
        if resume and record.exists() and (self.out / "model.safetensors").exists():
            found = read_json(record)
            checkpoint.same_run(found["run"], self.state.facts, self.out)
            return RunResult(
                path=self.out,
                steps=found["steps"],
                metrics=found["metrics"],
                seconds=found["seconds"],
            )
        known = checkpoint.steps(root)
        if resume and known:
            self.state.load(checkpoint.step_folder(root, known[-1]))
        if self.ranks.writes:
            if not resume:
                record.unlink(missing_ok=True)
                checkpoint.prune(root, keep=0)
            facts = {"config": to_dict(self.config), "context": self.context, **self.state.facts}
            write_json(self.out / "config.json", _plain(facts))
        return None

    def train(self) -> RunResult:
        """Run the remaining steps."""
        config, state = self.config, self.state
        start = state.step
        set_training(self.model)
        log = RunLog(self.out, start, tensorboard=config.tensorboard, active=self.ranks.writes)
        try:
            with (
                StopRequest(config.seconds_limit_s) as stop,
                progress.bar("train", config.steps, "steps", start) as bar,
            ):
                batches = self._batches(start)
                while state.step < config.steps:
                    self._step(batches)
                    facts = self._after(log)
                    bar.advance(1, **facts)
                    if self._stopping(stop) and state.step < config.steps:
                        self._checkpoint()
                        if stop.terminated:
                            raise SystemExit(SIGTERM_STATUS)
                        return self._result(finished=False)
            return self._finish()
        finally:
            log.close()

    def _batches(self, start: int) -> Iterator[Mapping[str, Any]]:
        per_step = self.config.accumulate
        count = (self.config.steps - start) * per_step
        return iter(self.loader_factory(start * per_step, count) if count else ())

    def _stopping(self, stop: StopRequest) -> bool:
        # Ranks must agree, or some would wait for the others; asking costs a collective.
        if self.ranks.world > 1 and self.state.step % self.config.log_every:
            return False
        return self.ranks.any(stop.wanted)

    def _finish(self) -> RunResult:
        if self.ranks.writes:
            self.out.mkdir(parents=True, exist_ok=True)
        save_final(self.state, self.out, self.context)
        result = self._result(finished=True)
        if self.ranks.writes:
            record = {
                "steps": result.steps,
                "samples_seen": self.config.samples_seen,
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "trainable": sum(p.numel() for p in self.parameters),
                "metrics": result.metrics,
                "seconds": result.seconds,
                "run": self.state.facts,
                "context": self.context,
                "versions": versions(),
                "machine": machine(),
            }
            write_json(self.out / "record.json", _plain(record))
        self.ranks.barrier()
        return result

    def _result(self, finished: bool) -> RunResult:
        train = {f"train/{k}": v for k, v in self.train_metrics.items()}
        return RunResult(
            path=self.out,
            steps=self.state.step,
            metrics={**self.state.evaluation, **train},
            seconds={k: round(v, 3) for k, v in self.state.ledger.seconds.items()},
            finished=finished,
        )

    # -- one step

    def _step(self, batches: Iterator[Mapping[str, Any]]) -> None:
        config, state, ledger = self.config, self.state, self.state.ledger
        rate = learning_rate(state.step, config)
        set_rate(state.optimizer, rate)
        torch.manual_seed(seed_for("step", config.seed, state.step, self.ranks.rank))
        for micro in range(config.accumulate):
            with ledger.time("data"):
                batch = next(batches, None)
            if batch is None:
                raise DataError(
                    f"step {state.step}: the loader ended early; it must yield "
                    f"{config.accumulate} batches for each of {config.steps} steps."
                )
            with ledger.time("step"):
                self._micro(batch, last=micro == config.accumulate - 1)
        with ledger.time("step"):
            self._update()
        state.step += 1

    def _micro(self, batch: Mapping[str, Any], last: bool) -> None:
        config, state = self.config, self.state
        if hasattr(self.objective, "check"):
            self.objective.check(batch)  # type: ignore[attr-defined]
        host, batch = batch, to_device({**batch, "step": state.step}, self.ranks.device)
        hold = self.ranks.strategy == "ddp" and not last
        if self.ranks.strategy == "fsdp":
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        with self.module.no_sync() if hold else nullcontext():  # type: ignore[operator]
            with autocast(config.precision, self.ranks.device):
                metrics = self.objective(self.call, batch)
            loss = metrics["loss"]
            if not self.guard.see(state.step, loss, host):
                self._fail(float(loss.detach()))
            state.scaler.scale(loss / config.accumulate).backward()
        state.window.add(metrics)

    def _update(self) -> None:
        config, state = self.config, self.state
        sync_whole(self.parameters, self.ranks)
        if config.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            state.window.add({"grad_norm": clip_gradients(self.parameters, config.clip_norm)})
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        keep_below(self.scales, math.log(config.max_logit_scale) - 1e-6)
        if state.ema is not None:
            state.ema.update(state.step)
        self.guard.forget()

    # -- between steps

    def _after(self, log: RunLog) -> dict[str, float]:
        """Log, evaluate and checkpoint where it is time."""
        config, state = self.config, self.state
        last = state.step == config.steps
        saves = bool(config.checkpoint_every) and (
            state.step % config.checkpoint_every == 0 or last
        )
        facts: dict[str, float] = {}
        if state.step % config.log_every == 0 or last:
            self._check_finite()
            means = state.window.read()
            if self.ranks.world > 1 and means:
                values = self.ranks.mean(
                    torch.tensor(list(means.values()), device=self.ranks.device)
                )
                means = dict(zip(means, values.tolist(), strict=True))
            means["lr"] = learning_rate(state.step - 1, config)
            log.write(state.step, means)
            self.train_metrics = means
            facts = {"loss": means["loss"]}
        elif saves:
            self._check_finite()
        evaluates = bool(config.eval_every) and state.step % config.eval_every == 0
        if self.evaluate is not None and (evaluates or last):
            with state.ledger.time("evaluate"):
                state.evaluation = self._evaluate()
            log.write(state.step, state.evaluation, "eval/")
            facts |= {k: v for k, v in list(state.evaluation.items())[:1]}
        if saves:
            self._checkpoint()
        return facts

    def _evaluate(self) -> dict[str, float]:
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad(), autocast(self.config.precision, self.ranks.device):
            found = {k: float(v) for k, v in self.evaluate(self.model, self.state.step).items()}
            if self.state.ema is not None:
                with self.state.ema.swapped():
                    averaged = self.evaluate(self.model, self.state.step)
                    found |= {f"ema_{k}": float(v) for k, v in averaged.items()}
        save_best(self.state, self.out, self.config.best, found, self.context)
        set_training(self.model)
        return found

    def _checkpoint(self) -> None:
        root = self.out / "checkpoints"
        with self.state.ledger.time("checkpoint"):
            self.state.save(checkpoint.step_folder(root, self.state.step))
            if self.ranks.writes:
                checkpoint.prune(root, self.config.keep_checkpoints)

    def _check_finite(self) -> None:
        bad = self.guard.bad_step()
        if bad is not None:
            self._fail(None, bad)

    def _fail(self, value: float | None, step: int | None = None) -> None:
        step = self.state.step if step is None else step
        rows = self.guard.rows(step)
        folder = self.out / f"failed-step-{step:08d}"
        self.state.save(folder, {"rows": rows})
        what = "not finite" if value is None else f"{value}"
        raise UnderstudyError(
            f"step {step}: the loss is {what}.{shown(rows)} State and rows are in {folder}; look "
            "at those samples, lower the learning rate or set clip_norm."
        )


def _plain(data: Any) -> Any:
    """Return what JSON gives back: tuples become lists, keys strings."""
    return json.loads(json.dumps(to_dict(data), default=str))
