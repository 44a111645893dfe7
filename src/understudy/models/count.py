"""Count parameters and multiply-accumulates without memory or arithmetic for the weights.

Everything runs on torch's meta device: shapes flow, numbers don't.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from understudy.models.base import UNFOLDED, Model
from understudy.models.image.classifier import ClassifierConfig
from understudy.models.io import skeleton
from understudy.models.multimodal.clip import CLIPConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Sizes of one tower in one form.

    Attributes:
        parameters: number of trainable scalars.
        macs: multiply-accumulates of one sample's forward pass (FLOPs are twice that; most
            papers, these two among them, print this number as "FLOPs").
    """

    parameters: int
    macs: int


def parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def macs(module: Callable[..., Any], *inputs: Any) -> int:
    """Return the multiply-accumulates of `module(*inputs)`.

    Convolutions, matrix products and attention count; additions, activations and table look-ups do
    not, nor does anything that torch does not compute.

    Args:
        module: on the meta device for no cost, in eval mode; or any function that runs one.
        *inputs: on the same device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


def count_towers(
    config: CLIPConfig | ClassifierConfig, fold_state: str = UNFOLDED, *, image_size: int = 0
) -> dict[str, Count]:
    """Count each tower of a configuration for one sample.

    Args:
        config: what to count.
        fold_state: `"no"` (training form), `"branches"` (published inference form) or `"all"`.
        image_size: side of the input in pixels; 0 takes the configuration's.

    Returns:
        `image`, and for CLIP `text` and `total` (with the logit scale).
    """
    model: Any = skeleton(config, fold_state)
    side = image_size or config.preprocess.size
    pixels = torch.empty(1, 3, side, side, device="meta")
    out = {"image": _tower(model.image, pixels)}
    if isinstance(config, CLIPConfig):
        length = config.text.context_length
        tokens = torch.empty(1, length, dtype=torch.int64, device="meta")
        out["text"] = _tower(model.text, tokens)
        out["total"] = Count(
            parameters=parameters(model), macs=out["image"].macs + out["text"].macs
        )
    return out


def _tower(tower: nn.Module, sample: torch.Tensor) -> Count:
    return Count(parameters=parameters(tower), macs=macs(tower, sample))


def parameter_bytes(model: Model, itemsize: Callable[[torch.Tensor], int] | None = None) -> int:
    """Return the bytes of a model's parameters and buffers, as stored or by `itemsize`."""
    size = itemsize or torch.Tensor.element_size
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * size(t) for t in tensors)
