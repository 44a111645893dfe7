"""What a replica leaves in its folder, and whether it lives; the truth about a job is here.

replica.json   what to run; written by the engine
lock           held (flock) while the wrapper lives
start.json     written before the command starts
heartbeat      touched every few seconds
log-*.txt      its output
exit.json      whole or absent, written last
never          instead of all these: it has not begun and must not any more
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.files import write_json

PLAN, LOCK, START, HEARTBEAT, EXIT, NEVER = (
    "replica.json", "lock", "start.json", "heartbeat", "exit.json", "never",
)  # fmt: skip
MARKS = ("UNDERSTUDY_JOB_ID", "UNDERSTUDY_ATTEMPT", "UNDERSTUDY_REPLICA")
"""Variables that every process of a replica has."""


def take_lock(path: Path, wait_s: float = 1.0) -> int | None:
    """Take a lock until the returned handle is closed; None if another process has it.

    The file then holds this process's number. Those who only look hold the lock for a moment, hence
    the wait.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            return handle
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(handle)
                return None
            time.sleep(0.01)


def held(path: Path) -> bool:
    """Say whether a living process (of this machine) holds a lock."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def holder(path: Path) -> int | None:
    """Return the process that holds a lock; None if none does."""
    if not held(path):
        return None
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # it has only just taken it


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class ReplicaFiles:
    """One replica's folder, as others see it.

    Attributes:
        folder: the folder.
    """

    folder: Path

    def start(self) -> dict[str, Any] | None:
        """Return what it said when it began."""
        return _read(self.folder / START)

    def exit(self) -> dict[str, Any] | None:
        """Return how it ended."""
        return _read(self.folder / EXIT)

    def alive(self) -> bool:
        """Say whether its wrapper lives (on this machine)."""
        return held(self.folder / LOCK)

    def begun(self) -> bool:
        """Say whether it has begun."""
        return (self.folder / START).exists()

    def forbid(self) -> bool:
        """See to it that a replica never begins; False if it has begun, or is about to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = take_lock(self.folder / LOCK, wait_s=0.0)
        if handle is None:
            return False
        try:
            if self.begun():
                return False
            (self.folder / NEVER).touch()
        finally:
            os.close(handle)
        return True

    def heartbeat_age_s(self, now: float | None = None) -> float | None:
        """Return seconds since its last sign of life; None before the first."""
        for name in (HEARTBEAT, START):
            try:
                seen = (self.folder / name).stat().st_mtime
            except FileNotFoundError:
                continue
            return (time.time() if now is None else now) - seen
        return None

    def send(self, number: int) -> bool:
        """Send a signal to the wrapper, which hands it on; False if it does not live."""
        process = holder(self.folder / LOCK)
        if process is None:
            return False
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return False
        return True


def write_exit(folder: Path, facts: dict[str, Any]) -> None:
    """Write how a replica ended; on a full disk old log files make room for it."""
    for attempt in range(3):
        try:
            write_json(folder / EXIT, facts)
            return
        except OSError:
            for path in sorted(folder.glob("log-*.txt"))[: attempt + 1]:
                path.unlink(missing_ok=True)
            time.sleep(0.1)


def clock_skew_s(files: ReplicaFiles) -> tuple[float, str]:
    """Return how far a replica's clock is ahead of that of the file system, and its host."""
    start = files.start()
    if start is None:
        return 0.0, ""
    return start["time"] - (files.folder / START).stat().st_mtime, start["host"]


def marked(marks: dict[str, str]) -> list[int]:
    """Return the processes of this user whose environment has all `marks`, this one left out.

    Finds those that left their group, such as workers of torchrun. On systems without `/proc`
    nothing is found.
    """
    wanted = [f"{name}={value}".encode() for name, value in marks.items()]
    found: list[int] = []
    for number in _processes():
        if number == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if all(mark in environment for mark in wanted):
            found.append(number)
    return found


def sweep(marks: dict[str, str]) -> list[int]:
    """Kill every process that `marked` finds; return their numbers."""
    killed: set[int] = set()
    for _ in range(5):
        found = marked(marks)
        if not found:
            break
        for number in found:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
                killed.add(number)
        time.sleep(0.01)
    return sorted(killed)


def catches(process: int, number: int) -> bool:
    """Say whether a process has a handler for a signal, which would end it otherwise."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except (OSError, ValueError):
        pass
    return False


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def without_marks(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment for a process that must outlive the job that starts it."""
    return {k: v for k, v in environment.items() if k not in MARKS}
