"""One optimiser step: its micro-batches, the update, and the watch over losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import DataError, UnderstudyError
from understudy.core.seeds import seed_for
from understudy.train.config import TrainConfig
from understudy.train.distributed import sync_whole, to_device
from understudy.train.guard import FiniteGuard, shown
from understudy.train.optim import clip_gradients, keep_below, logit_scales, set_rate, trainable
from understudy.train.precision import autocast
from understudy.train.schedule import learning_rate
from understudy.train.state import RunState

Objective = Callable[[nn.Module, Mapping[str, Any]], Mapping[str, Tensor]]


class Stepper:
    """Takes a run from one step to the next.

    Args:
        state: the run.
        module: what to call for the forward pass; see `distributed.wrap`.
        objective: `objective(model, batch) -> {"loss": scalar, ...}`.
        config: how fast.
        out: the run's folder, where the state is kept when a loss is not finite.
    """

    def __init__(
        self,
        state: RunState,
        module: nn.Module,
        objective: Objective,
        config: TrainConfig,
        out: Path,
    ) -> None:
        self.state, self.ranks, self.module = state, state.ranks, module
        self.objective, self.config, self.out = objective, config, out
        self.call = torch.compile(module) if config.compile else module
        self.parameters = list(trainable(state.model).values())
        self.scales = logit_scales(state.model)
        # Just below: at the limit itself the scale's gradient would be zero for good.
        self.scale_limit = math.log(config.max_logit_scale) - 1e-6
        self.guard = FiniteGuard(self.ranks.device)

    def step(self, batches: Iterator[Mapping[str, Any]]) -> None:
        """Take the next micro-batches and update the weights.

        Raises:
            DataError: there are no more batches.
            UnderstudyError: the loss is known not to be finite.
        """
        config, state, ledger = self.config, self.state, self.state.ledger
        set_rate(state.optimizer, learning_rate(state.step, config))
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
            state.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        with self.module.no_sync() if hold else nullcontext():  # type: ignore[operator]
            with autocast(config.precision, self.ranks.device):
                metrics = self.objective(self.call, batch)
            loss = metrics["loss"]
            if not self.guard.see(state.step, loss, host):
                self._fail(state.step, f"{float(loss.detach())}")
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
        keep_below(self.scales, self.scale_limit)
        if state.ema is not None:
            state.ema.update(state.step)
        self.guard.forget()

    def settle(self) -> None:
        """Make the weights those of the whole run, before somebody looks at them; collective."""

    def close(self) -> None:
        """Let go of what the steps needed."""

    def check_finite(self) -> None:
        """Raise `UnderstudyError` if a loss since the last call was not finite; waits for it."""
        bad = self.guard.bad_step()
        if bad is not None:
            self._fail(bad, "not finite")

    def _fail(self, step: int, loss: str) -> None:
        rows = self.guard.rows(step)
        folder = self.out / f"failed-step-{step:08d}"
        self.state.save(folder, {"rows": rows})
        raise UnderstudyError(
            f"step {step}: the loss is {loss}.{shown(rows)} State and rows are in {folder}; look "
            "at those samples, lower the learning rate or set clip_norm."
        )
