"""Reservations: all replicas of a gang get their resources in one transaction, or none does."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job
from understudy.launch.states import WAITING, State

SLACK = 1e-9
"""Fractions of a core do not add up exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What an engine can give.

    Attributes:
        amounts: by resource name.
        gpu_types: model of each accelerator, by its index.
    """

    amounts: dict[str, float]
    gpu_types: tuple[str, ...] = ()


@dataclass(slots=True)
class Room:
    """What is free; taking from it is how a placement is tried."""

    free: dict[str, float]
    gpus: list[int] = field(default_factory=list)
    gpu_types: tuple[str, ...] = ()

    @classmethod
    def of(cls, capacity: Capacity) -> Room:
        """Return an empty machine."""
        count = int(capacity.amounts.get("gpu", 0))
        types = capacity.gpu_types or ("",) * count
        return cls(dict(capacity.amounts), list(range(count)), types)

    def take(self, vector: Mapping[str, float], gpu_type: str = "") -> tuple[int, ...] | None:
        """Take resources and return the indices of the accelerators; None if they do not fit."""
        if any(self.free.get(name, 0.0) + SLACK < amount for name, amount in vector.items()):
            return None
        want = int(vector.get("gpu", 0))
        fitting = [g for g in self.gpus if not gpu_type or self.gpu_types[g] == gpu_type]
        if len(fitting) < want:
            return None
        for name, amount in vector.items():
            self.free[name] -= amount
        chosen = tuple(fitting[:want])
        self.gpus = [g for g in self.gpus if g not in chosen]
        return chosen

    def give(self, vector: Mapping[str, float], gpus: tuple[int, ...] = ()) -> None:
        """Put resources back."""
        for name, amount in vector.items():
            self.free[name] = self.free.get(name, 0.0) + amount
        self.gpus = sorted({*self.gpus, *gpus})

    def copy(self) -> Room:
        """Return a copy to try things on."""
        return Room(dict(self.free), list(self.gpus), self.gpu_types)


def room(store: JobStore, capacity: Capacity, engine: str = "local") -> Room:
    """Return what is free now; inside a transaction it stays true until its end.

    Args:
        store: the jobs.
        capacity: all that the engine has.
        engine: whose jobs take from it.
    """
    left = Room.of(capacity)
    for row in _placed(store._db, engine):
        for name, amount in json.loads(row["vector"]).items():
            left.free[name] = left.free.get(name, 0.0) - amount
        held = set(json.loads(row["gpus"]))
        left.gpus = [g for g in left.gpus if g not in held]
    return left


def _placed(db: sqlite3.Connection, engine: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT job, rank, vector, gpus FROM replicas WHERE state='placed' AND "
        "(SELECT engine FROM jobs WHERE id=job)=?",
        (engine,),
    ).fetchall()


def fits(job: Job, left: Room) -> dict[int, tuple[int, ...]]:
    """Return the accelerators of each rank of a waiting job that would be placed now.

    A gang gets all (an elastic one as many as there is room for, its minimum at least) or none; the
    replicas of other jobs come one by one. `left` is used up accordingly.
    """
    trial = left.copy()
    chosen: dict[int, tuple[int, ...]] = {}
    for rank, need in enumerate(json.loads(job.demand)):
        got = trial.take(need["vector"], need["gpu_type"])
        if got is None:
            break
        chosen[rank] = got
    spec = job.spec
    least = spec.min_replicas if spec.is_gang or spec.replicas == 1 else 1
    if len(chosen) < least:
        return {}
    left.free, left.gpus = trial.free, trial.gpus
    return chosen


def place(store: JobStore, job_id: str, capacity: Capacity, now: float | None = None) -> bool:
    """Reserve for a waiting job and begin its attempt; False if it does not fit or does not wait.

    Exactly one of several racing processes wins the last room.

    Args:
        store: the jobs.
        job_id: a job in state QUEUED or RESTARTING.
        capacity: what there is altogether.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    with store.transaction() as db:
        job = store.job(job_id)
        begun = db.execute(
            "SELECT 1 FROM attempts WHERE job=? AND n=?", (job_id, job.attempt)
        ).fetchone()
        if job.state not in WAITING or job.wish or begun or job.not_before > now:
            return False
        chosen = fits(job, room(store, capacity, job.engine))
        if not chosen:
            return False
        begin_inside(store, job, chosen, now)
        return True


def begin_inside(
    store: JobStore,
    job: Job,
    chosen: Mapping[int, tuple[int, ...]],
    now: float,
    engine_ref: str = "",
) -> None:
    """Begin the attempt of a waiting job, inside the caller's transaction.

    Args:
        store: the jobs.
        job: its record.
        chosen: the accelerators of each rank that is placed; others of a job without a gang wait.
        now: seconds since 1970.
        engine_ref: what the engine calls the attempt.
    """
    store._db.execute(
        "INSERT INTO attempts(job, n, engine_ref, start) VALUES(?, ?, ?, ?)",
        (job.id, job.attempt, engine_ref or f"attempt-{job.attempt}", now),
    )
    for rank, need in enumerate(json.loads(job.demand)):
        if rank not in chosen and job.spec.is_gang:
            continue
        here = rank in chosen
        store._db.execute(
            "INSERT INTO replicas VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                job.id,
                job.attempt,
                rank,
                need["role"],
                "placed" if here else "waiting",
                json.dumps(need["vector"]),
                json.dumps(list(chosen.get(rank, ()))),
                need["gpu_type"],
                now if here else None,
            ),
        )
    if job.state is State.QUEUED:
        store.move_inside(job.id, State.STARTING, now=now)
    else:
        store.add_event(job.id, "placed", now, {"attempt": job.attempt})


def place_waiting(
    store: JobStore, job: Job, capacity: Capacity, now: float | None = None
) -> list[int]:
    """Place replicas of a running job (no gang) that wait for room; return their ranks."""
    now = time.time() if now is None else now
    done: list[int] = []
    with store.transaction() as db:
        if store.job(job.id).wish:
            return []
        left = room(store, capacity, job.engine)
        for replica in store.replicas(job.id, job.attempt):
            if replica.state != "waiting":
                continue
            got = left.take(replica.vector, replica.gpu_type)
            if got is None:
                break
            db.execute(
                "UPDATE replicas SET state='placed', placed=?, gpus=? WHERE job=? AND attempt=? "
                "AND rank=?",
                (now, json.dumps(list(got)), job.id, job.attempt, replica.rank),
            )
            done.append(replica.rank)
    return done


def release_inside(
    store: JobStore, job: str, attempt: int, now: float, rank: int | None = None
) -> None:
    """Free what an attempt (or one replica of it) holds, inside the caller's transaction."""
    store._db.execute(
        "UPDATE replicas SET state='done', released=? WHERE job=? AND attempt=? AND state!='done' "
        "AND (? IS NULL OR rank=?)",
        (now, job, attempt, rank, rank),
    )
