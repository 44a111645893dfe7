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

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.core import progress
from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.train import checkpoint
from understudy.train.config import TrainConfig
from understudy.train.distributed import Ranks, join, wrap
from understudy.train.ema import Ema
from understudy.train.guard import SIGTERM_STATUS, StopRequest
from understudy.train.logs import RunLog
from understudy.train.optim import make_optimizer, set_training, trainable
from understudy.train.parallel.steppers import stepper_for
from understudy.train.precision import autocast, scaler
from understudy.train.result import RECORD, RunResult, plain, read_result, write_record
from understudy.train.schedule import learning_rate
from understudy.train.state import RunState, frozen_hash
from understudy.train.stepper import Objective
from understudy.train.weights import save_best, save_final

LoaderFactory = Callable[[int, int], Iterable[Mapping[str, Any]]]
Evaluate = Callable[[nn.Module, int], Mapping[str, float]]
Stop = Callable[[int], bool]


def fit(
    model: nn.Module,
    objective: Objective,
    loader_factory: LoaderFactory,
    config: TrainConfig,
    out: str | Path,
    *,
    evaluate: Evaluate | None = None,
    stop: Stop | None = None,
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
        stop: `stop(step)`, asked between steps; True ends the run there as after its last step: it
            is evaluated, its checkpoint and its weights are written, and it is done. Several ranks
            are asked at steps that are logged or evaluated.
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
    run = _Run(model, objective, loader_factory, config, Path(out), evaluate, stop, context, data)
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
        stop: Stop | None,
        context: Mapping[str, Any] | None,
        data: Mapping[str, Any] | None,
    ) -> None:
        self.config, self.out = config, out
        self.loader_factory, self.evaluate, self.stop = loader_factory, evaluate, stop
        self.context = dict(context or {})
        self.ranks: Ranks = join(config.device, config.strategy)
        model.to(self.ranks.device)
        self.model = model
        module = wrap(model, self.ranks)  # first of all: sharding replaces the parameters
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
                "config": plain(config.identity()),
                "data": plain(data or {}),
                "frozen": frozen_hash(model),
                "world": self.ranks.world,
            },
        )
        self.stepper = stepper_for(self.ranks.strategy)(self.state, module, objective, config, out)
        self.train_metrics: dict[str, float] = {}

    # -- beginning and end

    def begin(self, resume: bool) -> RunResult | None:
        """Write the configuration and restore; return the result if the run is done already."""
        root = self.out / "checkpoints"
        done = read_result(self.out, self.state.facts) if resume else None
        if done is not None:
            return done
        known = checkpoint.newest(root) if resume else None
        if known is not None:
            self.state.load(checkpoint.step_folder(root, known))
        if self.ranks.writes:
            if not resume:
                (self.out / RECORD).unlink(missing_ok=True)
                checkpoint.prune(root, keep=0)
            facts = {"config": to_dict(self.config), "context": self.context, **self.state.facts}
            write_json(self.out / "config.json", plain(facts))
        return None

    def train(self) -> RunResult:
        """Run the remaining steps."""
        config, state = self.config, self.state
        start = state.step
        set_training(self.model)
        log = RunLog(self.out, start, tensorboard=config.tensorboard, active=self.ranks.writes)
        try:
            with (
                StopRequest(config.seconds_limit_s) as request,
                progress.bar("train", config.steps, "steps", start) as bar,
            ):
                batches = self._batches(start)
                while state.step < config.steps and not self._enough():
                    self.stepper.step(batches)
                    facts = self._after(log)
                    bar.advance(1, **facts)
                    if self._interrupted(request) and state.step < config.steps:
                        self._checkpoint()
                        if request.terminated:
                            raise SystemExit(SIGTERM_STATUS)
                        return self._result(finished=False)
            if start < state.step < config.steps:
                self._close(log)
            return self._finish()
        finally:
            log.close()
            self.stepper.close()

    def _batches(self, start: int) -> Iterator[Mapping[str, Any]]:
        per_step = self.config.accumulate
        count = (self.config.steps - start) * per_step
        return iter(self.loader_factory(start * per_step, count) if count else ())

    # Ranks must agree, or some would wait for the others; asking costs a collective.

    def _interrupted(self, request: StopRequest) -> bool:
        if self.ranks.world > 1 and not self._due(self.config.log_every):
            return False
        return self.ranks.any(request.wanted)

    def _enough(self) -> bool:
        if self.stop is None:
            return False
        meet = self._due(self.config.log_every) or self._due(self.config.eval_every)
        if self.ranks.world > 1 and not meet:
            return False
        return self.ranks.any(self.stop(self.state.step))

    def _finish(self) -> RunResult:
        if self.ranks.writes:
            self.out.mkdir(parents=True, exist_ok=True)
        save_final(self.state, self.out, self.context)
        result = self._result(finished=True)
        if self.ranks.writes:
            facts = {
                "samples_seen": result.steps * self.config.batch_size,
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "trainable": sum(p.numel() for p in self.stepper.parameters),
            }
            write_record(result, self.state.facts, facts, self.context)
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

    # -- between steps

    def _due(self, every: int) -> bool:
        return bool(every) and self.state.step % every == 0

    def _after(self, log: RunLog) -> dict[str, float]:
        """Log, evaluate and checkpoint where it is time; return what the progress bar shows."""
        config = self.config
        last = self.state.step == config.steps
        saves = bool(config.checkpoint_every) and (last or self._due(config.checkpoint_every))
        facts: dict[str, float] = {}
        if last or saves or self._due(config.log_every) or self._due(config.eval_every):
            self.stepper.settle()
        if last or self._due(config.log_every):
            facts |= self._log(log)
        elif saves:
            self.stepper.check_finite()
        if last or self._due(config.eval_every):
            facts |= self._score(log)
        if saves:
            self._checkpoint()
        return facts

    def _close(self, log: RunLog) -> None:
        """Do after a step that became the last one what is only done after the last one."""
        config = self.config
        if not self._due(config.log_every):
            self._log(log)
        if not self._due(config.eval_every):
            self._score(log)
        self._checkpoint()

    def _log(self, log: RunLog) -> dict[str, float]:
        state = self.state
        self.stepper.check_finite()
        means = state.window.read()
        if self.ranks.world > 1 and means:
            values = self.ranks.mean(torch.tensor(list(means.values()), device=self.ranks.device))
            means = dict(zip(means, values.tolist(), strict=True))
        means["lr"] = learning_rate(state.step - 1, self.config)
        log.write(state.step, means)
        self.train_metrics = means
        return {"loss": means["loss"]}

    def _score(self, log: RunLog) -> dict[str, float]:
        if self.evaluate is None:
            return {}
        state = self.state
        with state.ledger.time("evaluate"):
            state.evaluation = self._evaluate()
        log.write(state.step, state.evaluation, "eval/")
        return dict(list(state.evaluation.items())[:1])

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
