"""Which waiting jobs start now: priority that grows with waiting, gangs whole, preemption.

A job that does not fit is overtaken by smaller ones behind it, until it has waited `drain_s`: then
nothing overtakes it, and the machine empties for it. Nothing starves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import Capacity, Room, fits, place, place_waiting, room
from understudy.launch.states import State

MISFITS = 200
"""A pass looks at so many jobs that do not fit; more are there only when the machine is full."""


def waiting(store: JobStore, settings: LocalSettings, now: float, engine: str) -> list[str]:
    """Return the jobs that may start now, first the one to try first."""
    rows = store._db.execute(
        "SELECT id, priority, queued, created, rowid FROM jobs j WHERE engine=? "
        "AND state IN (?, ?) AND wish='' AND not_before<=? AND NOT EXISTS "
        "(SELECT 1 FROM attempts a WHERE a.job=j.id AND a.n=j.attempt)",
        (engine, State.QUEUED, State.RESTARTING, now),
    ).fetchall()

    def rank(row: object) -> tuple[float, float, int]:
        since = row["queued"] or row["created"]  # type: ignore[index]
        grown = row["priority"] + max(now - since, 0.0) / settings.aging_s  # type: ignore[index]
        return -grown, since, row["rowid"]  # type: ignore[index]

    return [row["id"] for row in sorted(rows, key=rank)]


def next_start(store: JobStore, now: float, engine: str) -> float | None:
    """Return when the next job that pauses may start."""
    row = store._db.execute(
        "SELECT min(not_before) FROM jobs WHERE engine=? AND state IN (?, ?) AND not_before>?",
        (engine, State.QUEUED, State.RESTARTING, now),
    ).fetchone()
    return row[0]


def schedule(
    store: JobStore,
    capacity: Capacity,
    settings: LocalSettings,
    now: float | None = None,
    engine: str = "local",
) -> list[str]:
    """Place what fits, ask for room where priority gives the right to it; return the placed jobs.

    Args:
        store: the jobs.
        capacity: all that there is.
        settings: aging and draining.
        now: seconds since 1970.
        engine: whose jobs.
    """
    now = time.time() if now is None else now
    placed: list[str] = []
    for job in store.jobs(states=[State.STARTING, State.RUNNING], engine=engine):
        if any(r.state == "waiting" for r in store.replicas(job.id, job.attempt)):
            place_waiting(store, job, capacity, now)
    left = room(store, capacity, engine)
    misfits = 0
    for job_id in waiting(store, settings, now, engine):
        if misfits >= MISFITS or (left.free.get("cpu", 0.0) <= 0 and misfits > 20):
            break
        job = store.job(job_id)
        if fits(job, left):
            if place(store, job_id, capacity, now):
                placed.append(job_id)
            else:
                left = room(store, capacity, engine)
            continue
        misfits += 1
        if _make_room(store, job, left, now, engine):
            break  # what becomes free is this job's
        if now - (job.queued or job.created) > settings.drain_s:
            break
    return placed


def _make_room(store: JobStore, job: Job, left: Room, now: float, engine: str) -> bool:
    """Ask preemptible jobs of lower priority to go, as few as possible; say whether any does."""
    running = [
        other
        for other in store.jobs(states=[State.STARTING, State.RUNNING], engine=engine)
        if other.priority < job.priority and other.spec.preemptible
    ]
    going = [other for other in running if other.wish == "preempt"]
    trial = left.copy()
    for other in going:
        _give(store, trial, other)
    if fits(job, trial.copy()):
        return bool(going)
    order = sorted((o for o in running if not o.wish), key=lambda o: (o.priority, -o.created))
    chosen: list[Job] = []
    for other in order:
        _give(store, trial, other)
        chosen.append(other)
        if fits(job, trial.copy()):
            break
    else:
        return False
    for other in _needed(store, job, left, going, chosen):
        with store.transaction():
            if store.job(other.id).wish:
                continue
            store.set_inside(other.id, wish="preempt", wish_t=now)
            store.add_event(other.id, "preempt", now, {"for": job.id})
    return True


def _give(store: JobStore, free: Room, job: Job) -> None:
    for replica in store.replicas(job.id, job.attempt):
        if replica.state == "placed":
            free.give(replica.vector, replica.gpus)


def _needed(
    store: JobStore, job: Job, left: Room, going: Sequence[Job], chosen: list[Job]
) -> list[Job]:
    """Leave out those of the chosen without whom the job fits too."""
    for candidate in list(chosen):
        rest = [other for other in chosen if other is not candidate]
        trial = left.copy()
        for other in (*going, *rest):
            _give(store, trial, other)
        if fits(job, trial):
            chosen = rest
    return chosen
