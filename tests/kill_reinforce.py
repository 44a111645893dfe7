"""Kill `understudy reinforce` fifty times at random and compare the result with an unbroken run.

    .venv/bin/python tests/kill_reinforce.py [--kills 50] [--rows 160] [--seed 0]

Each round starts from the same fresh store and runs the command again and again; every run is
killed (`kill -9`) after a random number of units and a random fraction of a second, until one ends.
Then the logical content must be that of the unbroken run. Prints a table (kills, those that hit a
run at work, those that hit one in or right after a commit); exit status 1 if a round differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent / "reinforce"))

MEAN_UNITS = 8
"""Units that a run finishes on average before it is killed."""


def prepare(folder: Path, rows: int) -> tuple[Path, Path]:
    """Make a fresh store, a nano teacher and the configuration; return (store, configuration)."""
    from reinforce_world import make_store, nano_clip

    from understudy import models

    make_store(folder / "fresh", rows)
    models.save(nano_clip(), folder / "teacher.safetensors")
    config = {
        "num_views": 4,
        "captions": 2,
        "views": {"size": 48, "transforms": {"random_resized_crop": {}, "rand_augment": {}}},
        "teachers": [{"name": "nano", "path": str(folder / "teacher.safetensors")}],
        "captioners": [
            {
                "name": "say",
                "kind": "callable",
                "options": {"caption": "reinforce_functions:say"},
            }
        ],
        "unit_rows": 4,
        "batch_size": 16,
    }
    path = folder / "reinforce.yaml"
    path.write_text(yaml.safe_dump(config))
    return folder / "fresh", path


def start(store: Path, config: Path) -> subprocess.Popen:
    """Start `understudy reinforce`."""
    here = str(Path(__file__).parent / "reinforce")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    command = [sys.executable, "-m", "understudy", "reinforce", str(store), "--config", str(config)]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def units(store: Path) -> set[Path]:
    """Return the files of the staged units."""
    return set(store.glob("_understudy/staging/*/*.unit"))


def run_until_done(
    store: Path, config: Path, draw: random.Random, budget: int
) -> tuple[int, int, int]:
    """Run and kill until a run ends; return (kills, kills in work, kills in or after a commit)."""
    kills = working = committing = 0
    while True:
        held = units(store)
        process = start(store, config)
        target = round(draw.expovariate(1 / MEAN_UNITS))
        seen: set[Path] = set()
        while process.poll() is None and (kills >= budget or len(seen) < target):
            seen |= units(store) - held
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.2))
        if process.poll() is None and kills < budget:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            working += bool(seen)
            committing += not (held | seen) <= units(store)
            continue
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"the command failed after {kills} kills:\n{errors}")
        return kills, working, committing


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from understudy.data.store import Store

    draw = random.Random(given.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fresh, config = prepare(folder, given.rows)
        whole = folder / "whole"
        shutil.copytree(fresh, whole)
        process = start(whole, config)
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors)
        expected = Store.open(whole).content_hash()
        print(f"unbroken run: {expected}")
        print("round  kills  in work  commit  problems  same content")
        total = differing = number = 0
        while total < given.kills:
            number += 1
            store = folder / f"round-{number}"
            shutil.copytree(fresh, store)
            left = given.kills - total
            kills, working, committing = run_until_done(store, config, draw, left)
            opened = Store.open(store)
            same = opened.content_hash() == expected
            problems = len(opened.verify())
            differing += not same or bool(problems)
            total += kills
            shown = f"{number:>5}  {kills:>5}  {working:>7}  {committing:>6}  {problems:>8}  {same}"
            print(shown, flush=True)
    took = time.monotonic() - began
    print(f"{total} kills in {number} rounds, {differing} differ, {took:.0f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
