"""One active attempt of the local engine: its replicas are processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from understudy.launch.engines.settings import Settings
from understudy.launch.engines.watch import Watch as AnyWatch
from understudy.launch.home import Home
from understudy.launch.outcome import End
from understudy.launch.replica_files import without_marks
from understudy.launch.replica_plan import write_plan
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job, Replica

SPAWNS = 3
"""A wrapper that dies before it says anything is started again so often."""


class Watch(AnyWatch):
    """One attempt of one job of the local engine.

    Args:
        store: the jobs.
        home: of all jobs.
        job: the job, placed.
        wake: the pipe that wakes the controller.
    """

    def __init__(self, store: JobStore, home: Home, job: Job, wake: Path) -> None:
        super().__init__(store, home, job)
        self.wake = str(wake)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.spawns: dict[int, int] = {}
        self.swept: set[int] = set()

    def _see_to(self, job: Job, placed: list[Replica], settings: Settings) -> None:
        for row in placed:
            self._start(job, row, len(placed), settings)

    def _start(self, job: Job, row: Replica, placed: int, settings: Settings) -> None:
        """Start a replica that has not begun; starting twice is harmless, its lock sees to that."""
        files = self._files(row.rank)
        process = self.processes.get(row.rank)
        running = process is not None and process.poll() is None
        if running or files.begun() or files.alive():
            return
        if job.wish:
            self.spawns[row.rank] = SPAWNS  # what is being stopped is not started
        if self.spawns.get(row.rank, 0) >= SPAWNS:
            return
        self.spawns[row.rank] = self.spawns.get(row.rank, 0) + 1
        folder = write_plan(
            self.home,
            job,
            row.rank,
            placed=placed if job.spec.is_gang else job.spec.replicas,
            gpus=row.gpus,
            grace_s=settings.grace_s,
            heartbeat_s=settings.heartbeat_s,
            segment_bytes=settings.segment_bytes,
            segments=settings.segments,
            wake=self.wake,
        )
        with open(folder / "wrapper.log", "ab") as log:
            self.processes[row.rank] = subprocess.Popen(
                [sys.executable, "-m", "understudy.launch.run_replica", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=without_marks(dict(os.environ)),
                start_new_session=True,
            )

    def _end(self, row: Replica) -> End | None:
        end = super()._end(row)
        process = self.processes.get(row.rank)
        if end is not None and process is not None:
            process.poll()  # so that nothing is left of it
        return end

    def _gone(self, row: Replica) -> bool:
        files = self._files(row.rank)
        process = self.processes.get(row.rank)
        running = process is not None and process.poll() is None
        if running or files.alive():
            return False
        tried = self.spawns.get(row.rank, 0) >= SPAWNS
        if not files.begun() and not (tried and files.forbid()):
            return False
        if row.rank not in self.swept:
            self._sweep(row.rank)
            self.swept.add(row.rank)
        return True

    def _send(self, row: Replica, number: int) -> bool:
        return self._files(row.rank).send(number)
