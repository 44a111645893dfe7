"""The Slurm engine's controller: `python -m understudy.launch.engines.slurm_controller HOME`.

It submits, asks Slurm how things are, and moves records along. Killed at any moment it loses
nothing: a submission that it could not write down is found again by its name.
"""

from __future__ import annotations

import sys
import time

from understudy.core.errors import ConfigError
from understudy.launch.engines.controller import Controller, control, report
from understudy.launch.engines.slurm import SlurmEngine
from understudy.launch.engines.slurm_client import (
    BEGIN_TIME,
    FINAL,
    SlurmError,
    SlurmJob,
    parse_name,
)
from understudy.launch.engines.slurm_queue import GONE, Queue
from understudy.launch.engines.slurm_settings import SlurmSettings, read_settings
from understudy.launch.engines.slurm_submit import begin, submit
from understudy.launch.engines.slurm_units import Unit, units
from understudy.launch.engines.slurm_watch import SlurmWatch
from understudy.launch.home import Home
from understudy.launch.state_rows import Job
from understudy.launch.states import WAITING, State

STALE_S = 10.0
"""A job in Slurm that no record wants is cancelled so long after its record has moved on."""
PAUSE_S, PAUSE_CAP_S = 5.0, 300.0
SKIPPED = 8
"""So many restarts in a row that never reached the script are looked through."""


