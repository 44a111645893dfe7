"""The bench loop: rounds of inferences, first ones discarded, extremes dropped, means of rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.fold import FOLD_MODES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Run = Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyConfig:
    """Say how to time.

    Attributes:
        rounds: how often the graph is loaded and timed.
        inferences: per round.
        discard: first inferences of a round that do not count.
        trim: lowest, and highest, latencies of a round that are dropped.
        threads: of the processor.
        dtype: `"float32"`, `"bfloat16"`, or `"float16"` on CUDA; of weights and inputs.
        device: `"cpu"` or `"cuda"`; CUDA is timed by events.
        batch: samples at once.
        fold: `"all"`, `"branches"`, or `"no"` for the training form.
        channels_last: memory layout of images and convolutions.
    """

    rounds: int = 20
    inferences: int = 50
    discard: int = 1
    trim: int = 10
    threads: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    batch: int = 1
    fold: str = "all"
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_choice(self.dtype, DTYPES, "LatencyConfig.dtype")
        check_choice(self.fold, ("no", *FOLD_MODES), "LatencyConfig.fold")
        for name, least in (
            ("rounds", 1),
            ("inferences", 1),
            ("discard", 0),
            ("trim", 0),
            ("threads", 1),
            ("batch", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"LatencyConfig.{name}: expected at least {least}, got {getattr(self, name)}."
                )
        kept = self.inferences - self.discard - 2 * self.trim
        if kept < 1:
            raise ConfigError(
                f"LatencyConfig.inferences: {self.inferences} leave nothing after discarding "
                f"{self.discard} and dropping 2 x {self.trim}; give at least "
                f"{self.discard + 2 * self.trim + 1} or a smaller trim."
            )
        if self.dtype == "float16" and not self.device.startswith("cuda"):
            raise ConfigError("LatencyConfig.dtype: float16 is for CUDA; use bfloat16 here.")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError("LatencyConfig.device: this torch sees no CUDA device; use cpu.")


def trimmed(latencies: Sequence[float], discard: int, trim: int) -> list[float]:
    """Return one round's kept latencies: without the first `discard`, sorted, ends dropped."""
    rest = sorted(latencies[discard:])
    return rest[trim : len(rest) - trim]


def summarise(rounds: Sequence[Sequence[float]], discard: int, trim: int) -> dict[str, Any]:
    """Return the protocol's numbers for latencies by round, in the unit of the latencies.

    Returns:
        `mean`, `min`, `max`, `p50`, `p95` and `rounds`, the mean of each round.
    """
    kept = [trimmed(r, discard, trim) for r in rounds]
    means = [statistics.fmean(r) for r in kept]
    rest = torch.tensor([x for r in rounds for x in r[discard:]], dtype=torch.float64)
    p50, p95 = torch.quantile(rest, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {
        "mean": statistics.fmean(means),
        "min": min(min(r) for r in kept),
        "max": max(max(r) for r in kept),
        "p50": p50,
        "p95": p95,
        "rounds": means,
    }


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Let torch use this many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_once(run: Run, device: str = "cpu") -> float:
    """Return the milliseconds of one call; on CUDA, between two events."""
    if device.startswith("cuda"):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def time_rounds(load: Callable[[], Run], config: LatencyConfig) -> list[list[float]]:
    """Return the milliseconds of every inference of every round.

    There is no progress bar: the thread that draws it would be timed along.

    Args:
        load: makes the graph anew and returns what runs it once; called every round.
        config: how to time.
    """
    out = []
    collecting = gc.isenabled()
    gc.collect()
    with threads_of(config.threads), torch.inference_mode():
        for _ in range(config.rounds):
            run = load()
            gc.disable()
            try:
                out.append([time_once(run, config.device) for _ in range(config.inferences)])
            finally:
                if collecting:
                    gc.enable()
            del run
    return out
