"""Who there is to kill, and killing them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from understudy.launch.replica_files import MARKS

WRAPPER = "understudy.launch.run_replica"
CONTROLLER = "controller"
VICTIMS = ("wrapper", "command", "worker")


@dataclass(frozen=True, slots=True)
class Process:
    """A living process of a job.

    Attributes:
        pid: its number.
        parent: its parent's.
        words: its command.
        job: id; of a wrapper from its folder.
        attempt: number of the attempt.
        rank: of the replica.
        role: `wrapper`, `command` (the wrapper's child), `worker` (below it) or `helper`.
    """

    pid: int
    parent: int
    words: tuple[str, ...]
    job: str
    attempt: int
    rank: int
    role: str


def _read(pid: int) -> tuple[int, tuple[str, ...], dict[str, str]] | None:
    """Return parent, words and environment of a process; None if it is gone, or not ours."""
    folder = Path(f"/proc/{pid}")
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if state == "Z":
        return None
    return int(parent), tuple(words[:-1]), dict(p.split("=", 1) for p in pairs if "=" in p)


def living(home: Path, jobs: Collection[str]) -> list[Process]:
    """Return the living processes of jobs.

    Args:
        home: folder of the jobs.
        jobs: their ids.
    """
    wrappers: dict[int, Process] = {}
    marked: list[tuple[int, int, tuple[str, ...], list[str]]] = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        found = _read(pid)
        if found is None:
            continue
        parent, words, env = found
        if WRAPPER in words and Path(words[-1]).is_relative_to(home / "jobs"):
            job, attempt, rank = Path(words[-1]).relative_to(home / "jobs").parts[:3]
            if job in jobs:
                n, r = (int(part.rpartition("-")[2]) for part in (attempt, rank))
                wrappers[pid] = Process(pid, parent, words, job, n, r, "wrapper")
        elif env.get(MARKS[0]) in jobs:
            marked.append((pid, parent, words, [env.get(mark, "-1") for mark in MARKS]))
    below = []
    for pid, parent, words, (job, attempt, rank) in marked:
        role = "command" if parent in wrappers else "worker"
        # what a pool of processes keeps for itself
        role = "helper" if "resource_tracker" in " ".join(words) else role
        below.append(Process(pid, parent, words, job, int(attempt), int(rank), role))
    return [*wrappers.values(), *below]


def kill(victim: Process) -> bool:
    """Kill -9 a process, a command with its whole group; False if it had ended before.

    The process is held by a handle, so that no other that got its number is hit.
    """
    try:
        handle = os.pidfd_open(victim.pid)
    except ProcessLookupError:
        return False
    try:
        found = _read(victim.pid)
        if found is None or found[1] != victim.words:
            return False
        if victim.role == "command" and os.getpgid(victim.pid) == victim.pid:
            os.killpg(victim.pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def kill_all(home: Path, jobs: Collection[str]) -> None:
    """Leave nothing of jobs alive: wrappers first, as they start nothing afterwards."""
    for _ in range(20):
        found = living(home, jobs)
        if not found:
            return
        for victim in found:
            with contextlib.suppress(PermissionError):
                kill(victim)
