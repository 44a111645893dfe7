"""Tasks: the unit of all heavy curation work, run once each, by any executor.

A task is a named function, plain arguments and an output folder. The function writes into a
temporary folder that is renamed when it is whole; a folder that holds `_done.json` is complete and
is not computed again. So a run that was killed goes on where it was, and neither the number of
workers nor the executor can change a result.
"""

from __future__ import annotations

import errno
import importlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core import progress
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.core.hashing import hash_data, hash_file

if TYPE_CHECKING:
    from understudy.curate.engine.executors import Executor

DONE = "_done.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One piece of work.

    Attributes:
        key: names it in messages and statistics.
        call: `"module:function"`; called as `function(out=<folder>, **args)`. It writes files into
            the folder and returns statistics as plain data. Files whose names begin with `_`
            (seconds, say) are not part of the content hash.
        args: plain data (JSON). Whatever decides the result must be among them, a fingerprint of
            the inputs included: a folder that was written with other arguments is written again.
        out: the output folder.
    """

    key: str
    call: str
    args: Mapping[str, Any] = field(default_factory=dict)
    out: Path

    @property
    def identity(self) -> str:
        """Hash of the function's name and the arguments."""
        return hash_data({"call": self.call, "args": dict(self.args)})

    def record(self) -> dict[str, Any] | None:
        """Return what `_done.json` says, or None if the task is not complete."""
        path = self.out / DONE
        if not path.is_file():
            return None
        try:
            found = read_json(path)
        except DataError:  # a machine that lost power can leave an empty file
            return None
        return found if found.get("identity") == self.identity else None

    def to_plain(self) -> dict[str, Any]:
        """Return the task as plain data."""
        return {
            "key": self.key,
            "call": self.call,
            "args": dict(self.args),
            "out": str(self.out),
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Task:
        """Return the task of `to_plain`."""
        return cls(key=data["key"], call=data["call"], args=data["args"], out=Path(data["out"]))


def run_tasks(
    tasks: Sequence[Task],
    *,
    on: str | Executor = "local",
    workers: int = 0,
    label: str = "tasks",
) -> list[dict[str, Any]]:
    """Run the tasks that are not complete.

    Args:
        tasks: independent of each other; their folders differ.
        on: `"local"`, `"ray"` (starts Ray here) or `"ray://host:port"`; with Ray the folders must
            be on a file system that every node sees. An open `Executor` serves several calls.
        workers: local processes, 0 for one a core; 1 runs in this process.
        label: of the progress bar.

    Returns:
        One record a task, in order: `key`, `identity`, `stats` (what the function returned),
        `seconds`, `hash` (of the files' names and bytes).

    Raises:
        ConfigError: two tasks share a folder.
        UnderstudyError: the first task that failed, named; complete ones stay.
    """
    from understudy.curate.engine.executors import executor

    seen: set[Path] = set()
    for task in tasks:
        if task.out in seen:
            raise ConfigError(
                f"{label}: two tasks write to {task.out}; give them folders of their own."
            )
        seen.add(task.out)
    found = {task.out: task.record() for task in tasks}
    open_tasks = [task for task in tasks if found[task.out] is None]
    for task in open_tasks:
        _clear(task)
    with progress.bar(label, len(tasks), "tasks", len(tasks) - len(open_tasks)) as bar:
        if open_tasks and isinstance(on, str):
            with executor(on, workers) as runs:
                for _ in runs.run(open_tasks):
                    bar.advance(1)
        elif open_tasks:
            assert not isinstance(on, str)
            for _ in on.run(open_tasks):
                bar.advance(1)
    records = []
    for task in tasks:
        record = found[task.out] or task.record()
        if record is None:
            raise DataError(
                f"{task.key}: finished, but {task.out} is not complete here; folders must be on a "
                "file system that every worker sees."
            )
        records.append(record)
    return records


def run_task(task: Task) -> dict[str, Any]:
    """Run one task here, and return its record.

    Raises:
        DataError: the disk is full; the task is named.
        UnderstudyError: what the function found wrong.
    """
    partial = task.out.parent / f".{task.out.name}.{uuid.uuid4().hex[:12]}.partial"
    start = time.perf_counter()
    try:
        partial.mkdir(parents=True)
        module, _, name = task.call.partition(":")
        stats = getattr(importlib.import_module(module), name)(out=partial, **task.args)
        record = {
            "key": task.key,
            "identity": task.identity,
            "stats": stats or {},
            "seconds": round(time.perf_counter() - start, 4),
            "hash": hash_data([[n, hash_file(partial / n, "blake2b")] for n in _files(partial)]),
        }
        (partial / DONE).write_text(json.dumps(record, indent=1))
        return _publish(task, partial, record)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{task.key}: the disk of {task.out.parent} is full; the partial folder was "
                "removed. Free space and run the same command again to go on."
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(task: Task, partial: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Rename the folder; one that another attempt at the same task finished first is as good."""
    for last in (False, True):
        there = task.record()
        if there is not None:
            return there
        shutil.rmtree(task.out, ignore_errors=True)
        try:
            partial.rename(task.out)
            break
        except OSError as error:
            if last or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    return record


def _files(folder: Path) -> Iterator[str]:
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("_"))
    yield from sorted(p.relative_to(folder).as_posix() for p in paths)


def _clear(task: Task) -> None:
    """Remove what killed attempts, or other arguments, left where the task will write."""
    if task.out.exists():
        shutil.rmtree(task.out)
    for old in task.out.parent.glob(f".{glob_escape(task.out.name)}.*.partial"):
        shutil.rmtree(old, ignore_errors=True)


def glob_escape(name: str) -> str:
    """Return a pattern that matches the name itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
