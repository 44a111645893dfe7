"""The job layer on one machine: how soon a job runs, how long a list takes, what kills cost.

Seconds from `submit` to a running job (targets: below 1 s); seconds to list 10,000 queued jobs, in
the library and by the command (below 1 s); goodput of two DDP workers of which one is killed (-9)
every 20 s or so, beside what Young's rule predicts without restarts (at least 0.8 of it).

    .venv/bin/python benchmarks/launch.py [--quick] [--only start|list|kill]

`--quick` and `--only` try it out and write no results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write_result


def start(home: Path, rounds: int) -> dict[str, Any]:
    """Submit one job after the other; the first also starts the controller."""
    from understudy.launch.engines.local import open_local
    from understudy.launch.spec import JobSpec

    engine = open_local(str(home))
    seconds = []
    try:
        for i in range(rounds + 1):
            begun = time.time()
            job = engine.submit(JobSpec(name="quick", command=("true",), key=f"quick-{i}"))
            engine.wait(job, 60, poll_s=0.005)
            seconds.append((engine.status(job).started or 0.0) - begun)
    finally:
        engine.close()
    return {
        "first_s": seconds[0],
        "median_s": statistics.median(seconds[1:]),
        "worst_s": max(seconds[1:]),
    }


def listed(home: Path, jobs: int, rounds: int) -> dict[str, Any]:
    """Queue jobs, none of which can run, and list them."""
    from understudy.launch.engines.local import open_local
    from understudy.launch.spec import JobSpec
    from understudy.launch.states import State

    engine = open_local(str(home))
    try:
        for i in range(jobs):
            spec = JobSpec(name=f"job-{i % 100}", command=("true",), key=f"queued-{i}")
            record, _ = engine.store.submit(spec, engine="local")
            with engine.store.transaction():
                engine.store.move_inside(record.id, State.QUEUED)
        found = {"library": [], "command": []}
        for _ in range(rounds):
            begun = time.perf_counter()
            assert len(engine.list()) == jobs
            found["library"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            words = ["-m", "understudy", "job", "list", "--home", str(home), "--json"]
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            found["command"].append(time.perf_counter() - begun)
    finally:
        engine.close()
    return {"jobs": jobs, **{f"{k}_s": statistics.median(v) for k, v in found.items()}}


def killed(folder: Path, steps: int, every_s: float, seeds: int) -> dict[str, Any]:
    """Train through kills; medians over the seeds."""
    from understudy.evaluate.claims import Context
    from understudy.recipes import alchemist_arms
    from understudy.recipes.alchemist_claim import SETTINGS

    settings = {**SETTINGS, "kill_steps": steps, "kill_every_s": every_s}
    rows = []
    for seed in range(seeds):
        own = folder / str(seed)
        facts = {"recipe": "alchemist", "scale": "laptop", "settings": settings,
                 "shared_dir": folder, "seed_dir": own, "arm_dir": own}  # fmt: skip
        shared = alchemist_arms.setup(Context(**facts))
        rows.append(alchemist_arms.run_arm("killed", seed, Context(**facts, shared=shared)))
    keys = ("goodput", "young", "goodput_over_young", "kills", "restart_s", "interval_s", "save_s",
            "lost_per_kill_s", "useful_fraction")  # fmt: skip
    return {key: statistics.median(row[key] for row in rows) for key in keys}


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", choices=("", "start", "list", "kill"))
    options = parser.parse_args()
    quick = options.quick
    parts = (options.only,) if options.only else ("start", "list", "kill")
    result: dict[str, Any] = {}
    for part in parts:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            if part == "start":
                result[part] = start(folder, 3 if quick else 20)
            elif part == "list":
                result[part] = listed(folder, 500 if quick else 10_000, 2 if quick else 5)
            else:
                steps, every_s, seeds = (800, 15.0, 1) if quick else (8000, 20.0, 3)
                result[part] = killed(folder, steps, every_s, seeds)
        print(part)
        for key, value in result[part].items():
            print(f"  {key:20}{value:10.3f}", flush=True)
    if not quick and not options.only:
        targets = {"start s": 1.0, "list s": 1.0, "goodput over Young": 0.8}
        write_result("launch", {**result, "target": targets})


if __name__ == "__main__":
    main()
