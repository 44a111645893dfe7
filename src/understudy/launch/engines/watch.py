"""One active attempt: see that replicas start, watch them, carry out wishes, conclude.

What is the same wherever replicas run; how they are started, told and found gone is the engine's.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

from understudy.core.files import write_json
from understudy.launch.clocks import clock_warnings
from understudy.launch.conclude import collect, conclude
from understudy.launch.engines.settings import Settings
from understudy.launch.home import Home
from understudy.launch.outcome import End, Outcome, judge
from understudy.launch.replica import STOP_FILE
from understudy.launch.replica_files import ReplicaFiles, sweep
from understudy.launch.restarts import incomplete, rounds
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import ingest
from understudy.launch.state_rows import Artefact, Attempt, Job, Replica
from understudy.launch.state_slots import release_inside
from understudy.launch.states import State

HASH_WAIT_S = 0.2
WAITS = (State.STARTING, State.RESTARTING)
STUCK_S = 5.0
"""A wrapper that has not ended so long after it should have killed its command is killed."""


class Watch(ABC):
    """One attempt of one job, between its placement and its end.

    Holds nothing that the files, the database and the engine do not: a new controller makes a new
    one.

    Args:
        store: the jobs.
        home: of all jobs.
        job: the job, placed.
    """

    def __init__(self, store: JobStore, home: Home, job: Job) -> None:
        self.store, self.home, self.job_id, self.n = store, home, job.id, job.attempt
        self.folder = home.attempt(job.id, job.attempt)
        self.sent: set[tuple[int, int]] = set()
        self.term_at: float | None = None
        self.collecting: Future[tuple[list[Artefact], str]] | None = None
        self.restarts = max(
            (e.facts["n"] for e in store.events(job.id)
             if e.kind == "restart" and e.facts["attempt"] == job.attempt),
            default=0,
        )  # fmt: skip

    # -- what an engine gives

    @abstractmethod
    def _see_to(self, job: Job, placed: list[Replica], settings: Settings) -> None:
        """Start placed replicas that have not begun; doing it twice must be harmless."""

    @abstractmethod
    def _gone(self, row: Replica) -> bool:
        """Say whether a placed replica without `exit.json` will never write one."""

    @abstractmethod
    def _send(self, row: Replica, number: int) -> bool:
        """Send a signal to a replica's wrapper; False if it must be sent again."""

    def _running_since(self, attempt: Attempt, rows: list[Replica]) -> float | None:
        """Return since when the time limit counts; None: not yet."""
        return attempt.start

    def _ref(self) -> str:
        """Return what the engine calls this attempt."""
        return f"attempt-{self.n}"

    def _judge(self, job: Job, ends: list[End], now: float) -> Outcome | None:
        """Return how the attempt ended, all of whose replicas have; None to look again later."""
        return judge(job.spec, ends, job.wish)

    def _let_go(self, rows: list[Replica]) -> None:  # noqa: B027
        """Free what the engine may still hold for an attempt that is about to be concluded."""

    # -- the look

    def step(self, settings: Settings, now: float) -> bool:
        """Look once; return whether the attempt goes on."""
        job = self.store.job(self.job_id)
        if job.attempt != self.n or job.state not in (
            State.STARTING, State.RUNNING, State.RESTARTING
        ):  # fmt: skip
            return False
        attempt = self.store.attempts(job.id)[-1]
        rows = self.store.replicas(job.id, self.n)
        placed = [row for row in rows if row.state == "placed"]
        self._see_to(job, placed, settings)
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
        outcome = self._judge(job, ends, now)
        if outcome is None:
            return True
        collected = None
        if outcome.cause == "success" and job.spec.outputs:
            if self.collecting is None:
                self.collecting = ThreadPoolExecutor(1).submit(collect, self.home, job)
            try:
                collected = self.collecting.result(timeout=HASH_WAIT_S)
            except TimeoutError:
                return True
        self.take_metrics(rows)
        self._let_go(rows)
        conclude(self.store, self.home, job, outcome, now, collected)
        return False

    # -- replicas

    def _files(self, rank: int) -> ReplicaFiles:
        return ReplicaFiles(self.home.rank(self.job_id, self.n, rank))

    def _end(self, row: Replica) -> End | None:
        """Return how a placed replica ended; None while it runs or waits."""
        if row.state == "waiting":
            return None
        files = self._files(row.rank)
        facts = files.exit()
        if facts is None:
            if not self._gone(row):
                return None
            facts = files.exit()  # it may have ended while we looked
        return End(row.rank, row.role, facts)

    def _sweep(self, rank: int) -> None:
        """Kill what a replica that is gone has left on this machine."""
        sweep(
            {
                "UNDERSTUDY_JOB_ID": self.job_id,
                "UNDERSTUDY_ATTEMPT": str(self.n),
                "UNDERSTUDY_REPLICA": str(rank),
            }
        )

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
                    engine_ref=self._ref(),
                )
        self._check_clock(*(row.rank for row in begun))

    def _all_begun(self, rows: list[Replica]) -> bool:
        return all(self._files(row.rank).begun() for row in rows if row.state != "waiting")

    def _check_clock(self, *ranks: int) -> None:
        for text in clock_warnings({rank: self._files(rank) for rank in ranks}):
            self.store.note(self.job_id, "warning", text=text)

    # -- wishes

    def _wishes(
        self, job: Job, attempt: Attempt, rows: list[Replica], settings: Settings, now: float
    ) -> Job:
        """Carry out what is wished, and what the clock demands."""
        spec = job.spec
        if not job.wish:
            late = now - attempt.start > settings.start_deadline_s
            if late and job.state in WAITS and not self._all_begun(rows):
                return self._wish(job, "start_deadline", now)
            since = self._running_since(attempt, rows)
            age = 0.0 if since is None else now - since
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
                if self._send(row, number):
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
            if row.state == "placed" and files.exit() is None:
                self._send(row, signal.SIGKILL)

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
