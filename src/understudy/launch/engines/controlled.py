"""Engines whose jobs this package places and watches itself, by a controller beside them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from understudy.core.errors import UnderstudyError
from understudy.launch.engines.base import Engine
from understudy.launch.replica_files import held, holder, without_marks
from understudy.launch.state_rows import Job
from understudy.launch.states import ACTIVE

RECONCILE_S = 20.0
_started: list[subprocess.Popen[bytes]] = []


class ControlledEngine(Engine):
    """An engine with a controller: a process of its own session that outlives who submits.

    It reserves slots in one transaction, starts replicas and watches them; after it was killed
    whoever next submits, waits or cancels starts another. Replicas do not notice.

    Args:
        home: the folder of all jobs.
    """

    module: str
    """Run with the home's folder as its argument it is the controller."""
    prefix: str
    """Stem of the controller's files in the home."""

    def _environment(self) -> dict[str, str]:
        """Return the controller's variables."""
        return without_marks(dict(os.environ))

    # -- its files

    @property
    def lock(self) -> Path:
        """Held while a controller runs."""
        return self.home.root / f"{self.prefix}.lock"

    @property
    def wake_pipe(self) -> Path:
        """What is written here makes the controller look."""
        return self.home.root / f"{self.prefix}.wake"

    @property
    def log(self) -> Path:
        """What the controller says."""
        return self.home.root / f"{self.prefix}.log"

    @property
    def asked(self) -> str:
        """Name of the question that a reconciling process asks."""
        return f"{self.name}.asked"

    @property
    def answered(self) -> str:
        """Name of the controller's answer."""
        return f"{self.name}.answered"

    # -- the calls

    def dispatch(self, job: Job) -> None:
        """See that a controller runs and looks now."""
        if not job.final:
            self.ensure_controller()

    def _stop(self, job: Job, grace_s: float) -> None:
        self.ensure_controller()

    def wake(self) -> bool:
        """Make a running controller look now; False if there is none."""
        try:
            handle = os.open(self.wake_pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False  # nobody reads
        with contextlib.suppress(BlockingIOError):
            os.write(handle, b"w")
        os.close(handle)
        return True

    def controller_alive(self) -> bool:
        """Say whether a controller runs."""
        return held(self.lock)

    def controller_pid(self) -> int | None:
        """Return the process number of the running controller."""
        return holder(self.lock)

    def ensure_controller(self) -> None:
        """Start a controller unless one runs, and make it look now."""
        if not self.controller_alive():
            _started[:] = [p for p in _started if p.poll() is None]
            with open(self.log, "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", self.module, str(self.home.root)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    env=self._environment(), start_new_session=True,
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
        self.store.set_meta(self.asked, asked)
        end = time.monotonic() + RECONCILE_S
        self.ensure_controller()
        while self.store.meta(self.answered) != asked:
            if time.monotonic() > end:
                raise UnderstudyError(f"the controller does not come up; see {self.log}.")
            self.wake()
            time.sleep(0.02)
        return [job.id for job in self.store.jobs(states=sorted(ACTIVE), engine=self.name)]
