"""What ends a run early: a loss that is not finite, SIGTERM, a time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SIGTERM_STATUS = 143
"""Exit status after SIGTERM, as shells count it: 128 + 15."""
SHOWN_ROWS = 8


class FiniteGuard:
    """Notice the first step whose loss is not finite.

    On the processor each loss is looked at before its gradient is used. On an accelerator that
    would make the host wait at every step, so a counter on the device remembers the first bad step
    and is read when a line is logged.
    """

    def __init__(self, device: torch.device) -> None:
        self.immediate = device.type == "cpu"
        self._first = torch.full((), -1, dtype=torch.int64, device=device)
        self._rows: dict[int, Any] = {}

    def see(self, step: int, loss: Tensor, batch: Mapping[str, Any]) -> bool:
        """Note a step's loss; return False if it is known to be bad."""
        rows = batch.get("rows")
        self._rows.setdefault(step, []).append(rows)
        finite = torch.isfinite(loss.detach())
        if self.immediate and bool(finite):
            return True
        self._first = torch.where((self._first < 0) & ~finite, step, self._first)
        return not self.immediate

    def bad_step(self) -> int | None:
        """Return the first bad step, waiting for the device; forget the rows of good ones."""
        first = int(self._first)
        if first < 0:
            self._rows.clear()
            return None
        return first

    def forget(self) -> None:
        """Drop the rows noted so far (on the processor each step has been looked at)."""
        if self.immediate:
            self._rows.clear()

    def rows(self, step: int) -> list[int]:
        """Return the rows of the batch of a step, if batches had them."""
        found = [r for r in self._rows.get(step, []) if r is not None]
        return [int(i) for part in found for i in torch.as_tensor(part).reshape(-1).tolist()]


def shown(rows: list[int]) -> str:
    """Format rows for a message."""
    if not rows:
        return ""
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f" Rows of its batch: {', '.join(map(str, rows[:SHOWN_ROWS]))}{more}."


class StopRequest:
    """SIGTERM and the time limit, asked for between steps.

    The handler is set inside the `with` block, in the main thread only.

    Args:
        seconds_limit_s: stop after so many seconds; 0 never.
    """

    def __init__(self, seconds_limit_s: float = 0.0) -> None:
        self.terminated = False
        self._end = time.monotonic() + seconds_limit_s if seconds_limit_s else None
        self._before: Any = None
        self._set = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
            self._set = True
        return self

    def __exit__(self, *exc: object) -> None:
        if self._set:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _handle(self, *_: object) -> None:
        self.terminated = True

    @property
    def wanted(self) -> bool:
        """Whether the run should stop now."""
        return self.terminated or (self._end is not None and time.monotonic() > self._end)
