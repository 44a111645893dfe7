"""One active attempt on Slurm: its replicas are tasks of a job there, their files the truth.

What Slurm does by itself shows in three places: its states, the number of restarts, and what the
job's script notes when it is told something (`slurm-told`). Only who has no `exit.json`, or was
stopped by somebody else than us, needs Slurm's word; all other ends are judged by files alone.
"""

from __future__ import annotations

import json
import signal
import time

from understudy.launch.engines.settings import Settings
from understudy.launch.engines.slurm_queue import GONE, NO_HISTORY, REQUEUED, Queue
from understudy.launch.engines.slurm_settings import SlurmSettings
from understudy.launch.engines.slurm_units import Unit, units
from understudy.launch.engines.watch import Watch
from understudy.launch.home import Home
from understudy.launch.outcome import End, Outcome, judge
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job, Replica

RESEND_S = 1.0
"""A replica that had not begun when TERM came is told again."""
WORD_S = 10.0
TAIL_CHARS = 400


class SlurmWatch(Watch):
    """One attempt of one job on Slurm; see `Watch`.

    Args:
        store: the jobs.
        home: of all jobs.
        job: the job, begun.
        queue: what Slurm says.
        settings: times.
    """

    def __init__(
        self, store: JobStore, home: Home, job: Job, queue: Queue, settings: SlurmSettings
    ) -> None:
        super().__init__(store, home, job)
        self.queue = queue
        self.exit_grace_s = settings.exit_grace_s
        self.units = units(home, job.id, job.spec)
        self.by_rank = {rank: unit for unit in self.units for rank in unit.ranks}
        self.told_at: dict[tuple[int | None, int], float] = {}
        self.over_at: dict[int, float] = {}
        self.stopped_at: float | None = None

    # -- what the engine gives

    def _see_to(self, job: Job, placed: list[Replica], settings: Settings) -> None:
        """Take over which replicas of a job without a gang Slurm has started."""
        if len(self.units) == 1:
            return
        begun = {row.rank for row in placed}
        for row in self.store.replicas(self.job_id, self.n):
            unit = self.by_rank[row.rank]
            if row.state != "waiting" or row.rank in begun:
                continue
            if unit.begun(self.n) or self._verdict(unit):
                with self.store.transaction() as db:
                    db.execute(
                        "UPDATE replicas SET state='placed', placed=?, gpus=? WHERE job=? AND "
                        "attempt=? AND rank=? AND state='waiting'",
                        (time.time(), json.dumps([]), self.job_id, self.n, row.rank),
                    )

    def _verdict(self, unit: Unit) -> str:
        record = unit.record(self.n)
        return "" if record is None else self.queue.verdict(unit, record, self.n)

    def _gone(self, row: Replica) -> bool:
        files = self._files(row.rank)
        if (files.folder / "left").exists():
            return True
        if not self._verdict(self.by_rank[row.rank]):
            return False
        since = self.over_at.setdefault(row.rank, time.monotonic())
        return time.monotonic() - since >= self.exit_grace_s

    def _send(self, row: Replica, number: int) -> bool:
        """Tell the script of a replica's job, which hands it on to all of its replicas."""
        unit = self.by_rank[row.rank]
        record = unit.record(self.n)
        if record is None:
            return False
        if number == signal.SIGKILL:
            if (unit.rank, number) not in self.told_at:
                self.queue.client.cancel(record.id)
                self.told_at[unit.rank, number] = time.monotonic()
            return True
        begun = self._files(row.rank).begun()
        last = self.told_at.get((unit.rank, number))
        if last is None or (not begun and time.monotonic() - last > RESEND_S):
            name = signal.Signals(number).name.removeprefix("SIG")
            if not self.queue.client.signal(record.id, name):
                return False
            self.told_at[unit.rank, number] = time.monotonic()
        return begun

    def _ref(self) -> str:
        return reference(self.units, self.n)

    # -- how it ended

    def _told(self) -> bool:
        """Say whether Slurm has announced a preemption, or the end."""
        told = " ".join(unit.told(self.n) for unit in self.units)
        return "preempt" in told or "outside" in told

    def _peers(self, job: Job, rows: list[Replica], ends: dict[int, End], now: float) -> None:
        """Leave the rest of a gang alone while Slurm is ending it: what we stop is not requeued."""
        bad = [end for end in ends.values() if not end.ok]
        if bad and self._told():
            return
        if bad and all(end.stopped for end in bad):
            # Slurm tells replicas and script at once; wait for the word of the script
            self.stopped_at = self.stopped_at or time.monotonic()
            if time.monotonic() - self.stopped_at < WORD_S:
                return
        super()._peers(job, rows, ends, now)

    def _judge(self, job: Job, ends: list[End], now: float) -> Outcome | None:
        found = judge(job.spec, ends, job.wish)
        if found.cause == "success" or job.wish not in ("", "stop"):
            return found
        lost = any(end.facts is None for end in ends)
        outside = self._told() or (not job.wish and any(end.stopped for end in ends))
        if not lost and not outside:
            return found
        verdicts = [v for unit in self.units if (v := self._verdict(unit))]
        if not verdicts and (outside or not self._left(ends)):
            return None  # Slurm has not made up its mind
        return self._after(verdicts, found, outside)

    def _left(self, ends: list[End]) -> bool:
        """Say whether whoever is lost has left in sight of its shell."""
        return all((self._files(e.rank).folder / "left").exists() for e in ends if not e.facts)

    def _after(self, verdicts: list[str], found: Outcome, outside: bool) -> Outcome:
        """Return the outcome that Slurm's word makes of what the files say."""
        code = found.exit_code
        if "PREEMPTED" in verdicts or (REQUEUED in verdicts and outside):
            return Outcome("preemption", "preempted by Slurm", code)
        if "TIMEOUT" in verdicts or "DEADLINE" in verdicts:
            return Outcome("timeout", "stopped at Slurm's own time limit", code)
        if "CANCELLED" in verdicts:
            return Outcome("cancel", "cancelled in Slurm, by somebody else", code)
        if "OUT_OF_MEMORY" in verdicts:
            return Outcome("failure", "out of memory, says Slurm", code)
        if "NODE_FAIL" in verdicts or "BOOT_FAIL" in verdicts:
            return Outcome("node_loss", "a node failed, says Slurm", code)
        return found

    def _let_go(self, rows: list[Replica]) -> None:
        """Keep a requeued job for the next attempt, and end what has not begun."""
        waiting = {row.rank for row in rows if row.state == "waiting"}
        lost = [r.rank for r in rows if r.state == "placed" and not self._files(r.rank).exit()]
        for unit in self.units:
            record = unit.record(self.n)
            if record is None:
                continue
            if unit.rank is None and self._verdict(unit) == REQUEUED:
                unit.keep(self.n + 1, record)
            elif unit.rank in waiting:
                self._files(unit.ranks[0]).forbid()
                self.queue.client.cancel(record.id)
        if lost:
            self._say_why(lost)

    def _say_why(self, lost: list[int]) -> None:
        """Note what Slurm's own output says about replicas that are gone without a word."""
        texts = []
        for unit in self.units:
            record = unit.record(self.n)
            path = self.home.job(self.job_id) / f"slurm-{record.id if record else ''}.out"
            if path.exists() and set(unit.ranks) & set(lost):
                texts.append(path.read_text(errors="replace")[-TAIL_CHARS:].strip())
        if any(self._verdict(unit) == GONE for unit in self.units) and not self.queue.history:
            texts.append(NO_HISTORY)
        if any(texts):
            text = "; ".join(" / ".join(t.splitlines()) for t in texts if t)
            self.store.note(self.job_id, "warning", text=f"attempt {self.n} on Slurm: {text}")


def reference(found: list[Unit], attempt: int) -> str:
    """Return Slurm's numbers of an attempt, as people see them."""
    records = [unit.record(attempt) for unit in found]
    return ",".join(record.id for record in records if record is not None)
