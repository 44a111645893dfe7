"""Two workers of one thread beside one: samples a second of a small CNN that computes a lot.

Every round trains for a few steps with one worker, with two of half its batch each (the same
global batch), with one of that half batch, and with a parameter server without a bound; the first
and the last of a round change places. `two / one` is how much faster the same steps are,
`E(2)` compares two workers with one that computes as much as each of them, and T(2) is what the
step model makes of that one's step and the measured link. Nothing else may run beside it.

    .venv/bin/python benchmarks/data_parallel.py [--quick]

`--quick` tries it out and writes no results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ratio, write_result

ARMS: dict[str, tuple[int, float, str]] = {
    "one": (1, 1.0, "sync"),
    "two": (2, 1.0, "sync"),
    "half": (1, 0.5, "sync"),
    "server": (2, 1.0, "async_ps"),
}
"""Workers, share of the batch, mode."""
BATCH, WIDTH = 128, 64


def train(name: str, data: Path, steps: int) -> dict[str, Any]:
    """Run an arm and return what its first worker measured."""
    from understudy.core.files import read_json

    workers, share, mode = ARMS[name]
    with tempfile.TemporaryDirectory() as facts:
        words = {"--facts": facts, "--mode": mode, "--steps": str(steps), "--width": str(WIDTH),
                 "--batch": str(int(BATCH * share)), "--keep": str(steps // 2)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             f"--nproc-per-node={workers}", "-m", "understudy.recipes.alchemist_modes", str(data),
             *(word for pair in words.items() for word in pair)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-3000:]}")
        return read_json(Path(facts) / "modes.json")


def main() -> None:
    from understudy.recipes.alchemist_jobs import digits
    from understudy.train.parallel.step_model import StepModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, steps = (1, 6) if quick else (5, 100)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        data = digits(Path(folder), 0.25)
        for number in range(rounds):
            for name in list(ARMS) if number % 2 == 0 else reversed(ARMS):
                found[name].append(train(name, data, steps))
    # Seconds a sample: a step's median for those that step together, the whole for the server.
    seconds = {
        name: [
            f["seconds"][-1] / f["samples"][-1]
            if name == "server"
            else f["step_s"] / (BATCH * ARMS[name][1])
            for f in facts
        ]
        for name, facts in found.items()
    }
    two, half = found["two"], found["half"]
    predicted = []
    for measured, alone in zip(two, half, strict=True):
        model = StepModel(compute_s=alone["step_s"], bytes=measured["bytes"],
                          bandwidth=measured["bandwidth"],
                          latency_s=measured["latency_s"])  # fmt: skip
        predicted.append(model.seconds(2) / measured["step_s"])
    result: dict[str, Any] = {
        "batch": BATCH,
        "parameters": two[0]["bytes"] // 4,
        "samples_per_s": {name: round(1 / statistics.median(s)) for name, s in seconds.items()},
        "ratio": {
            "two / one": ratio(seconds["one"], seconds["two"]),
            "E(2)": ratio(seconds["half"], seconds["two"]) / 2,
            "server / two": ratio(seconds["two"], seconds["server"]),
            "compute / communicate": ratio(
                [f["step_s"] for f in half], [f["communicate_s"] for f in two]
            ),
            "T(2) / measured": statistics.median(predicted),
        },
        "link": {key: statistics.median(f[key] for f in two) for key in ("bandwidth", "latency_s")},
        "target": {"two / one": 1.5},
        "rounds": rounds,
    }
    for name, value in result["samples_per_s"].items():
        print(f"{name:8}{value:8,} samples/s")
    for name, value in result["ratio"].items():
        print(f"{name:24}{value:8.2f}")
    if not quick:
        write_result("data_parallel", result)


if __name__ == "__main__":
    main()
