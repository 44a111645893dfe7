"""What the benchmarks share: arms timed in turn, medians and ratios, one JSON file a benchmark."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"


def alternate(
    arms: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the wall seconds of each arm, one a round.

    The arms of a round run one after the other and every second round in reverse order, so that a
    slow moment of the machine meets all of them; compare arms by `ratio`, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for run in arms.values():
        for _ in range(warmup):
            run()
    for number in range(rounds):
        order = list(arms) if number % 2 == 0 else list(reversed(arms))
        for name in order:
            gc.collect()
            start = time.perf_counter()
            arms[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(over: list[float], under: list[float]) -> float:
    """Return the median over rounds of `over / under`."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def rates(seconds: Mapping[str, list[float]], items: Mapping[str, float]) -> dict[str, int]:
    """Return each arm's items a second, from its median time."""
    return {name: round(items[name] / statistics.median(s)) for name, s in seconds.items()}


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write `results/<name>.json` with the machine and the versions, and return the path."""
    from understudy.core.files import write_json
    from understudy.core.provenance import machine, versions

    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    facts = {
        "name": name,
        "date": date.today().isoformat(),
        **result,
        "machine": {**machine(), "load": [round(x, 1) for x in load]},
        "versions": versions(),
    }
    return write_json(RESULTS / f"{name}.json", facts)
