"""What the arms of the alchemist claim share: data, jobs of workers, a killer of workers."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.lazy import require
from understudy.core.seeds import rng
from understudy.launch.engines.base import Engine
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Checkpoint, Elastic, Role

SCRIPT = Path(__file__).with_name("alchemist_script.py")


def digits(folder: Path, held_out: float) -> Path:
    """Write the 1,797 digits of scikit-learn, split by a fixed draw; return the file.

    Args:
        folder: where to.
        held_out: share of the pictures that accuracy is measured on.
    """
    data: Any = require("sklearn.datasets", "scenes", "the digits of the claim")
    pictures, labels = data.load_digits(return_X_y=True)
    order = rng("alchemist-digits").permutation(len(labels))
    cut = int(len(labels) * (1 - held_out))
    parts = {"train": order[:cut], "test": order[cut:]}
    arrays: dict[str, Any] = {}
    for name, rows in parts.items():
        arrays[f"{name}_x"] = (pictures[rows] / 16).astype(np.float32)
        arrays[f"{name}_y"] = labels[rows].astype(np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits.npz"
    np.savez(path, **arrays)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; none if it is not there."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def training(
    name: str, workers: int, command: tuple[str, ...], restarts: int, **more: Any
) -> JobSpec:
    """Return the job of workers that train together, one core and one thread each."""
    return JobSpec(
        name=name,
        command=command,
        launcher="torchrun",
        roles=(Role(name="trainer", replicas=workers),),
        elastic=Elastic(min=workers, max=workers, max_restarts=restarts),
        checkpoint=Checkpoint(dir="checkpoints"),
        env={"OMP_NUM_THREADS": "1"},
        **more,
    )


def finish(engine: Engine, spec: JobSpec, timeout_s: float) -> str:
    """Run a job to its end and return its id.

    Raises:
        DataError: it did not succeed; its last lines are shown.
    """
    job = engine.submit(spec)
    status = engine.wait(job, timeout_s)
    if status.state != "SUCCEEDED":
        said = " | ".join(line.text for line in list(engine.logs(job))[-5:])
        raise DataError(f"job {job} is {status.state} ({status.reason}): {said}")
    return job


class Killer(threading.Thread):
    """Kills (-9) a random worker now and then, until it is told to stop or training has ended.

    A worker that dies when others have already left is nobody's loss of training.

    Args:
        facts: folder where the workers write `workers.jsonl` and `steps.jsonl`.
        every_s: mean seconds from one kill to the next; each is drawn from 3/4 to 5/4 of it.
        seed: of the draws.
    """

    def __init__(self, facts: Path, every_s: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._facts, self._every_s = facts, every_s
        self._draw = rng("alchemist-kill", seed)
        self._stopped = threading.Event()
        self._killed: set[int] = set()
        self.kills: list[float] = []

    def run(self) -> None:
        """Wait for the first step, then kill in turn."""
        while not lines(self._facts / "steps.jsonl"):
            if self._stopped.wait(0.05):
                return
        due = time.time()
        while True:
            due += self._every_s * float(self._draw.uniform(0.75, 1.25))
            if self._stopped.wait(max(0.0, due - time.time())):
                return
            rank = int(self._draw.integers(2))
            while (pid := self._alive(rank)) is None:
                if self._stopped.wait(0.05):
                    return
            if (self._facts / "seen.json").exists():
                return
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.kills.append(time.time())

    def _alive(self, rank: int) -> int | None:
        """Return the process of a rank's newest worker; None while it is being replaced."""
        own = [line["pid"] for line in lines(self._facts / "workers.jsonl") if line["rank"] == rank]
        if not own or own[-1] in self._killed:
            return None
        try:
            command = Path(f"/proc/{own[-1]}/cmdline").read_bytes()
        except OSError:
            return None
        if SCRIPT.name.encode() not in command:
            return None
        self._killed.add(own[-1])
        return int(own[-1])

    def stop(self) -> None:
        """Kill no more."""
        self._stopped.set()
        self.join()


def named(prefix: str, text: str) -> dict[str, float]:
    """Return a hash in hexadecimal as three numbers that a float holds exactly, 48 bits each."""
    return {f"{prefix}_{i}": float(int(text[12 * i : 12 * i + 12], 16)) for i in range(3)}
