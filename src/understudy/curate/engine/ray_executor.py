"""Tasks on Ray: this machine's cores, or a cluster, through Ray Data."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from understudy.core.errors import DataError, UnderstudyError
from understudy.core.ray_session import RaySession
from understudy.curate.engine.executors import Executor, failed
from understudy.curate.engine.tasks import Task, run_task


def _run_row(row: dict[str, Any]) -> dict[str, str]:
    """Run a task on a Ray worker; errors come back as text, so that none needs unpickling."""
    task = Task.from_plain(json.loads(row["task"]))
    # steps of one's own, and relative paths, are where the driver found them
    if os.path.isdir(row["folder"]):
        os.chdir(row["folder"])
    sys.path += [entry for entry in json.loads(row["path"]) if entry not in sys.path]
    try:
        run_task(task)
    except UnderstudyError as error:
        return {"key": task.key, "error": str(error)}
    except Exception as error:
        return {"key": task.key, "error": str(failed(task.key, error))}
    return {"key": task.key, "error": ""}


def _pipeline(data: Any, rows: list[dict[str, Any]], workers: int) -> Any:
    """Return the data set of the tasks' results."""
    pool = data.TaskPoolStrategy(size=min(workers, len(rows)) or None)
    return data.from_items(rows, override_num_blocks=len(rows)).map(_run_row, compute=pool)


class RayExecutor(Executor):
    """Tasks as rows of a Ray Data set, one a block.

    Ray is started at the first call, unless the program has started it, and stopped by `close`.

    Args:
        address: `ray://host:port` of a cluster, or None for this machine.
        workers: tasks at a time; 0 leaves it to Ray.
    """

    def __init__(self, address: str | None, workers: int) -> None:
        self.workers = workers
        self._session = RaySession(address, workers)

    def run(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Run the tasks."""
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        here = {"path": path, "folder": os.getcwd()}
        rows = [{"task": json.dumps(task.to_plain()), **here} for task in tasks]
        for row in self._session.stream(_pipeline, rows, self.workers):
            if row["error"]:
                raise DataError(row["error"])
            yield row["key"]

    def close(self) -> None:
        """Stop Ray if it was started here."""
        self._session.close()
