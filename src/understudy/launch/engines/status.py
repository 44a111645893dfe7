"""Plans and statuses: what engines tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from understudy.launch.cost import spent
from understudy.launch.home import Home
from understudy.launch.replica_files import ReplicaFiles
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job, Replica
from understudy.launch.states import ACTIVE, State

LOST_AFTER_S = 60.0
"""Without a heartbeat for so long a replica is called silent; it is lost when it does not live."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a spec would do.

    Attributes:
        engine: where.
        spec_hash: hash of spec and code.
        commands: of each replica, before launcher and placeholders.
        resources: of each replica.
        gang: whether all start or none.
        code_files: files of code.
        code_bytes: their size.
        cost: of one attempt that takes its full time; None without a budget.
        worst_cost: of all attempts that failures allow.
        warnings: what is probably not meant.
    """

    engine: str
    spec_hash: str
    commands: tuple[tuple[str, ...], ...]
    resources: tuple[dict[str, float], ...]
    gang: bool
    code_files: int
    code_bytes: int
    cost: float | None
    worst_cost: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which jobs to list.

    Attributes:
        states: only in these; all if empty.
        name: only of this name.
        project: only of this project.
        limit: only so many, the newest.
    """

    states: tuple[State, ...] = ()
    name: str = ""
    project: str = ""
    limit: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaStatus:
    """Where one replica is.

    Attributes:
        rank: its number.
        role: its role.
        state: `waiting`, `starting`, `running`, `silent`, `gone` or `ended`.
        host: where it runs.
        pid: of its wrapper.
        heartbeat_age_s: since its last sign of life.
        exit: its `exit.json`.
    """

    rank: int
    role: str
    state: str
    host: str = ""
    pid: int | None = None
    heartbeat_age_s: float | None = None
    exit: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a job is. Times are seconds since 1970.

    Attributes:
        id: its id.
        name: its name.
        project: its project.
        state: its state.
        reason: why.
        exit_code: of the replica that decided.
        attempt: number of the attempt.
        engine: where it runs.
        engine_ref: what the engine calls it.
        priority: its priority.
        created: when it was recorded.
        queued: since when it waits, or waited last.
        started: when it first ran.
        ended: when it ended.
        not_before: earliest next start.
        wish: what is being done to it.
        retry_of: the job that it repeats.
        cost: spent so far; None without a budget.
        folder: its folder.
        replicas: of the current attempt; empty in lists.
        warnings: what somebody should look at.
    """

    id: str
    name: str
    project: str
    state: State
    reason: str
    exit_code: int | None
    attempt: int
    engine: str
    engine_ref: str
    priority: int
    created: float
    queued: float | None
    started: float | None
    ended: float | None
    not_before: float
    wish: str
    retry_of: str
    cost: float | None
    folder: str
    replicas: tuple[ReplicaStatus, ...] = ()
    warnings: tuple[str, ...] = ()


COLUMNS = (
    "id", "name", "project", "state", "reason", "exit_code", "attempt", "engine", "engine_ref",
    "priority", "created", "queued", "started", "ended", "not_before", "wish", "retry_of",
)  # fmt: skip


def summaries(store: JobStore, home: Home, engine: str, chosen: Filter) -> list[Status]:
    """Return the statuses of an engine's jobs from their records alone, newest first."""
    rows = store.rows(
        columns=COLUMNS,
        states=chosen.states,
        name=chosen.name,
        project=chosen.project,
        engine=engine,
        limit=chosen.limit,
    )
    states = {str(state): state for state in State}
    jobs = str(home.job(""))
    return [
        Status(
            **{**dict(zip(COLUMNS, row, strict=True)), "state": states[row["state"]]},
            cost=None,
            folder=f"{jobs}/{row['id']}",
        )
        for row in rows
    ]


def describe(store: JobStore, home: Home, job: Job, warnings: tuple[str, ...] = ()) -> Status:
    """Join a record with the files of its replicas.

    Args:
        store: the jobs.
        home: of all jobs.
        job: the record.
        warnings: of the engine, for jobs that are active.
    """
    replicas = tuple(_replica(home, job, row) for row in store.replicas(job.id, job.attempt))
    silent = [str(r.rank) for r in replicas if r.state == "silent"]
    if job.state not in ACTIVE:
        warnings = ()
    elif silent:
        told = f"no sign of life of rank {', '.join(silent)} for {LOST_AFTER_S:g} s"
        warnings = (told, *warnings)
    warnings += tuple(e.facts["text"] for e in store.events(job.id) if e.kind == "warning")
    budget = job.spec.budget
    cost = None
    if budget is not None:
        cost = spent(store.replicas(job.id), budget.rate_table, time.time())
    return Status(
        **{name: getattr(job, name) for name in COLUMNS},
        cost=cost,
        folder=str(home.job(job.id)),
        replicas=replicas,
        warnings=warnings,
    )


def _replica(home: Home, job: Job, row: Replica) -> ReplicaStatus:
    seen = ReplicaFiles(home.rank(job.id, row.attempt, row.rank))
    start, end = seen.start(), seen.exit()
    age = seen.heartbeat_age_s()
    if end is not None:
        state = "ended"
    elif row.state == "waiting":
        state = "waiting"
    elif row.state == "done":
        state = "gone"
    elif start is None:
        state = "starting"
    else:
        state = "silent" if age is not None and age > LOST_AFTER_S else "running"
    return ReplicaStatus(
        rank=row.rank,
        role=row.role,
        state=state,
        host=start["host"] if start else "",
        pid=start["pid"] if start else None,
        heartbeat_age_s=age if end is None else None,
        exit=end,
    )
