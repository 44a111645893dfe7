"""One active job of the local engine: start replicas, watch them, carry out wishes, conclude."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from understudy.core.files import write_json
from understudy.launch.conclude import collect, conclude
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.engines.status import CLOCK_SKEW_S
from understudy.launch.home import Home
from understudy.launch.outcome import End, judge
from understudy.launch.replica import STOP_FILE
from understudy.launch.replica_files import ReplicaFiles, clock_skew_s, sweep, without_marks
from understudy.launch.replica_plan import write_plan
from understudy.launch.restarts import incomplete, rounds
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import ingest
from understudy.launch.state_rows import Artefact, Attempt, Job, Replica
from understudy.launch.state_slots import release_inside
from understudy.launch.states import State

SPAWNS = 3
"""A wrapper that dies before it says anything is started again so often."""
HASH_WAIT_S = 0.2
STUCK_S = 5.0
"""A wrapper that has not ended so long after it should have killed its command is killed."""


class Watch:
    """One attempt of one job, between its placement and its end.

    Holds nothing that the files and the database do not: a new controller makes a new one.

    Args:
        store: the jobs.
        home: of all jobs.
        job: the job, placed.
        wake: the pipe that wakes the controller.
    """

    def __init__(self, store: JobStore, home: Home, job: Job, wake: Path) -> None:
        self.store, self.home, self.job_id, self.n = store, home, job.id, job.attempt
        self.wake = str(wake)
        self.folder = home.attempt(job.id, job.attempt)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.spawns: dict[int, int] = {}
        self.sent: set[tuple[int, int]] = set()
        self.term_at: float | None = None
        self.swept: set[int] = set()
        self.collecting: Future[tuple[list[Artefact], str]] | None = None
        self.restarts = max(
            (e.facts["n"] for e in store.events(job.id)
             if e.kind == "restart" and e.facts["attempt"] == job.attempt),
            default=0,
        )  # fmt: skip

    def step(self, settings: LocalSettings, now: float) -> bool:
        """Look once; return whether the attempt goes on."""
        job = self.store.job(self.job_id)
        if job.attempt != self.n or job.state not in (
            State.STARTING, State.RUNNING, State.RESTARTING
        ):  # fmt: skip
            return False
        attempt = self.store.attempts(job.id)[-1]
        rows = self.store.replicas(job.id, self.n)
        placed = [row for row in rows if row.state == "placed"]
        for row in placed:
            self._see_to(job, row, len(placed), settings)
        self._begun(job, rows, now)
        job = self._wishes(self.store.job(self.job_id), attempt, rows, settings, now)
        ends = {row.rank: end for row in rows if (end := self._end(row)) is not None}
        self._peers(job, rows, ends, now)
        if job.state is State.RUNNING:
            self._restarted(job, now)
        if not job.spec.is_gang:
            self._free_early(job, rows, ends, now)
        stopping = job.wish in ("cancel", "preempt", "timeout")
        if all(row.rank in ends or (row.state == "waiting" and stopping) for row in rows):
            return self._conclude(job, rows, list(ends.values()), now)
        return True

    def _conclude(self, job: Job, rows: list[Replica], ends: list[End], now: float) -> bool:
        """End the attempt; large outputs are hashed by a thread, and True says to look again."""
        outcome = judge(job.spec, ends, job.wish)
        collected = None
        if outcome.cause == "success" and job.spec.outputs:
            if self.collecting is None:
                self.collecting = ThreadPoolExecutor(1).submit(collect, self.home, job)
            try:
                collected = self.collecting.result(timeout=HASH_WAIT_S)
            except TimeoutError:
                return True
        self.take_metrics(rows)
        conclude(self.store, self.home, job, outcome, now, collected)
        return False

    # -- replicas

    def _files(self, rank: int) -> ReplicaFiles:
        return ReplicaFiles(self.home.rank(self.job_id, self.n, rank))

    def _see_to(self, job: Job, row: Replica, placed: int, settings: LocalSettings) -> None:
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
        """Return how a placed replica ended; None while it runs or waits."""
        files = self._files(row.rank)
        if row.state == "waiting":
            return None
        facts = files.exit()
        process = self.processes.get(row.rank)
        if facts is None:
            running = process is not None and process.poll() is None
            if running or files.alive():
                return None
            tried = self.spawns.get(row.rank, 0) >= SPAWNS
            if not files.begun() and not (tried and files.forbid()):
                return None
            if row.rank not in self.swept:
                sweep(
                    {
                        "UNDERSTUDY_JOB_ID": self.job_id,
                        "UNDERSTUDY_ATTEMPT": str(self.n),
                        "UNDERSTUDY_REPLICA": str(row.rank),
                    }
                )
                self.swept.add(row.rank)
            facts = files.exit()  # it may have ended while we looked
        elif process is not None:
            process.poll()
        return End(row.rank, row.role, facts)

    def _begun(self, job: Job, rows: list[Replica], now: float) -> None:
        """Move to RUNNING when all (of a gang) or one has begun."""
        if job.state is State.RUNNING:
            return
        begun = [row for row in rows if self._files(row.rank).begun()]
        if not begun or (job.spec.is_gang and len(begun) < len(rows)):
            return
        if job.state is State.RESTARTING and incomplete(self.folder) is not None:
            return  # workers of a new round are still to come
        start = self._files(begun[0].rank).start() or {}
        with self.store.transaction():
            if self.store.job(job.id).state in (State.STARTING, State.RESTARTING):
                self.store.move_inside(
                    job.id,
                    State.RUNNING,
                    now=now,
                    host=start.get("host", ""),
                    engine_ref=f"attempt-{self.n}",
                )
        for row in begun:
            self._check_clock(row.rank)

    def _check_clock(self, rank: int) -> None:
        skew, host = clock_skew_s(self._files(rank))
        if abs(skew) > CLOCK_SKEW_S:
            text = (
                f"the clock of {host} (rank {rank}) is {skew:+.1f} s off; events and lines are "
                "ordered by number, not by time."
            )
            self.store.note(self.job_id, "warning", text=text)

    # -- wishes

    def _wishes(
        self, job: Job, attempt: Attempt, rows: list[Replica], settings: LocalSettings, now: float
    ) -> Job:
        """Carry out what is wished, and what the clock demands."""
        spec = job.spec
        age = now - attempt.start
        if not job.wish:
            if job.state is State.STARTING and age > settings.start_deadline_s:
                return self._wish(job, "start_deadline", now)
            if spec.timeout_s is not None and age > spec.timeout_s:
                return self._wish(job, "timeout", now)
            if (
                spec.timeout_s is not None
                and spec.checkpoint.dir
                and age > spec.timeout_s - spec.checkpoint.grace_s
            ):
                self._signal(rows, getattr(signal, f"SIG{spec.checkpoint.signal}"))
            return job
        since = job.wish_t if job.wish_t is not None else now
        if job.wish == "preempt" and spec.checkpoint.dir:
            self._signal(rows, getattr(signal, f"SIG{spec.checkpoint.signal}"))
            since += spec.checkpoint.grace_s
            if now < since:
                return job
        grace = settings.grace_s if job.wish_grace_s is None else job.wish_grace_s
        self._terminate(rows, grace, now)
        return job

    def _wish(self, job: Job, wish: str, now: float) -> Job:
        """Record what is to be done, unless something is being done already."""
        with self.store.transaction():
            current = self.store.job(job.id)
            if not current.wish and not current.final:
                self.store.set_inside(job.id, wish=wish, wish_t=now)
                self.store.add_event(job.id, wish, now, {})
        return self.store.job(job.id)

    def _signal(self, rows: list[Replica], number: int) -> None:
        for row in rows:
            if row.state != "placed" or (row.rank, number) in self.sent:
                continue
            files = self._files(row.rank)
            # a wrapper that has not begun does not expect more than the end
            if files.exit() is None and (files.begun() or number == signal.SIGTERM):
                if files.send(number):
                    self.sent.add((row.rank, number))

    def _terminate(self, rows: list[Replica], grace_s: float, now: float) -> None:
        if self.term_at is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / STOP_FILE, {"grace_s": grace_s})
            self.term_at = now
        self._signal(rows, signal.SIGTERM)
        if now - self.term_at < grace_s + STUCK_S:
            return
        for row in rows:
            files = self._files(row.rank)
            if row.state == "placed" and files.exit() is None and files.alive():
                files.send(signal.SIGKILL)

    def _peers(self, job: Job, rows: list[Replica], ends: dict[int, End], now: float) -> None:
        """End the rest of a gang that has lost one of its replicas."""
        bad = [end for end in ends.values() if not end.ok]
        if not bad or job.wish or not job.spec.is_gang or len(ends) == len(rows):
            return
        if job.spec.elastic is not None and len(rows) - len(bad) >= job.spec.min_replicas:
            return
        self._wish(job, "stop", now)

    def _free_early(self, job: Job, rows: list[Replica], ends: dict[int, End], now: float) -> None:
        """Free what ended replicas of a job without a gang held."""
        done = [row.rank for row in rows if row.state == "placed" and row.rank in ends]
        if done and len(ends) < len(rows):
            with self.store.transaction():
                for rank in done:
                    release_inside(self.store, job.id, self.n, now, rank)

    # -- restarts by torchrun inside the attempt

    def _restarted(self, job: Job, now: float) -> None:
        """Record restarts that torchrun made, as RUNNING -> RESTARTING (-> RUNNING)."""
        if job.spec.launcher != "torchrun":
            return
        found = rounds(self.folder)
        for n in sorted(found):
            if n <= self.restarts:
                continue
            self.restarts = n
            with self.store.transaction():
                if self.store.job(job.id).state is not State.RUNNING:
                    return
                reason = f"torchrun restart {n}, {found[n][0]} workers"
                self.store.move_inside(job.id, State.RESTARTING, now=now, reason=reason)
                self.store.add_event(
                    job.id, "restart", now, {"attempt": self.n, "n": n, "world": found[n][0]}
                )
                if len(found[n][1]) >= found[n][0] or n < max(found):
                    self.store.move_inside(job.id, State.RUNNING, now=now)

    def take_metrics(self, rows: list[Replica]) -> None:
        """Take over what replicas have logged."""
        for row in rows:
            path = self._files(row.rank).folder / "metrics.jsonl"
            while ingest(self.store, self.job_id, path, row.rank):
                pass
