"""The record of all jobs: every move is one transaction that checks the table and adds an event."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.launch.spec import JobSpec
from understudy.launch.spec_diff import differences
from understudy.launch.state_reader import JobReader
from understudy.launch.state_rows import JOB_COLUMNS, Job
from understudy.launch.states import FINAL, State, check_move


class JobStore(JobReader):
    """The jobs of one home.

    Args:
        path: the database.
    """

    def __enter__(self) -> JobStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make everything in the block one transaction that no other writer can interleave.

        Transactions do not nest: inside, use the methods that say so.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- writing

    def submit(
        self,
        spec: JobSpec,
        *,
        engine: str,
        code: str = "",
        environment: dict[str, str] | None = None,
        checkpoints: str = "",
        retry_of: str = "",
        work_hash: str = "",
        now: float | None = None,
    ) -> tuple[Job, bool]:
        """Record a job in state CREATED, once for each key.

        Args:
            spec: the spec.
            engine: who will run it.
            code: content hash of its code.
            environment: variables taken over; never secrets.
            checkpoints: folder of checkpoints to share with an earlier job.
            retry_of: that earlier job.
            work_hash: see `Job`.
            now: seconds since 1970.

        Returns:
            the record, and whether it is new.

        Raises:
            ConfigError: the key exists with another spec; the message names the differences.
        """
        now = time.time() if now is None else now
        digest = spec.digest(code)
        key = spec.key or digest
        plain = to_dict(spec)
        with self.transaction() as db:
            row = db.execute("SELECT * FROM jobs WHERE key=?", (key,)).fetchone()
            if row is not None:
                found = Job.of(row)
                if found.spec_hash != digest:
                    detail = differences(
                        {**json.loads(found.spec_json), "code": found.code_hash},
                        {**plain, "code": code},
                    )
                    raise ConfigError(
                        f"key '{key}' exists with another spec hash, as job {found.id} (diff: "
                        f"{detail}); use another key, or the same spec."
                    )
                return found, False
            job = f"{spec.name.lower()}-{uuid.uuid4().hex[:8]}"
            demand = [
                {"role": r.name, "vector": r.resources.vector(), "gpu_type": r.resources.gpu_type}
                for r in spec.ranks()
            ]
            values = {
                "id": job,
                "key": key,
                "name": spec.name,
                "project": spec.project,
                "spec_json": json.dumps(plain),
                "spec_hash": digest,
                "work_hash": work_hash,
                "code_hash": code,
                "environment": json.dumps(environment or {}),
                "demand": json.dumps(demand),
                "engine": engine,
                "checkpoints": checkpoints,
                "retry_of": retry_of,
                "state": State.CREATED,
                "priority": spec.priority,
                "created": now,
            }
            names = ", ".join(values)
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO jobs({names}) VALUES({marks})", tuple(values.values()))
            self.add_event(job, "created", now, {"engine": engine, "retry_of": retry_of})
            return self.job(job), True

    def move(
        self, job: str, to: State, *, now: float | None = None, reason: str = "", **columns: Any
    ) -> None:
        """Move a job to another state, in a transaction of its own.

        Args:
            job: its id.
            to: the state.
            now: seconds since 1970.
            reason: why.
            **columns: other columns to set, such as `exit_code`.

        Raises:
            MoveError: the table does not have the move.
        """
        with self.transaction():
            self.move_inside(job, to, now=now, reason=reason, **columns)

    def move_inside(
        self, job: str, to: State, *, now: float | None = None, reason: str = "", **columns: Any
    ) -> None:
        """Move a job inside the caller's transaction; see `move`."""
        now = time.time() if now is None else now
        row = self._db.execute("SELECT state, started FROM jobs WHERE id=?", (job,))
        found = row.fetchone()
        if found is None:
            raise ConfigError(f"there is no job '{job}'.")
        before = State(found["state"])
        check_move(job, before, to)
        values: dict[str, Any] = {"state": to, "reason": reason, **columns}
        if to in FINAL:
            values |= {"ended": now, "wish": ""}
        if to is State.RUNNING and found["started"] is None:
            values["started"] = now
        if to is State.QUEUED:
            values["queued"] = now
        self.set_inside(job, **values)
        facts = {"from": before, "to": to}
        facts |= {"reason": reason} if reason else {}
        facts |= {k: v for k, v in columns.items() if k in ("attempt", "exit_code")}
        self.add_event(job, "move", now, facts)

    def set_inside(self, job: str, **columns: Any) -> None:
        """Set columns of a job inside the caller's transaction."""
        for name in columns:
            assert name in JOB_COLUMNS, name
        names = ", ".join(f"{name}=?" for name in columns)
        self._db.execute(f"UPDATE jobs SET {names} WHERE id=?", (*columns.values(), job))

    def add_event(self, job: str, kind: str, now: float, facts: dict[str, Any]) -> None:
        """Append an event inside the caller's transaction."""
        self._db.execute("UPDATE jobs SET last_seq=last_seq+1 WHERE id=?", (job,))
        self._db.execute(
            "INSERT INTO events(job, seq, t, kind, json) SELECT id, last_seq, ?, ?, ? FROM jobs "
            "WHERE id=?",
            (now, kind, json.dumps(facts), job),
        )

    def note(self, job: str, kind: str, **facts: Any) -> None:
        """Append an event in a transaction of its own."""
        with self.transaction():
            self.add_event(job, kind, time.time(), facts)

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a fact about the whole home."""
        self._db.execute(
            "INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET "
            "value=excluded.value",
            (key, json.dumps(value)),
        )
