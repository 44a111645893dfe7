"""Mixed precision: autocast, and gradient scaling where the type's range is short."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of the forward pass."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=TYPES[precision])


def scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the gradient scaler; one that does nothing unless `precision` is `"fp16"`."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
