"""Jobs as processes of this machine, under a controller that outlives whoever submits them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid

from understudy.core.config import to_dict
from understudy.core.errors import UnderstudyError
from understudy.launch.engines.base import Engine
from understudy.launch.engines.local_settings import (
    CAPACITY,
    LocalSettings,
    read_capacity,
    write_settings,
)
from understudy.launch.home import Home
from understudy.launch.replica_files import held, holder, without_marks
from understudy.launch.spec_parts import check_range
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import Capacity
from understudy.launch.states import ACTIVE

LOCK, WAKE, LOG = "controller.lock", "controller.wake", "controller.log"
ASKED, ANSWERED = "local.asked", "local.answered"
RECONCILE_S = 20.0
_started: list[subprocess.Popen[bytes]] = []


class LocalEngine(Engine):
    """Runs jobs on this machine.

    Slots are reserved in one transaction; a controller (a process of its own session) starts
    replicas, watches them and starts again after it was killed: whoever next submits, waits or
    cancels sees to that. Replicas do not notice.

    Args:
        home: the folder of all jobs.
    """

    name = "local"

    def capabilities(self) -> frozenset[str]:
        """Return what it can do."""
        return frozenset(
            {"gang", "elastic", "preempt", "gpu", "requeue", "capacity", "launcher:torchrun"}
        )

    def capacity(self) -> Capacity:
        """Return what jobs may use."""
        return read_capacity(self.store, self.home)

    def set_capacity(self, n: int) -> None:
        """Let jobs use `n` cores; what runs is not stopped."""
        check_range(n, 1, "capacity")
        capacity = self.capacity()
        self.set_resources(
            Capacity(amounts={**capacity.amounts, "cpu": float(n)}, gpu_types=capacity.gpu_types)
        )

    def set_resources(self, capacity: Capacity) -> None:
        """Let jobs use exactly this much of everything."""
        self.store.set_meta(CAPACITY, to_dict(capacity))
        self.wake()

    def configure(self, settings: LocalSettings) -> None:
        """Change times and sizes."""
        write_settings(self.store, settings)
        self.wake()

    def dispatch(self, job: Job) -> None:
        """See that a controller runs and looks now."""
        if not job.final:
            self.ensure_controller()

    def _stop(self, job: Job, grace_s: float) -> None:
        self.ensure_controller()

    # -- the controller

    def wake(self) -> bool:
        """Make a running controller look now; False if there is none."""
        try:
            handle = os.open(self.home.root / WAKE, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False  # nobody reads
        with contextlib.suppress(BlockingIOError):
            os.write(handle, b"w")
        os.close(handle)
        return True

    def controller_alive(self) -> bool:
        """Say whether a controller runs."""
        return held(self.home.root / LOCK)

    def controller_pid(self) -> int | None:
        """Return the process number of the running controller."""
        return holder(self.home.root / LOCK)

    def ensure_controller(self) -> None:
        """Start a controller unless one runs, and make it look now."""
        if not self.controller_alive():
            _started[:] = [p for p in _started if p.poll() is None]
            environment = without_marks(dict(os.environ))
            with open(self.home.root / LOG, "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "understudy.launch.engines.local_controller",
                     str(self.home.root)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    env=environment, start_new_session=True,
                )  # fmt: skip
            _started.append(process)
        self.wake()

    def warnings(self) -> tuple[str, ...]:
        """Say when nobody controls the jobs."""
        if self.controller_alive():
            return ()
        return ("the controller does not run; `understudy job wait` or `submit` starts it again",)

    def reconcile(self) -> list[str]:
        """Start a controller if none runs, and return the active jobs after its next look.

        Raises:
            UnderstudyError: it does not come up; its log is named.
        """
        asked = uuid.uuid4().hex
        self.store.set_meta(ASKED, asked)
        end = time.monotonic() + RECONCILE_S
        self.ensure_controller()
        while self.store.meta(ANSWERED) != asked:
            if time.monotonic() > end:
                raise UnderstudyError(
                    f"the controller does not come up; see {self.home.root / LOG}."
                )
            self.wake()
            time.sleep(0.02)
        return [job.id for job in self.store.jobs(states=sorted(ACTIVE), engine=self.name)]


def open_local(home: str | Home, settings: LocalSettings | None = None) -> LocalEngine:
    """Return the local engine of a home, with other settings if given."""
    engine = LocalEngine(home if isinstance(home, Home) else Home.open(home))
    if settings is not None:
        engine.configure(settings)
    return engine
