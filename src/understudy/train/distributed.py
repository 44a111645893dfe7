"""One process or many: what torchrun says, wrapping, gathering sharded tensors, agreeing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from understudy.core.errors import ConfigError

SHARD_PARAMETERS = 1_000_000
"""Blocks of at least this many parameters are sharded on their own by the `fsdp` strategy."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where this process stands.

    Attributes:
        rank: number of this process, from 0; rank 0 writes files.
        world: number of processes.
        device: where this process computes.
        strategy: `"single"`, `"ddp"`, `"fsdp"`, `"local_sgd"` or `"async_ps"`.
    """

    rank: int
    world: int
    device: torch.device
    strategy: str

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over ranks."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def any(self, flag: bool) -> bool:
        """Say whether any rank says so."""
        if self.world == 1:
            return flag
        told = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device '{name}': torch finds no CUDA device; use 'cpu' or 'auto'.")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def join(device: str = "auto", strategy: str = "auto") -> Ranks:
    """Find this process's place from torchrun's variables, and join the others.

    Initialises the default process group (NCCL on CUDA, Gloo otherwise) unless it is there.

    Args:
        device: `"auto"`, or a torch device.
        strategy: `"auto"` is DDP if there are several processes.

    Raises:
        ConfigError: several ranks' strategy without torchrun, or `"single"` under it.
    """
    joined = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if strategy == "auto":
        strategy = "ddp" if world > 1 else "single"
    if strategy == "single" and world > 1:
        raise ConfigError(
            f"strategy 'single' in {world} processes: every one would train the same; use 'ddp' or "
            "'fsdp', or start one process."
        )
    if strategy != "single" and not joined and "RANK" not in os.environ:
        raise ConfigError(
            f"strategy '{strategy}' needs torchrun: torchrun --nproc-per-node N -m understudy ..."
        )
    where = _device(device, local_rank)
    if strategy != "single" and not joined:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        joined, world = True, dist.get_world_size()
    rank = dist.get_rank() if joined and strategy != "single" else 0
    return Ranks(rank=rank, world=world, device=where, strategy=strategy)


def wrap(model: nn.Module, ranks: Ranks, shard_parameters: int = SHARD_PARAMETERS) -> nn.Module:
    """Return what to call for the forward pass: the model, or it inside DDP, or it sharded.

    Args:
        model: on its device. FSDP shards it in place.
        ranks: from `join`.
        shard_parameters: for FSDP, the smallest block with a shard of its own.
    """
    if ranks.strategy == "ddp":
        ids = [ranks.device] if ranks.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)
    if ranks.strategy == "fsdp":
        shard(model, ranks, shard_parameters)
    return model


def shard(model: nn.Module, ranks: Ranks, shard_parameters: int = SHARD_PARAMETERS) -> None:
    """Shard a model's parameters over the ranks with FSDP2, block by block.

    Scalars (the logit scale) and frozen parameters stay whole on every rank; `sync_whole` averages
    the gradients of those that learn.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    whole = {p for p in model.parameters() if p.ndim == 0 or not p.requires_grad}
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for parent in model.modules():
        if isinstance(parent, nn.ModuleList | nn.Sequential):
            for block in parent:
                own = {p for p in block.parameters() if p not in whole}
                if sum(p.numel() for p in own) >= shard_parameters:
                    fully_shard(block, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)


def sync_whole(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Average the gradients of parameters that FSDP does not manage."""
    if ranks.strategy != "fsdp":
        return
    for parameter in parameters:
        if parameter.grad is not None and not _is_sharded(parameter):
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks.world


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return full copies in host memory; collective if tensors are sharded."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full: Any = tensor.detach()
        if _is_sharded(full):
            full = full.full_tensor()
        # A copy: the originals go on changing, and tied weights must not share memory in a file.
        out[name] = full.to("cpu", copy=True).contiguous()
    return out


def like(full: Tensor, reference: Tensor) -> Tensor:
    """Return `full` placed (and sharded) as `reference` is; collective if it is sharded."""
    full = full.to(reference.device, copy=True)
    if not _is_sharded(reference) or full.ndim == 0:
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, reference.device_mesh, reference.placements)  # type: ignore[attr-defined]


def to_device(value: Any, device: torch.device) -> Any:
    """Move tensors, in dictionaries and lists too, to a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {k: to_device(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(v, device) for v in value]
    return value
