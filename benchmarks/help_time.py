"""Time of `understudy --help` against `python -c pass`: the command line must start at once.

Processes alternate, so that a slow moment of the machine meets both; medians are compared. The goal
is a ratio of at most 8. `--help` of a command that parses by tyro, and `import torch`, are timed
for comparison.

    .venv/bin/python benchmarks/help_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import write_result

ROUNDS = 15
GOAL = 8.0
ARMS = {
    "python-pass": ("-c", "pass"),
    "understudy-help": ("-m", "understudy", "--help"),
    "understudy-data-info-help": ("-m", "understudy", "data", "info", "--help"),
    "import-torch": ("-c", "import torch"),
}
RARE = ("import-torch",)


def seconds(arguments: tuple[str, ...]) -> float:
    """Return the wall seconds of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for arguments in ARMS.values():
        seconds(arguments)  # byte code and file cache
    for number in range(ROUNDS):
        order = list(ARMS.items())
        for name, arguments in order if number % 2 == 0 else reversed(order):
            if name not in RARE or number < 3:
                found[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in found.items()}
    base = medians["python-pass"]
    ratio = statistics.median(
        b / a for a, b in zip(found["python-pass"], found["understudy-help"], strict=True)
    )
    for name, value in medians.items():
        print(f"{name}: {value * 1e3:.0f} ms, {value / base:.1f} x python -c pass")
    print(f"understudy --help / python -c pass: {ratio:.2f} (goal: at most {GOAL:g})")
    write_result(
        "help_time",
        {
            "rounds": ROUNDS,
            "median_ms": {name: round(value * 1e3, 1) for name, value in medians.items()},
            "ratio": round(ratio, 2),
            "goal": f"ratio <= {GOAL:g}",
            "passed": ratio <= GOAL,
        },
    )
    sys.exit(0 if ratio <= GOAL else 1)


if __name__ == "__main__":
    main()
