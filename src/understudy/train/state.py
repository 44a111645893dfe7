"""Everything of a run that a checkpoint holds, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.core.progress import Ledger
from understudy.train import checkpoint
from understudy.train.distributed import Ranks, like, whole
from understudy.train.ema import Ema
from understudy.train.logs import Window
from understudy.train.optim import load_state_tensors, state_tensors, trainable


def frozen_hash(model: nn.Module) -> str:
    """Return a hash of the frozen parameters; empty if there are none."""
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    chunks: list[bytes] = []
    for name, tensor in sorted(frozen.items()):
        value = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        chunks += [name.encode(), value.numpy().tobytes()]
    return hash_bytes(*chunks) if chunks else ""


def learned(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: trainable parameters and persistent buffers."""
    frozen = {n for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {n: t for n, t in model.state_dict().items() if n not in frozen}


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        model: the bare model.
        optimizer: its optimiser.
        scaler: the gradient scaler.
        ema: the averaged weights, if any.
        ranks: where this process stands.
        facts: what must be equal for a checkpoint to be of this run.
        step: optimiser steps done.
        window: the unfinished window of the log.
        ledger: seconds by part, over all processes of the run so far.
        evaluation: the last evaluation's metrics.
        best: the largest value of the watched metric so far.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    ranks: Ranks
    facts: dict[str, Any]
    step: int = 0
    window: Window = field(default_factory=Window)
    ledger: Ledger = field(default_factory=Ledger)
    evaluation: dict[str, float] = field(default_factory=dict)
    best: float | None = None

    def save(self, folder: Path, extra: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint into `folder`; collective if the model is sharded."""
        tensors = {
            "model": whole(learned(self.model)),
            "optimizer": whole(state_tensors(self.optimizer, trainable(self.model))),
        }
        if self.ema is not None:
            tensors["ema"] = whole(self.ema.tensors)
        if self.ranks.writes:
            state = {
                "step": self.step,
                "run": self.facts,
                "scaler": self.scaler.state_dict(),
                "window": self.window.state(),
                "seconds": self.ledger.seconds,
                "evaluation": self.evaluation,
                "best": self.best,
                **(extra or {}),
            }
            checkpoint.write(folder, tensors, state)
        self.ranks.barrier()
        return folder

    def load(self, folder: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            ConfigError: it is of another run; the message names the first difference.
            DataError: it is damaged or of another model.
        """
        tensors, state = checkpoint.read(folder)
        checkpoint.same_run(state["run"], self.facts, folder)
        own = learned(self.model)
        if own.keys() != tensors["model"].keys():
            odd = sorted(own.keys() ^ tensors["model"].keys())
            raise DataError(f"{folder}: of another model; it differs in '{odd[0]}'.")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(like(tensors["model"][name], tensor))
            if self.ema is not None:
                averaged = {
                    n: like(t, self.ema.tensors[n]) for n, t in tensors.get("ema", {}).items()
                }
                self.ema.load(averaged)
        load_state_tensors(self.optimizer, trainable(self.model), tensors["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.window.load(state["window"], self.ranks.device)
        self.ledger.seconds = dict(state["seconds"])
        self.evaluation = dict(state["evaluation"])
        self.best = state["best"]
