"""The folder beside a store in which a run works, and that lets a killed run go on."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_json, write_text
from understudy.core.hashing import hash_bytes

STATE = "state.json"
GLOBAL_STATS = "global_stats.jsonl"
_LOCK = ".lock"


def unit_folder(key: str) -> str:
    """Return a file name for a unit: readable, and unique through a hash of its key."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in key)
    return f"{safe[-40:].lstrip('.-')}-{hash_bytes(key.encode('utf-8', 'replace'))[:12]}"


def default_work(store: str | Path) -> Path:
    """Return the work folder of a store on a local disk.

    Raises:
        ConfigError: the store is elsewhere.
    """
    if "://" in str(store):
        raise ConfigError(f"work: name a local folder; {store} has no place beside it.")
    path = Path(store)
    return path.with_name(f"{path.name}.curate")


class Workplace:
    """A run's work folder, locked while it is open.

    Args:
        path: the folder; made if it is not there.

    Raises:
        DataError: another run is at work there, or something else is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path}: is a file; choose another folder with --work.")
        foreign = self.path.is_dir() and any(self.path.iterdir())
        if foreign and not (self.path / _LOCK).exists():
            raise DataError(
                f"{self.path}: is not empty and no work folder of an earlier run; choose another "
                "with --work."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        lock = open(self.path / _LOCK, "a+")
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system
            pass
        except OSError:
            lock.close()
            raise DataError(
                f"{self.path}: another run is at work there; wait for it, or choose another folder "
                "with --work."
            ) from None
        self._lock = lock
        self.note("running")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.note("stopped" if isinstance(error, KeyboardInterrupt) else "failed", str(error))
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def note(self, state: str, error: str = "") -> None:
        """Write what state the run is in; `error` says why it failed."""
        facts: dict[str, Any] = {"state": state, "time": round(time.time(), 1), "pid": os.getpid()}
        if error:
            facts["error"] = error
        try:
            write_json(self.path / STATE, facts)
        except OSError:  # the disk may be what failed
            if state == "running":
                raise

    def write_stats(self, lines: list[dict[str, Any]]) -> None:
        """Write the statistics of all steps so far."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_text(self.path / GLOBAL_STATS, text)

    def remove(self) -> None:
        """Remove the folder; killed half-way, it is still known as a work folder."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
