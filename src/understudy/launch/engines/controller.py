"""What every controller does: adopt, watch, place, answer, and end when there is nothing to do.

One runs at a time (it holds a lock). It may be killed at any moment: everything that it decides is
a transaction, everything that it learns is in files, and starting a replica twice starts it once.
It ends when there has been nothing to do for a while.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from understudy.launch.engines.controlled import ControlledEngine
from understudy.launch.engines.local_schedule import next_start
from understudy.launch.engines.settings import Settings
from understudy.launch.engines.watch import Watch
from understudy.launch.replica_files import take_lock
from understudy.launch.state_rows import Job
from understudy.launch.states import ACTIVE, FINAL, State

METRICS_S = 1.0
STALE_S = 5.0
"""A job recorded so long ago and not queued has lost its submitter; the controller queues it."""
ERROR_PAUSE_S = 1.0


S = TypeVar("S", bound=Settings)


class Controller(ABC, Generic[S]):
    """Looks after all jobs of one engine in a home.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: ControlledEngine) -> None:
        self.engine = engine
        self.home = engine.home
        self.store = engine.store
        self.watches: dict[tuple[str, int], Watch] = {}
        self.passes = 0
        self._answered: str | None = None
        self._metrics_at = 0.0
        self._seen = -1
        self._again_at: float | None = None
        self.wake = engine.wake_pipe
        with contextlib.suppress(FileExistsError):
            os.mkfifo(engine.wake_pipe)
        # also for writing, so that it never is at its end
        self._pipe = os.open(engine.wake_pipe, os.O_RDWR | os.O_NONBLOCK)

    # -- what an engine gives

    @abstractmethod
    def settings(self) -> S:
        """Return times and sizes, as the home keeps them."""

    @abstractmethod
    def place(self, settings: S, now: float) -> None:
        """Start what may start now."""

    @abstractmethod
    def watch(self, job: Job) -> Watch:
        """Return the watch of a placed job's attempt."""

    def look(self, settings: S, now: float) -> None:
        """Do what comes first in every pass; nothing, unless there is somebody to ask."""
        return

    # -- the look

    def step(self, now: float | None = None) -> bool:
        """Look once at everything; return whether there is anything to do."""
        now = time.time() if now is None else now
        settings = self.settings()
        asked = self.store.meta(self.engine.asked)
        changed = self._changed()
        written = self.store.own_changes()
        self.look(settings, now)
        self._adopt(now)
        self._watch(settings, now)
        if changed or self.store.own_changes() != written or self._due(now):
            self._adopt_created(now)
            written = self.store.own_changes()
            self.place(settings, now)
            if self.store.own_changes() != written:
                self._adopt(now)
                self._watch(settings, now)
            self._again_at = next_start(self.store, now, self.engine.name)
        if time.monotonic() >= self._metrics_at:
            for watch in list(self.watches.values()):
                watch.take_metrics(self.store.replicas(watch.job_id, watch.n))
            self._metrics_at = time.monotonic() + METRICS_S
        self.passes += 1
        if asked != self._answered:
            self.store.set_meta(self.engine.answered, asked)
            self._answered = asked
        return self.has_work()

    def _changed(self) -> bool:
        """Say whether another process has written, or this is the first look."""
        seen = self.store.changes()
        changed, self._seen = seen != self._seen, seen
        return changed

    def _due(self, now: float) -> bool:
        """Say whether a pause has ended, or it is time to look at queues that only age."""
        if self._again_at is not None and now >= self._again_at:
            return True
        return self.passes % 20 == 0

    def _adopt(self, now: float) -> None:
        """Take up placed jobs that are not watched: new ones, and those of a dead controller."""
        for job in self.store.jobs(states=sorted(ACTIVE), engine=self.engine.name):
            key = (job.id, job.attempt)
            begun = any(a.n == job.attempt for a in self.store.attempts(job.id))
            if begun and key not in self.watches:
                self.watches[key] = self.watch(job)

    def _adopt_created(self, now: float) -> None:
        for job in self.store.jobs(states=[State.CREATED], engine=self.engine.name):
            if now - job.created > STALE_S:
                self.engine.prepare(job)

    def _watch(self, settings: S, now: float) -> None:
        """Look at every watched job."""
        for key, watch in list(self.watches.items()):
            try:
                goes_on = watch.step(settings, now)
            except Exception:
                # a job whose folder is broken must not keep others from ending
                report()
                continue
            if not goes_on:
                del self.watches[key]

    def has_work(self) -> bool:
        """Say whether any job has not ended."""
        states = [state for state in State if state not in FINAL]
        return bool(self.store.jobs(states=states, engine=self.engine.name, limit=1))

    def sleep(self, seconds: float) -> None:
        """Wait until somebody writes to the pipe, at most so long."""
        if select.select([self._pipe], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, 65536)

    def run(self) -> None:
        """Look until there has been nothing to do for a while."""
        idle_since: float | None = None
        while True:
            try:
                busy = self.step()
            except Exception:
                # a full disk or a locked database must not end the jobs' only keeper
                report()
                time.sleep(ERROR_PAUSE_S)
                continue
            settings = self.settings()
            idle_since = None if busy else (idle_since or time.monotonic())
            if idle_since is not None and time.monotonic() - idle_since > settings.idle_exit_s:
                return
            self.sleep(settings.poll_s)


def report() -> None:
    """Write the exception at hand to the controller's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), file=sys.stderr)
    traceback.print_exc()
    sys.stderr.flush()


def control(controller: Callable[[], Controller[Any]], engine: ControlledEngine) -> int:
    """Control an engine's jobs unless somebody does; return when there are none.

    Args:
        controller: makes a controller.
        engine: the engine.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        lock = take_lock(engine.lock)
        if lock is None:
            return 0
        one = controller()
        try:
            one.run()
        finally:
            os.close(lock)
        # Whoever queued a job before the lock was free relied on this process.
        if not one.has_work():
            return 0