class SlurmController(Controller[SlurmSettings]):
    """Looks after the jobs that run on Slurm.

    Args:
        engine: the engine.
    """

    engine: SlurmEngine

    def __init__(self, engine: SlurmEngine) -> None:
        super().__init__(engine)
        self.queue = Queue(engine.client)
        self._pauses: dict[tuple[str, int, int | None], tuple[float, float]] = {}
        self._reaped: set[str] = set()

    def settings(self) -> SlurmSettings:
        """Return the settings that the home keeps."""
        return read_settings(self.store)

    def watch(self, job: Job) -> SlurmWatch:
        """Return what looks after an attempt that has begun."""
        return SlurmWatch(self.store, self.home, job, self.queue, self.settings())

    def place(self, settings: SlurmSettings, now: float) -> None:
        """Do nothing: what waits is looked at in every pass, Slurm does the placing."""
        return

    def look(self, settings: SlurmSettings, now: float) -> None:
        """Ask Slurm when it is time, submit what waits, begin what Slurm has started."""
        fresh = time.monotonic() - self.queue.asked_at >= settings.squeue_s
        if fresh:
            self.queue.refresh()
        for job in self._waiting():
            try:
                self._see(job, settings, now, fresh)
            except Exception:
                report()  # a job whose folder is broken must not keep others from starting
        if fresh and not self.queue.error:
            self._reap(now)

    def _waiting(self) -> list[Job]:
        """Return jobs without a running attempt, first the one to submit first."""
        jobs = self.store.jobs(states=sorted(WAITING), engine=self.engine.name)
        begun = {job.id for job in jobs if any(a.n == job.attempt
                                               for a in self.store.attempts(job.id))}  # fmt: skip
        left = [job for job in jobs if job.id not in begun and not job.wish]
        return sorted(left, key=lambda job: (-job.priority, job.queued or job.created))

    def _see(self, job: Job, settings: SlurmSettings, now: float, fresh: bool) -> None:
        found = units(self.home, job.id, job.spec)
        job = self._caught_up(job, found[0])
        started: list[Unit] = []
        for unit in found:
            record = unit.record(job.attempt)
            if record is None:
                if job.not_before <= now:
                    self._submit(job, unit, settings)
                record = unit.record(job.attempt)
            if unit.begun(job.attempt) is not None:
                started.append(unit)
            elif record is not None and fresh:
                state = self.queue.state(record.id)
                if state == "CANCELLED":
                    self._cancelled(job, found)
                    return
                if state in FINAL or state == GONE:
                    started.append(unit)  # it could not even start: its watch says why
                elif record.base < job.attempt and settings.requeue_at_once:
                    self._hurry(record.id)
        if started:
            begin(self.store, job, found, started, now)
        elif fresh:
            self._tell(job, found)

    def _caught_up(self, job: Job, unit: Unit) -> Job:
        """Leave out attempts that Slurm has queued again before they reached the job's script."""
        record = unit.record(job.attempt)
        if record is None or unit.begun(job.attempt) is not None:
            return job
        for n in range(job.attempt + 1, job.attempt + 1 + SKIPPED):
            later = unit.begun(n)
            if later is None or later[0] != record.id:
                continue
            unit.keep(n, record)
            with self.store.transaction():
                if self.store.job(job.id).attempt == job.attempt:
                    self.store.set_inside(job.id, attempt=n)
                    self.store.add_event(job.id, "skipped", time.time(), {"attempt": n})
            return self.store.job(job.id)
        return job

    def _submit(self, job: Job, unit: Unit, settings: SlurmSettings) -> None:
        key = (job.id, job.attempt, unit.rank)
        at, pause = self._pauses.get(key, (0.0, PAUSE_S))
        if time.monotonic() < at:
            return
        try:
            submit(self.engine, job, unit, self.queue, settings)
            self._pauses.pop(key, None)
        except SlurmError as error:
            if not error.passes:
                self._refused(job, str(error))
                return
            self._pauses[key] = (time.monotonic() + pause, min(2 * pause, PAUSE_CAP_S))
            if pause == PAUSE_S:
                self.store.note(job.id, "warning", text=f"{error} (asked again later)")

    def _refused(self, job: Job, said: str) -> None:
        """End a job that Slurm will never take."""
        reason = f"Slurm refuses the job: {said}"
        with self.store.transaction():
            if self.store.job(job.id).state in WAITING:
                self.store.move_inside(job.id, State.LOST, reason=reason)
                self.store.move_inside(job.id, State.FAILED, reason=reason)

    def _cancelled(self, job: Job, found: list[Unit]) -> None:
        """End a waiting job that somebody has cancelled in Slurm."""
        with self.store.transaction():
            if self.store.job(job.id).state in WAITING:
                reason = "cancelled in Slurm, by somebody else"
                self.store.move_inside(job.id, State.CANCELLED, reason=reason)
        for unit in found:
            record = unit.record(job.attempt)
            if record is not None:
                self.engine.client.cancel(record.id)

    def _hurry(self, number: str) -> None:
        """Ask that a requeued job need not wait for Slurm's two minutes."""
        shown = self.queue.jobs.get(number)
        if shown is not None and shown.reason == BEGIN_TIME:
            self.engine.client.eligible_now(number)

    def _tell(self, job: Job, found: list[Unit]) -> None:
        """Keep why a job waits, in Slurm's word, where its status shows it."""
        record = found[0].record(job.attempt)
        shown = self.queue.jobs.get(record.id) if record else None
        if shown is None or shown.state != "PENDING":
            return
        reason = f"waits in Slurm as {shown.id}: {shown.reason}"
        if reason == job.reason:
            return
        with self.store.transaction():
            now = self.store.job(job.id)
            if now.state is State.QUEUED and now.attempt == job.attempt:
                self.store.set_inside(job.id, reason=reason)

    # -- what nobody wants any more

    def _reap(self, now: float) -> None:
        """Cancel jobs in Slurm whose record has ended or has another job there."""
        for shown in self.queue.jobs.values():
            if shown.final or shown.state == "COMPLETING" or shown.id in self._reaped:
                continue
            if self._unwanted(shown, now):
                self.engine.client.cancel(shown.id)
                self._reaped.add(shown.id)

    def _unwanted(self, shown: SlurmJob, now: float) -> bool:
        name, base, rank = parse_name(shown.name) or ("", 0, None)
        try:
            job = self.store.job(name)
        except ConfigError:
            return False  # of another home
        if job.final:
            return now - (job.ended or now) > STALE_S
        unit = next((u for u in units(self.home, job.id, job.spec) if u.rank == rank), None)
        record = unit.record(job.attempt) if unit is not None else None
        if record is not None and record.id == shown.id:
            return False
        if base == job.attempt and record is None:
            return False  # about to be found
        ended = [a.end for a in self.store.attempts(job.id) if a.end is not None]
        return base >= job.attempt or now - max(ended, default=now) > STALE_S


def main(root: str) -> int:
    """Control the jobs of a home on Slurm unless somebody does; return when there are none."""
    engine = SlurmEngine(Home.open(root))
    return control(lambda: SlurmController(engine), engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
