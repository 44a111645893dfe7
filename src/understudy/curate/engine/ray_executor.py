"""Tasks on Ray: this machine's cores, or a cluster, through Ray Data."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.core.lazy import require
from understudy.curate.engine.executors import Executor, failed
from understudy.curate.engine.tasks import Task, run_task

OWNER = "UNDERSTUDY_RAY_OWNER"
"""Environment variable by which processes of a Ray that we started are told from others."""
START_WAIT_S = 120
"""How long Ray's node may take to come up; its own 30 s are too short on a busy machine."""


def _run_row(row: dict[str, Any]) -> dict[str, str]:
    """Run a task on a Ray worker; errors come back as text, so that none needs unpickling."""
    task = Task.from_plain(json.loads(row["task"]))
    # steps of one's own lie where the driver found them
    sys.path += [entry for entry in json.loads(row["path"]) if entry not in sys.path]
    try:
        run_task(task)
    except UnderstudyError as error:
        return {"key": task.key, "error": str(error)}
    except Exception as error:
        return {"key": task.key, "error": str(failed(task.key, error))}
    return {"key": task.key, "error": ""}


class RayExecutor(Executor):
    """Tasks as rows of a Ray Data set, one a block.

    Ray is started at the first call, unless the program has started it, and stopped by `close`.

    Args:
        address: `ray://host:port` of a cluster, or None for this machine.
        workers: tasks at a time; 0 leaves it to Ray.
    """

    def __init__(self, address: str | None, workers: int) -> None:
        self.address, self.workers = address, workers
        self._ray: Any = None
        self._started = False
        self._owner = ""

    def _open(self) -> Any:
        if self._ray is not None:
            return self._ray
        os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_WAIT_S))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = require("ray", "ray", "running on Ray")
        require("ray.data", "ray", "running on Ray")
        if not ray.is_initialized():
            self._start(ray)
        self._ray = ray
        return ray

    def _start(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
        if self.address is not None:
            options["address"] = self.address
        else:
            options |= {"address": "local", "include_dashboard": False}
            if self.workers:
                options["num_cpus"] = self.workers
            self._owner = os.environ[OWNER] = uuid.uuid4().hex
        try:
            with warnings.catch_warnings():
                # what Ray forks becomes another program at once, so Lance's warning is idle
                warnings.filterwarnings("ignore", "lance is not fork-safe")
                ray.init(**options)
        except BaseException as error:
            self._stop(ray)
            if not isinstance(error, Exception):
                raise
            first = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"on: Ray could not be started at {self.address or 'this machine'} "
                f"({type(error).__name__}: {first})."
            ) from error
        self._started = True

    def run(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Run the tasks."""
        ray = self._open()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        rows = [{"task": json.dumps(task.to_plain()), "path": path} for task in tasks]
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
        pool = ray.data.TaskPoolStrategy(size=min(self.workers, len(rows)) or None)
        for row in data.map(_run_row, compute=pool).iter_rows():
            if row["error"]:
                raise DataError(row["error"])
            yield row["key"]

    def close(self) -> None:
        """Stop Ray if it was started here."""
        ray, self._ray = self._ray, None
        if ray is not None and self._started:
            self._started = False
            self._stop(ray)

    def _stop(self, ray: Any) -> None:
        try:
            ray.shutdown()
        finally:
            if self._owner:
                os.environ.pop(OWNER, None)
                _end_processes(self._owner)


def _end_processes(owner: str) -> None:
    """End what a failed start left: agents that outlive their node, wherever they hang."""
    mark = f"{OWNER}={owner}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid():
                continue
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:  # ended by itself, or someone else's
            continue
