"""Local SGD: every worker steps by itself, and every H steps all take the mean of what they hold.

Weights, running statistics, the optimiser's state and the averaged weights are all averaged, so
that workers are equal again at those steps: with H = 1 and SGD (with or without momentum) this is
synchronous SGD, and a checkpoint of one worker is one of all.

References:
    S. U. Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019, arXiv 1805.09767.
    H. Yu, R. Jin and S. Yang, On the Linear Speedup Analysis of Communication Efficient Momentum
    SGD for Distributed Non-Convex Optimization, ICML 2019, arXiv 1905.03817: momentum is averaged
    with the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from understudy.train.distributed import Ranks
from understudy.train.optim import state_tensors, trainable
from understudy.train.state import RunState, learned
from understudy.train.stepper import Stepper


@torch.no_grad()
def average(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    """Replace floating-point tensors by their mean over the ranks, in place; collective.

    One all-reduce for each kind of number, whatever the number of tensors.

    Args:
        tensors: the same shapes in the same order on every rank; others than floating-point ones
            are passed over.
        ranks: who takes part.
    """
    if ranks.world == 1:
        return
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    for (_, home), group in alike.items():
        # Scalars of an optimiser may stay in host memory, where NCCL cannot take them.
        flat = torch.cat([tensor.reshape(-1) for tensor in group]).to(ranks.device)
        dist.all_reduce(flat)
        flat = (flat / ranks.world).to(home)
        for tensor, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def of_run(state: RunState) -> list[Tensor]:
    """Return what a run changes while it trains, in an order that all ranks share."""
    found: list[Tensor] = list(learned(state.model).values())
    optimizer = state_tensors(state.optimizer, trainable(state.model))
    found += [optimizer[name] for name in sorted(optimizer)]
    if state.ema is not None:
        found += [state.ema.tensors[name] for name in sorted(state.ema.tensors)]
    return found


class LocalStepper(Stepper):
    """Takes steps alone and averages after every `config.sync_every`-th and after the last.

    `TrainConfig` sees to it that logs, evaluations and checkpoints fall on such steps.
    """

    _begun = False

    def step(self, batches: Iterator[Mapping[str, Any]]) -> None:
        """Take a step; see `Stepper.step`."""
        if not self._begun:
            share_first(self.state)
            self._begun = True
        super().step(batches)
        done = self.state.step
        if done % self.config.sync_every == 0 or done == self.config.steps:
            with self.state.ledger.time("step"):
                average(of_run(self.state), self.ranks)


@torch.no_grad()
def share_first(state: RunState) -> None:
    """Give every rank the weights and buffers of rank 0, as DDP does when it begins."""
    if state.ranks.world > 1:
        for tensor in learned(state.model).values():
            dist.broadcast(tensor.detach(), src=0)
