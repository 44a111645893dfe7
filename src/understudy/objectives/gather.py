"""Features of all ranks, with gradients, so that a sharded batch is one batch.

Every rank computes its own rows of the affinity matrix against all columns, in both directions,
and averages over its rows. The mean of the ranks' losses is then the loss of the whole batch, and
the mean of the ranks' gradients (what DistributedDataParallel takes) is its gradient: the backward
of the gather hands every rank the sum of all ranks' gradients of its own features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        ctx.rows = len(x)
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x, group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        grad = grad.contiguous()
        if dist.get_backend(ctx.group) == "nccl":
            own = grad.new_empty(ctx.rows, *grad.shape[1:])
            dist.reduce_scatter_tensor(own, grad, group=ctx.group)
            return own, None
        # Gloo has no reduce-scatter for every type: sum all rows, keep our own.
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        start = dist.get_rank(ctx.group) * ctx.rows
        return grad[start : start + ctx.rows], None


class GatherGroup:
    """The ranks whose batches together form one batch.

    Every rank must bring the same number of rows.

    Args:
        group: a process group; None is the default group if one is initialised, and otherwise
            this process alone.
        distributed: False forces this process alone.
    """

    def __init__(self, group: Any = None, *, distributed: bool = True) -> None:
        active = distributed and dist.is_available() and dist.is_initialized()
        self.group = group if active else None
        self.world = dist.get_world_size(group) if active else 1
        self.rank = dist.get_rank(group) if active else 0

    def gather(self, x: Float[Tensor, "local dim"]) -> Float[Tensor, "all dim"]:
        """Return the rows of all ranks in rank order; gradients flow back to their owners."""
        if self.world == 1:
            return x
        return _AllGather.apply(x, self.group)  # type: ignore[no-any-return]

    def gather_constant(self, x: Float[Tensor, "local dim"]) -> Float[Tensor, "all dim"]:
        """Return the rows of all ranks, without gradient (teachers)."""
        if self.world == 1:
            return x.detach()
        with torch.no_grad():
            return _AllGather.apply(x.detach(), self.group)  # type: ignore[no-any-return]

    def targets(self, local_rows: int, device: torch.device | None = None) -> Tensor:
        """Return the column of the matching partner of each local row, int64 [local]."""
        return torch.arange(local_rows, device=device) + self.rank * local_rows


LOCAL = GatherGroup(distributed=False)
"""This process alone."""
