"""What every engine does: eight calls, most of them the same because the truth lies in files.

An engine of its own gives `capabilities`, `capacity`, `dispatch` (a job has been queued), `_stop`
and `reconcile`; planning, submitting, status, logs and lists are here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.launch import preflight
from understudy.launch.code import Code, scan
from understudy.launch.cost import estimate, worst_case
from understudy.launch.engines.status import Filter, Plan, Status, describe, summaries
from understudy.launch.home import Home
from understudy.launch.log_follow import LogQuery, read_logs
from understudy.launch.replica_logs import LogLine
from understudy.launch.replica_plan import command, taken_over
from understudy.launch.spec import JobSpec
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import Capacity
from understudy.launch.states import FINAL, State

GRACE_S = 15.0
"""From TERM to KILL."""


class Engine(ABC):
    """A place where jobs run.

    Args:
        home: the folder of all jobs.
    """

    name: str

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store = JobStore(home.database)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    # -- what an engine gives

    @abstractmethod
    def capabilities(self) -> frozenset[str]:
        """Return what it can do.

        Words: `gang`, `elastic`, `preempt`, `gpu`, `requeue`, `queue`, `options`, `image`,
        `capacity`, and `launcher:<name>` for each launcher.
        """

    @abstractmethod
    def capacity(self) -> Capacity:
        """Return all that it has."""

    @abstractmethod
    def dispatch(self, job: Job) -> None:
        """Begin work on a job that has just been queued, or see that somebody does."""

    @abstractmethod
    def _stop(self, job: Job, grace_s: float) -> None:
        """Begin to stop the replicas of a job whose cancellation is recorded."""

    @abstractmethod
    def reconcile(self) -> list[str]:
        """Take up again what a controller that died has left; return the ids of active jobs."""

    def set_capacity(self, n: int) -> None:
        """Change the number of slots, where the engine can.

        Raises:
            ConfigError: it cannot.
        """
        raise ConfigError(f"engine '{self.name}' does not change its size; ask the site for {n}.")

    # -- the calls

    def plan(self, spec: JobSpec) -> Plan:
        """Check a spec and say what would run, on what, at what cost; nothing is recorded.

        Raises:
            ConfigError: what would keep it from running.
        """
        return self._plan(spec)[0]

    def _plan(self, spec: JobSpec) -> tuple[Plan, Code | None, dict[str, str]]:
        code = scan(spec.workdir, spec.include, spec.exclude) if spec.workdir else None
        environment = taken_over()
        warnings = preflight.check(
            spec,
            engine=self.name,
            capacity=self.capacity(),
            capabilities=self.capabilities(),
            code=code,
            environment=environment,
            secrets=self.home.secrets,
        )
        budget = spec.budget
        plan = Plan(
            engine=self.name,
            spec_hash=spec.digest(code.digest if code else ""),
            commands=tuple(tuple(command(spec, r)) for r in range(spec.replicas)),
            resources=tuple(r.resources.vector() for r in spec.ranks()),
            gang=spec.is_gang,
            code_files=len(code.files) if code else 0,
            code_bytes=code.bytes if code else 0,
            cost=budget and estimate(spec, spec.timeout_s or 0.0, budget.rate_table),
            worst_cost=budget and worst_case(spec),
            warnings=tuple(warnings),
        )
        return plan, code, environment

    def submit(
        self,
        spec: JobSpec,
        *,
        checkpoints: str = "",
        retry_of: str = "",
        work_hash: str = "",
    ) -> str:
        """Queue a job and return its id; the same key again returns the job that is there.

        Args:
            spec: the spec.
            checkpoints: folder of an earlier job's checkpoints to go on from.
            retry_of: that job.
            work_hash: of a pipeline's node.

        Raises:
            ConfigError: what would keep it from running, or a key that is taken by another spec.
        """
        plan, code, environment = self._plan(spec)
        if code is not None:
            code.unpack(self.home.code(code.digest))
        job, new = self.store.submit(
            spec,
            engine=self.name,
            code=code.digest if code else "",
            environment=environment,
            checkpoints=checkpoints,
            retry_of=retry_of,
            work_hash=work_hash,
        )
        if new:
            for text in plan.warnings:
                self.store.note(job.id, "warning", text=text)
        if job.state is State.CREATED:
            self.prepare(job)
        self.dispatch(job)
        return job.id

    def prepare(self, job: Job) -> None:
        """Give a recorded job its folder and its copy of the code, and queue it.

        May be done by several, and again after a crash.
        """
        folder = self.home.job(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        work = folder / "work"
        if job.code_hash:
            kept = self.home.code(job.code_hash)
            names = tuple(p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file())
            Code(kept, names, 0, job.code_hash).unpack(work)
        work.mkdir(exist_ok=True)
        checkpoints = job.checkpoints or str(folder / (job.spec.checkpoint.dir or "checkpoints"))
        with self.store.transaction():
            if self.store.job(job.id).state is State.CREATED:
                self.store.move_inside(job.id, State.QUEUED, checkpoints=checkpoints)

    def status(self, job_id: str) -> Status:
        """Return where a job is: its record joined with the files of its replicas. A pure read.

        Raises:
            ConfigError: there is no such job.
        """
        return describe(self.store, self.home, self.store.job(job_id), self.warnings())

    def warnings(self) -> tuple[str, ...]:
        """Return what is wrong with the engine itself, for every status."""
        return ()

    def logs(
        self,
        job_id: str,
        replica: int | None = None,
        follow: bool = False,
        since: float | None = None,
        stream: Literal["both", "stdout", "stderr"] = "both",
    ) -> Iterator[LogLine]:
        """Yield a job's output, of all attempts, also after it has ended.

        Args:
            job_id: its id.
            replica: only of this rank.
            follow: wait for more until the job has ended.
            since: only lines from this time on, seconds since 1970.
            stream: which output.
        """
        query = LogQuery(replica=replica, follow=follow, since=since, stream=stream)
        return read_logs(self.store, self.home, job_id, query)

    def cancel(self, job_id: str, grace_s: float = GRACE_S) -> Status:
        """Stop a job: TERM, then KILL after `grace_s`; a job that has ended stays as it is.

        Returns at once; `wait` waits.
        """
        now = time.time()
        with self.store.transaction() as db:
            job = self.store.job(job_id)
            begun = db.execute(
                "SELECT 1 FROM replicas WHERE job=? AND attempt=? AND state='placed'",
                (job.id, job.attempt),
            ).fetchone()
            if not job.final and begun is None:
                self.store.move_inside(job.id, State.CANCELLED, now=now, reason="cancelled")
            elif not job.final and job.wish != "cancel":
                self.store.set_inside(job.id, wish="cancel", wish_t=now, wish_grace_s=grace_s)
                self.store.add_event(job.id, "cancel", now, {"grace_s": grace_s})
        job = self.store.job(job_id)
        if not job.final:
            self._stop(job, grace_s)
        return self.status(job_id)

    def list(self, filter: Filter | None = None) -> list[Status]:
        """Return the engine's jobs, newest first, from their records alone."""
        return summaries(self.store, self.home, self.name, filter or Filter())

    def retry(self, job_id: str) -> str:
        """Queue a new job with the spec, code and checkpoints of one that has ended; return its id.

        Raises:
            ConfigError: it has not ended, or its code is gone.
        """
        job = self.store.job(job_id)
        if not job.final:
            raise ConfigError(f"job {job.id} is {job.state}; only a job that has ended is tried "
                              "again.")  # fmt: skip
        plain = to_dict(job.spec)
        if job.code_hash:
            kept = self.home.code(job.code_hash)
            if not kept.is_dir():
                raise ConfigError(f"job {job.id}: its code is gone ({kept}); submit its spec.")
            plain |= {"workdir": str(kept), "include": ["**"], "exclude": []}
        tries = len([j for j in self.store.jobs(name=job.name) if j.retry_of == job.id])
        from understudy.core.config import from_dict

        spec = from_dict(JobSpec, {**plain, "key": f"{job.key[:200]}#retry-{tries + 1}"})
        return self.submit(
            spec, checkpoints=job.checkpoints, retry_of=job.id, work_hash=job.work_hash
        )

    def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 0.05) -> Status:
        """Wait until a job has ended and return its status.

        Raises:
            ConfigError: it has not after `timeout_s`.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        checked = 0.0
        while self.store.job(job_id).state not in FINAL:
            if end is not None and time.monotonic() > end:
                state = self.store.job(job_id).state
                raise ConfigError(f"job {job_id} is {state} after {timeout_s:g} s.")
            if time.monotonic() - checked > 2.0:
                self.dispatch(self.store.job(job_id))
                checked = time.monotonic()
            time.sleep(poll_s)
        return self.status(job_id)

    def folder(self, job_id: str) -> Path:
        """Return the job's folder."""
        return self.home.job(self.store.job(job_id).id)


def plain(value: Any) -> Any:
    """Return a plan or a status as JSON-like data."""
    return to_dict(value)
