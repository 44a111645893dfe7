"""Kill `understudy curate` twenty times at random and compare the result with an unbroken run.

    .venv/bin/python tests/kill_curate.py [--kills 20] [--files 12] [--workers 2] [--seed 0]

Each round runs the command again and again on the same pages; every run is killed (`kill -9`) after
a random number of finished tasks and a random fraction of a second, until one ends. Then the
logical content must be that of the unbroken run, no process may be left, and neither may the work
folder. Prints a table (kills, those that hit a run at work, those that hit one while it wrote the
store); exit status 1 if a round differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent / "curate" / "engine"
sys.path.insert(0, str(HERE))

MEAN_TASKS = 10
"""Tasks that a run finishes on average before it is killed."""
STEPS = [
    "engine_steps:measure",
    {"name": "engine_steps:AtLeast", "chars": 7},
    {"name": "engine_steps:slow", "seconds": 0.001},
    "engine_steps:FirstOnly",
    "engine_steps:upper",
    "commit",
    "engine_steps:WordCount",
    {"name": "engine_steps:slow", "seconds": 0.001},
]


def start(pages: Path, store: Path, pipeline: Path, workers: int) -> subprocess.Popen:
    """Start `understudy curate`."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "understudy", "curate", pages, store, "--pipeline", pipeline]
    return subprocess.Popen(
        [*map(str, command), "--workers", str(workers), "--exclusions", f"{store}.dropped"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(work: Path) -> set[Path]:
    """Return the markers of the tasks that are complete."""
    # walked, as folders are renamed meanwhile
    return {Path(base, "_done.json") for base, _, names in os.walk(work) if "_done.json" in names}


def run_until_done(
    pages: Path, store: Path, pipeline: Path, workers: int, draw: random.Random, budget: int
) -> tuple[int, int, int]:
    """Run and kill until a run ends; return (kills, kills at work, kills while writing)."""
    kills = working = writing = 0
    work = store.with_name(f"{store.name}.curate")
    while True:
        held = finished(work)
        process = start(pages, store, pipeline, workers)
        target = round(draw.expovariate(1 / MEAN_TASKS))
        # now and then wait for the store itself
        for_store = draw.random() < 0.2
        while process.poll() is None and kills < budget:
            if store.exists() if for_store else len(finished(work) - held) >= target:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05 if for_store else 0.4))
        if process.poll() is None and kills < budget:
            seen = len(finished(work) - held)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            working += bool(seen)
            writing += store.exists()
            continue
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"the command failed after {kills} kills:\n{errors}")
        return kills, working, writing


def left_over(store: Path) -> int:
    """Return how many processes still work for a store."""
    deadline = time.monotonic() + 30
    while True:
        found = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            found += str(store).encode() in command and int(path.parent.name) != os.getpid()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.gz")}


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from engine_steps import write_input

    from understudy.data.store import Store

    draw = random.Random(given.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = write_input(folder / "pages", files=given.files, pages=given.pages)
        pipeline = folder / "p.yaml"
        pipeline.write_text(yaml.safe_dump(STEPS))
        whole = folder / "whole"
        process = start(pages, whole, pipeline, given.workers)
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors)
        expected, dropped = Store.open(whole).content_hash(), tree(folder / "whole.dropped")
        print(f"unbroken run: {expected}, {len(dropped)} files of dropped pages")
        print("round  kills  at work  writing  problems  left over  same content")
        total = differing = number = 0
        while total < given.kills:
            number += 1
            store = folder / f"round-{number}"
            left = given.kills - total
            kills, working, writing = run_until_done(
                pages, store, pipeline, given.workers, draw, left
            )
            opened = Store.open(store)
            same = opened.content_hash() == expected and tree(Path(f"{store}.dropped")) == dropped
            problems = len(opened.verify())
            left = left_over(store) + Path(f"{store}.curate").exists()
            differing += not same or bool(problems) or bool(left)
            total += kills
            print(
                f"{number:>5}  {kills:>5}  {working:>7}  {writing:>7}  {problems:>8}  {left:>9}  "
                f"{same}",
                flush=True,
            )
    took = time.monotonic() - began
    print(f"{total} kills in {number} rounds, {differing} differ, {took:.0f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
