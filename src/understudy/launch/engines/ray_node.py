"""What Ray starts for a replica, on its node: `... ray_node FOLDER [--gpus] [--parent PID]`.

A keeper around the wrapper. Signals come from the controller through a file beside the replica's
others, because the controller may be on another machine and Ray's own stop leaves a job three
seconds. What Ray itself sends is handed on. When the keeper is killed, so is the wrapper: a replica
that Ray gave up must not go on.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

from understudy.launch.replica import run_replica
from understudy.launch.replica_files import MARKS, PLAN, ReplicaFiles, _read, sweep

SIGNALS = "signals"
"""File of the names of signals to send, one a line, in the replica's folder."""
POLL_S = 0.1
SHARED_S = 10.0
"""How long a shared file system may take to show this node a folder made on another."""
NOT_SHARED = 3
VISIBLE = "_VISIBLE_DEVICES"
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def tell(folder: Path, number: int) -> None:
    """Ask for a signal to the replica of a folder, wherever it runs.

    Args:
        folder: the replica's.
        number: the signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / SIGNALS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, f"{signal.Signals(number).name}\n".encode())
    finally:
        os.close(handle)


def devices() -> dict[str, str]:
    """Return the variables by which Ray says which accelerators are this process's."""
    return {k: v for k, v in os.environ.items() if k.endswith(VISIBLE)}


def shared(folder: Path) -> bool:
    """Say whether a folder that the submitter made can be seen here."""
    end = time.monotonic() + SHARED_S
    while not folder.is_dir():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; end now if it has already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Keeper:
    """Runs the wrapper of one replica as a child and hands signals on to it.

    Args:
        folder: the replica's.
        gpus: whether it has accelerators, which Ray chose; otherwise it sees none.
    """

    def __init__(self, folder: Path, gpus: bool) -> None:
        self.folder, self.gpus = folder, gpus
        self.files = ReplicaFiles(folder)
        self.child = 0
        self.told: list[int] = []
        self._read_lines = 0

    def run(self) -> int:
        """Run the replica to its end; return its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        own = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            die_with(own)
            code = 1
            try:
                code = run_replica(self.folder, devices() if self.gpus else None)
            finally:
                sys.stderr.flush()
                os._exit(code)
        while True:
            found, status = os.waitpid(self.child, os.WNOHANG)
            if found:
                return self._ended(os.waitstatus_to_exitcode(status))
            self._hand_on()
            time.sleep(POLL_S)

    def _note(self, number: int, _: object) -> None:
        self.told.append(number)

    def _ended(self, code: int) -> int:
        if self.files.exit() is None and self.files.begun():
            plan = _read(self.folder / PLAN) or {}
            marks = {name: plan.get("env", {}).get(name, "") for name in MARKS}
            if all(marks.values()):
                sweep(marks)
        return code if code >= 0 else 128 - code

    def _hand_on(self) -> None:
        """Hand on what was asked since; but for KILL only to a wrapper that is ready for it."""
        lines = self._lines()
        if "SIGKILL" in lines:
            self._kill(signal.SIGKILL)
        if not self.files.begun():
            return
        for name in lines[self._read_lines :]:
            self._kill(signal.Signals[name])
        self._read_lines = len(lines)
        while self.told:
            self._kill(self.told.pop(0))

    def _lines(self) -> list[str]:
        try:
            text = (self.folder / SIGNALS).read_text()
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]

    def _kill(self, number: int) -> None:
        # the child has not been waited for, so its number is still its own
        os.kill(self.child, number)


def main(words: list[str]) -> int:
    """Run a replica; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gpus", action="store_true")
    parser.add_argument("--parent", type=int)
    given = parser.parse_args(words)
    if given.parent is not None:
        die_with(given.parent)
    if not shared(given.folder):
        print(
            f"Error: {socket.gethostname()} does not see '{given.folder}': the home of jobs must "
            "lie on a path that all nodes share.",
            flush=True,
        )
        return NOT_SHARED
    return Keeper(given.folder, given.gpus).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
