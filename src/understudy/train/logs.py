"""The log of a run: lines of JSON always, TensorBoard if asked; means over steps without waiting.

Reading a number from a device makes the processor wait for it. `Window` adds up on the device and
is read once per line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.core.files import write_text
from understudy.core.lazy import require


class Window:
    """Means of named scalars over the steps since the last line."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add a step's scalars; nothing is copied from the device."""
        for name, value in metrics.items():
            value = (
                value.detach().double() if value.device.type == "cpu" else value.detach().float()
            )
            known = self.sums.get(name)
            self.sums[name] = value.clone() if known is None else known + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means so far, in one copy, and start anew."""
        if not self.sums:
            return {}
        names = list(self.sums)
        values = torch.stack([self.sums[n].reshape(()) for n in names]).tolist()
        found = {n: v / self.counts[n] for n, v in zip(names, values, strict=True)}
        self.sums, self.counts = {}, {}
        return found

    def state(self) -> dict[str, Any]:
        """Return the unfinished window as plain data, so that a resumed run logs the same line."""
        sums = {n: float(v) for n, v in self.sums.items()}
        return {"sums": sums, "counts": dict(self.counts)}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Put back what `state` returned."""
        kind = torch.float64 if device.type == "cpu" else torch.float32
        self.sums = {
            n: torch.tensor(v, dtype=kind, device=device) for n, v in state["sums"].items()
        }
        self.counts = dict(state["counts"])


class RunLog:
    """Append lines to `metrics.jsonl`, and to TensorBoard if asked.

    Args:
        folder: of the run.
        start_step: lines of later steps are dropped: a resumed run writes them again.
        tensorboard: also write event files.
        active: False on ranks that do not write.
    """

    def __init__(
        self, folder: Path, start_step: int, *, tensorboard: bool = False, active: bool = True
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.active = active
        self._board: Any = None
        if not active:
            return
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= start_step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        self._file = open(self.path, "a", encoding="utf-8")
        if tensorboard:
            board = require("torch.utils.tensorboard", "logs", "TensorBoard logging")
            self._board = board.SummaryWriter(folder / "tensorboard", purge_step=start_step + 1)

    def write(self, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        """Append a line: `{"step": step, "<prefix><name>": value, ...}`."""
        if not self.active:
            return
        named = {f"{prefix}{name}": value for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **named}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in named.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        if not self.active:
            return
        self._file.close()
        if self._board is not None:
            self._board.close()


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a log; the last one may be cut by a kill."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            if isinstance(json.loads(line).get("step"), int):
                found.append(line)
        except (json.JSONDecodeError, AttributeError):
            continue
    return found


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in _lines(Path(folder) / "metrics.jsonl")]
