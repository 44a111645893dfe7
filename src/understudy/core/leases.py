"""Leases: several processes that see one folder divide named pieces of work among them.

A lease is a file that only one process can make. Its owner touches it while it lives; when it has
not changed for a while by the watcher's own clock, or its owner is known to be dead, the next
process takes over with a file of the next generation. A lease says who is at work, not what is
done: that is for the result to say, which must be looked for again after a lease was taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

from understudy.core.errors import ConfigError

HEARTBEAT_S = 5.0
LEASE_S = 60.0
"""A lease that has not changed for so long is its owner's no more."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FILE = re.compile(r"([A-Za-z0-9_-]+)\.(\d+)")


class _Seen(NamedTuple):
    generation: int
    state: tuple[int, int]  # time of change and size
    since: float  # by this process's clock


def process_start(pid: int) -> str:
    """Return when a process began, as its system counts; empty if it is gone or not known."""
    try:
        # the name, in parentheses, may hold anything
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if facts[0] in "ZX" else facts[19]  # dead, and its parent has not looked yet
    except (OSError, IndexError):
        return ""


class Leases:
    """The leases in a folder, as one process sees them.

    Args:
        folder: on a file system that all of them see; made if it is not there.
        heartbeat_s: how often leases are touched.
        lease_s: how long a silent lease is respected.

    Raises:
        ConfigError: the lease is not at least twice the heartbeat.
    """

    def __init__(
        self, folder: str | Path, *, heartbeat_s: float = HEARTBEAT_S, lease_s: float = LEASE_S
    ) -> None:
        if not 0 < 2 * heartbeat_s <= lease_s:
            raise ConfigError(
                f"lease_s: expected at least twice heartbeat_s ({heartbeat_s:g}), got {lease_s:g}."
            )
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.heartbeat_s, self.lease_s = heartbeat_s, lease_s
        self._host = socket.gethostname()
        self._held: dict[str, Path] = {}
        self._seen: dict[str, _Seen] = {}
        self._end = threading.Event()
        self._beat = threading.Thread(target=self._touch, name="understudy-leases", daemon=True)
        self._beat.start()

    def take(self, name: str) -> bool:
        """Lease a piece of work; say whether it is ours now.

        Args:
            name: letters, digits, `-` and `_`.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"lease '{name}': expected letters, digits, '-' and '_'.")
        latest = max((g for n, g in self._files() if n == name), default=-1)
        if latest >= 0 and not self._abandoned(name, latest):
            return False
        path = self.folder / f"{name}.{latest + 1}"
        pid = os.getpid()
        facts = {"host": self._host, "pid": pid, "start": process_start(pid)}
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(facts))
        self._held[name] = path
        return True

    def release(self, name: str) -> None:
        """Let a lease go."""
        path = self._held.pop(name, None)
        if path is None:
            return
        own = int(path.name.rpartition(".")[2])
        for generation in range(own + 1):  # those that were taken over go with it
            (self.folder / f"{name}.{generation}").unlink(missing_ok=True)

    def close(self) -> None:
        """Let all leases go."""
        self._end.set()
        self._beat.join()
        for name in list(self._held):
            self.release(name)

    def _files(self) -> list[tuple[str, int]]:
        found = (_FILE.fullmatch(name) for name in os.listdir(self.folder))
        return [(match[1], int(match[2])) for match in found if match]

    def _abandoned(self, name: str, generation: int) -> bool:
        path = self.folder / f"{name}.{generation}"
        try:
            facts = path.stat()
            text = path.read_text()
        except FileNotFoundError:
            return False  # let go just now; the next look will tell
        state = (facts.st_mtime_ns, facts.st_size)
        seen = self._seen.get(name)
        now = time.monotonic()
        if seen is None or (seen.generation, seen.state) != (generation, state):
            self._seen[name] = _Seen(generation, state, now)
        elif now - seen.since > self.lease_s:
            return True
        return self._dead(text)

    def _dead(self, text: str) -> bool:
        """Say whether the owner is a process of this machine that is gone."""
        try:
            owner = json.loads(text)
        except ValueError:
            return False  # being written
        if owner["host"] != self._host or not owner["start"]:
            return False
        return process_start(owner["pid"]) != owner["start"]

    def _touch(self) -> None:
        while not self._end.wait(self.heartbeat_s):
            for path in list(self._held.values()):
                with contextlib.suppress(OSError):
                    os.utime(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
