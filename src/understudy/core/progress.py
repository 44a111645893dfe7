"""Progress bars that only the command line switches on, and a ledger of where time went."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """What long work reports to."""

    def advance(self, amount: float = 1, **facts: float) -> None:
        """Move on by `amount` units; `facts` (a loss, say) are shown beside the bar."""
        ...


class _Silent:
    def advance(self, amount: float = 1, **facts: float) -> None:
        pass


class _Lines:
    """A line every few seconds, for logs and pipes; none for what is done in a moment."""

    SHORT_S = 2.0

    def __init__(self, label: str, total: float, unit: str, done: float, every_s: float) -> None:
        self.label, self.total, self.unit, self.every_s = label, total, unit, every_s
        self.done, self.first, self.start = done, done, time.monotonic()
        self.last = self.start

    def advance(self, amount: float = 1, **facts: float) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last < self.every_s and self.done < self.total:
            return
        if now - self.start < self.SHORT_S:
            return
        self.last = now
        rate = (self.done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        shown = " ".join(f"{k}={v:.4g}" for k, v in facts.items())
        print(
            f"{self.label}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, "
            f"{rate:,.1f}/s, {left:,.0f} s left {shown}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


_mode = "off"


def enable(mode: str = "auto") -> None:
    """Switch progress on: `"rich"` bars, `"lines"`, `"off"`, or `"auto"` by terminal."""
    global _mode
    _mode = ("rich" if sys.stderr.isatty() else "lines") if mode == "auto" else mode


@contextmanager
def bar(label: str, total: float, unit: str = "steps", done: float = 0) -> Iterator[Bar]:
    """Report on work of `total` units, of which `done` were finished by an earlier run."""
    if _mode == "off":
        yield _Silent()
    elif _mode == "lines":
        yield _Lines(label, total, unit, done, every_s=10.0)
    else:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=total, facts="")
            progress.update(task, completed=done)

            class _Rich:
                def advance(self, amount: float = 1, **facts: float) -> None:
                    shown = " ".join(f"{k}={v:.4g}" for k, v in facts.items())
                    progress.update(task, advance=amount, facts=shown)

            yield _Rich()


class Ledger:
    """Wall seconds by named part; parts may nest and repeat."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the block's wall time to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - start)

    def add(self, part: str, seconds: float) -> None:
        """Add measured seconds to `part`."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @property
    def total(self) -> float:
        """The sum over all parts, in seconds."""
        return sum(self.seconds.values())
