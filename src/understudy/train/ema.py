"""Averaged weights: w_ema <- d w_ema + (1 - d) w after every optimiser step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of what a model learns.

    Trainable parameters and floating-point buffers (running statistics) are averaged; other
    buffers are copied; frozen parameters are not touched.

    Args:
        model: the model; its present weights are the first average.
        decay: d per step.
        warmup: use min(d, (1 + t) / (10 + t)) at step t (from 0), so that early weights fade.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = False) -> None:
        self.decay = decay
        self.warmup = warmup
        self._model = model
        self._source = _averaged(model)
        self.tensors = {name: t.detach().clone() for name, t in self._source.items()}
        # One call takes tensors of one kind only: sharded parameters, or whole ones and buffers.
        kinds: dict[type, list[str]] = {}
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point():
                kinds.setdefault(type(tensor), []).append(name)
        self._alike = list(kinds.values())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold in the weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        for names in self._alike:
            torch._foreach_lerp_(
                [self.tensors[n] for n in names],
                [self._source[n].detach() for n in names],
                1 - decay,
            )
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point():
                tensor.copy_(self._source[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(state[name])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the model carry the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # After a forward pass without a backward one, the outermost sharded module keeps whole
        # weights, which would hide what is put into its shards.
        for module in self._model.modules():
            if hasattr(module, "reshard"):
                module.reshard()  # type: ignore[operator]
        for name, tensor in self.tensors.items():
            own = self._source[name]
            kept = own.detach().clone()
            own.copy_(tensor)
            tensor.copy_(kept)


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    persistent = set(model.state_dict().keys())
    buffers = {n: b for n, b in model.named_buffers() if n in persistent}
    return {**parameters, **buffers}
