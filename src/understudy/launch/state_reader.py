"""Reading the record of all jobs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError
from understudy.launch.state_rows import (
    Artefact,
    Attempt,
    Event,
    Job,
    Replica,
    attempt_of,
    replica_of,
)
from understudy.launch.state_schema import connect
from understudy.launch.states import State


class JobReader:
    """The jobs of one home, to look at; `JobStore` also writes.

    One object belongs to one thread; any number of processes may have one.

    Args:
        path: the database.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._db = connect(path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def meta(self, key: str, default: Any = None) -> Any:
        """Return a fact about the whole home."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return default if row is None else json.loads(row["value"])

    def changes(self) -> int:
        """Return a number that differs after another process has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def own_changes(self) -> int:
        """Return how many rows this object has written."""
        return self._db.total_changes

    def job(self, job: str) -> Job:
        """Return a record.

        Raises:
            ConfigError: there is no such job.
        """
        row = self._db.execute("SELECT * FROM jobs WHERE id=?", (job,)).fetchone()
        if row is None:
            raise ConfigError(f"there is no job '{job}'. `understudy job list` shows those that "
                              "there are.")  # fmt: skip
        return Job.of(row)

    def find(self, prefix: str) -> Job:
        """Return the record whose id, or a prefix that only it has, is given.

        A name stands for the newest job of that name.

        Raises:
            ConfigError: none or several have it.
        """
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE substr(id, 1, ?)=? ORDER BY created DESC LIMIT 6",
            (len(prefix), prefix),
        ).fetchall()
        exact = [row for row in rows if row["id"] == prefix]
        if not exact:
            exact = self._db.execute(
                "SELECT * FROM jobs WHERE name=? ORDER BY created DESC, rowid DESC LIMIT 1",
                (prefix,),
            ).fetchall()
        rows = exact or rows
        if len(rows) > 1:
            shown = ", ".join(row["id"] for row in rows[:5])
            raise ConfigError(f"'{prefix}' begins several jobs ({shown}); give more letters.")
        return Job.of(rows[0]) if rows else self.job(prefix)

    def jobs(self, **where: Any) -> list[Job]:
        """Return records, newest first; see `rows`."""
        return [Job.of(row) for row in self.rows(**where)]

    def rows(
        self,
        *,
        columns: Sequence[str] = ("*",),
        states: Sequence[State] = (),
        name: str = "",
        project: str = "",
        engine: str = "",
        work_hash: str = "",
        limit: int | None = None,
    ) -> list[sqlite3.Row]:
        """Return columns of records, newest first.

        Args:
            columns: which.
            states: only in these.
            name: only of this name.
            project: only of this project.
            engine: only of this engine.
            work_hash: only of this work.
            limit: only so many.
        """
        where, values = ["1"], []
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += list(states)
        for column, value in (
            ("name", name),
            ("project", project),
            ("engine", engine),
            ("work_hash", work_hash),
        ):
            if value:
                where.append(f"{column}=?")
                values.append(value)
        text = (
            f"SELECT {', '.join(columns)} FROM jobs WHERE {' AND '.join(where)} "
            f"ORDER BY created DESC, rowid DESC LIMIT {-1 if limit is None else int(limit)}"
        )
        return self._db.execute(text, values).fetchall()

    def events(self, job: str, after: int = 0) -> list[Event]:
        """Return a job's events from number `after` + 1 on, in order."""
        rows = self._db.execute(
            "SELECT * FROM events WHERE job=? AND seq>? ORDER BY seq", (job, after)
        )
        return [
            Event(seq=r["seq"], t=r["t"], kind=r["kind"], facts=json.loads(r["json"])) for r in rows
        ]

    def attempts(self, job: str) -> list[Attempt]:
        """Return a job's attempts, in order."""
        rows = self._db.execute("SELECT * FROM attempts WHERE job=? ORDER BY n", (job,))
        return [attempt_of(row) for row in rows]

    def replicas(self, job: str, attempt: int | None = None) -> list[Replica]:
        """Return a job's replicas, of one attempt or of all."""
        rows = self._db.execute(
            "SELECT * FROM replicas WHERE job=? AND (? IS NULL OR attempt=?) ORDER BY attempt, "
            "rank",
            (job, attempt, attempt),
        )
        return [replica_of(row) for row in rows]

    def artefacts(self, job: str) -> list[Artefact]:
        """Return what a job left."""
        rows = self._db.execute("SELECT * FROM artefacts WHERE job=? ORDER BY name", (job,))
        return [Artefact(**{k: r[k] for k in ("name", "uri", "sha256", "bytes", "kind")})
                for r in rows]  # fmt: skip

    def lineage(self, job: str) -> list[tuple[str, str]]:
        """Return (source, product) pairs of a job's artefacts."""
        rows = self._db.execute(
            "SELECT src_artefact, dst_artefact FROM lineage WHERE job=? ORDER BY 1, 2", (job,)
        )
        return [(row[0], row[1]) for row in rows]
