"""Rows of the database of jobs as values."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from understudy.core.config import from_dict
from understudy.launch.spec import JobSpec
from understudy.launch.states import FINAL, State


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job's record. Times are seconds since 1970, None before they happen.

    Attributes:
        id: unique, begins with the name.
        key: what makes it the same job.
        name: of the spec.
        project: of the spec.
        spec_json: the spec as JSON.
        spec_hash: hash of spec and code.
        work_hash: hash of spec, code and contents of the inputs; set by pipelines.
        code_hash: content of the packed code.
        environment: variables taken over from where it was submitted, as JSON.
        demand: what each replica needs, as JSON.
        engine: its engine.
        engine_ref: what the engine calls it.
        checkpoints: folder of its checkpoints.
        retry_of: the job that this one repeats.
        state: where it is.
        attempt: number of the attempt, from 1.
        priority: of the spec.
        created: when it was recorded.
        queued: since when it waits, or waited last.
        not_before: earliest start.
        started: when it first ran.
        ended: when it became final.
        exit_code: of the replica that decided.
        reason: why it is where it is.
        host: where its first replica runs.
        wish: `cancel`, `preempt`, `timeout` or `stop`: what is being done to it.
        wish_t: since when.
        wish_grace_s: seconds from TERM to KILL.
        last_seq: number of its last event.
    """

    id: str
    key: str
    name: str
    project: str
    spec_json: str
    spec_hash: str
    work_hash: str
    code_hash: str
    environment: str
    demand: str
    engine: str
    engine_ref: str
    checkpoints: str
    retry_of: str
    state: State
    attempt: int
    priority: int
    created: float
    queued: float | None
    not_before: float
    started: float | None
    ended: float | None
    exit_code: int | None
    reason: str
    host: str
    wish: str
    wish_t: float | None
    wish_grace_s: float | None
    last_seq: int

    @classmethod
    def of(cls, row: sqlite3.Row) -> Job:
        """Return the record that a row of the table holds."""
        return cls(**{**dict(row), "state": State(row["state"])})

    @cached_property
    def spec(self) -> JobSpec:
        """The spec."""
        return from_dict(JobSpec, json.loads(self.spec_json), where=f"job {self.id}")

    @property
    def final(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in FINAL


JOB_COLUMNS = tuple(f.name for f in fields(Job))


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt of a job.

    Attributes:
        n: from 1.
        engine_ref: what the engine calls it.
        start: when its replicas were placed.
        end: when they had all ended.
        exit: exit code of the replica that decided.
        reason: why it ended.
        cause: `success`, `failure`, `preemption`, `timeout`, `node_loss` or `cancel`.
    """

    n: int
    engine_ref: str
    start: float
    end: float | None
    exit: int | None
    reason: str
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """One replica of an attempt.

    Attributes:
        attempt: of which attempt.
        rank: its number in the job.
        role: its role.
        state: `waiting` for room, `placed` (holds its resources) or `done`.
        vector: what it holds, by resource.
        gpus: indices of its accelerators.
        gpu_type: their model.
        placed: since when it holds its resources.
        released: until when.
    """

    attempt: int
    rank: int
    role: str
    state: str
    vector: dict[str, float]
    gpus: tuple[int, ...]
    gpu_type: str
    placed: float | None
    released: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One line of a job's history; order is by `seq`, clocks may jump.

    Attributes:
        seq: from 1.
        t: when, seconds since 1970.
        kind: `move` or what happened.
        facts: the rest.
    """

    seq: int
    t: float
    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """What a job left.

    Attributes:
        name: of the output.
        uri: where it is.
        sha256: of its content.
        bytes: its size.
        kind: of the output.
    """

    name: str
    uri: str
    sha256: str
    bytes: int
    kind: str


def attempt_of(row: sqlite3.Row) -> Attempt:
    """Return the attempt that a row holds."""
    return Attempt(**{k: row[k] for k in ("n", "engine_ref", "start", "end", "exit", "reason",
                                         "cause")})  # fmt: skip


def replica_of(row: sqlite3.Row) -> Replica:
    """Return the replica that a row holds."""
    return Replica(
        attempt=row["attempt"],
        rank=row["rank"],
        role=row["role"],
        state=row["state"],
        vector=json.loads(row["vector"]),
        gpus=tuple(json.loads(row["gpus"])),
        gpu_type=row["gpu_type"],
        placed=row["placed"],
        released=row["released"],
    )
