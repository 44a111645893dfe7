"""What must hold of the record of jobs at every moment, whoever has just been killed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from chaos_processes import Process
from understudy.launch.engines.base import Engine
from understudy.launch.state_rows import Attempt, Event, Job, Replica
from understudy.launch.state_slots import room
from understudy.launch.states import ACTIVE, FINAL, MOVES, State

CAUSES = {"success", "cancel", "timeout", "preemption", "start_deadline", "failure", "node_loss"}
SETTLE_S = 3.0
"""A process that was killed is still seen for a moment; what is seen so long is there."""


def history(job: Job, events: list[Event]) -> list[str]:
    """Return what is wrong with the numbers and moves of a job's events."""
    wrong = []
    if [e.seq for e in events] != list(range(1, job.last_seq + 1)):
        wrong.append(f"events are not numbered 1 to {job.last_seq}: {[e.seq for e in events]}")
    state, attempt = State.CREATED, 1
    for event in events:
        if event.kind != "move":
            continue
        before, after = State(event.facts["from"]), State(event.facts["to"])
        if before is not state:
            wrong.append(f"event {event.seq} leaves {before}, but the job was {state}")
        if after not in MOVES[before]:
            wrong.append(f"event {event.seq}: {after} cannot follow {before}")
        number = event.facts.get("attempt", attempt)
        if number not in (attempt, attempt + 1):
            wrong.append(f"event {event.seq}: attempt {number} follows {attempt}")
        state, attempt = after, number
    if (state, attempt) != (job.state, job.attempt):
        wrong.append(f"the record says {job.state}, attempt {job.attempt}; its events say {state}, "
                     f"attempt {attempt}")  # fmt: skip
    return wrong


def tries(job: Job, attempts: list[Attempt], replicas: list[Replica]) -> list[str]:
    """Return what is wrong with a job's attempts and replicas."""
    wrong = []
    numbers = [a.n for a in attempts]
    if numbers != list(range(1, len(attempts) + 1)) or len(attempts) not in (
        job.attempt - 1, job.attempt,
    ):  # fmt: skip
        wrong.append(f"attempts {numbers} of a job whose attempt is {job.attempt}")
    for a in attempts:
        ended = a.end is not None
        must = a.n < job.attempt or job.final
        if must and not ended:
            wrong.append(f"attempt {a.n} has not ended, the job has gone on")
        if ended and a.cause not in CAUSES:
            wrong.append(f"attempt {a.n} ended by '{a.cause}'")
        if (a.cause == "success") != (job.state is State.SUCCEEDED and a.n == job.attempt):
            wrong.append(f"attempt {a.n} ended by '{a.cause}', the job is {job.state}")
        rows = [r for r in replicas if r.attempt == a.n]
        if [r.rank for r in rows] != list(range(job.spec.replicas)):
            wrong.append(f"attempt {a.n} has ranks {[r.rank for r in rows]}")
        if job.spec.is_gang and len({r.state for r in rows}) > 1:
            wrong.append(f"attempt {a.n} is a gang in parts: {[r.state for r in rows]}")
    for r in replicas:
        if r.state == "placed" and (r.attempt != job.attempt or job.state not in ACTIVE):
            wrong.append(f"rank {r.rank} of attempt {r.attempt} holds its place, the job is "
                         f"{job.state}, attempt {job.attempt}")  # fmt: skip
    return wrong


def twice(processes: Iterable[Process]) -> set[str]:
    """Return replicas that are there twice: two commands, or processes of two attempts."""
    commands: dict[tuple[str, int], set[int]] = defaultdict(set)
    attempts: dict[tuple[str, int], set[int]] = defaultdict(set)
    for p in processes:
        if p.role == "command":
            commands[p.job, p.rank].add(p.pid)
        if p.role != "wrapper":
            attempts[p.job, p.rank].add(p.attempt)
    found = {f"{j}: two commands of rank {r}" for (j, r), s in commands.items() if len(s) > 1}
    return found | {
        f"{j}: rank {r} lives in attempts {sorted(s)}" for (j, r), s in attempts.items()
        if len(s) > 1
    }  # fmt: skip


class Checker:
    """Looks at everything, and remembers what must not change any more.

    Args:
        engine: of the jobs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ended: dict[str, tuple[object, ...]] = {}
        self.looks = 0

    def record(self) -> list[str]:
        """Return what is wrong with the record, in one look at all of it."""
        store, wrong = self.engine.store, []
        self.looks += 1
        with store.transaction():
            free = room(store, self.engine.capacity(), self.engine.name).free
            for job in store.jobs(engine=self.engine.name):
                found = history(job, store.events(job.id))
                found += tries(job, store.attempts(job.id), store.replicas(job.id))
                done = [a.name for a in store.artefacts(job.id)]
                expected = sorted(o.name for o in job.spec.outputs)
                if done != (expected if job.state is State.SUCCEEDED else []):
                    found.append(f"artefacts {done}, the job is {job.state}")
                found += self._final(job)
                wrong += [f"{job.id}: {text}" for text in found]
        wrong += [f"{name} is given out twice: {left:g} left" for name, left in free.items()
                  if left < -1e-6]  # fmt: skip
        return wrong

    def _final(self, job: Job) -> list[str]:
        if job.state not in FINAL:
            return [f"was {self.ended[job.id][0]}, is {job.state}"] if job.id in self.ended else []
        facts = (job.state, job.attempt, job.exit_code, job.reason, job.ended)
        before = self.ended.setdefault(job.id, facts)
        return [f"ended as {before}, is {facts}"] if before != facts else []

    def files(self, folder: Path) -> list[str]:
        """Return what replicas have left that is neither whole nor absent."""
        wrong = []
        for path in folder.glob("attempt-*/rank-*/*.json"):
            try:
                json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError:
                wrong.append(f"{path} is not whole")
        return wrong

    def processes(self, look: Callable[[], list[Process]]) -> list[str]:
        """Return replicas that live twice, seen for longer than it takes to die."""
        end = time.monotonic() + SETTLE_S
        seen = twice(look())
        while seen and time.monotonic() < end:
            time.sleep(0.05)
            seen &= twice(look())
        return sorted(seen)
