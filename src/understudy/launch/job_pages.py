"""Many jobs, a page at a time: counted by state and searched by words, inside the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from understudy.launch.engines.status import COLUMNS, Status
from understudy.launch.home import Home
from understudy.launch.state_reader import JobReader
from understudy.launch.states import State


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """A page of jobs of all engines, newest first.

    Attributes:
        jobs: from their records alone.
        total: how many jobs there are over all pages.
        counts: how many match the words, by state; states without any are left out.
    """

    jobs: tuple[Status, ...]
    total: int
    counts: dict[State, int]


def job_page(
    store: JobReader,
    home: Home,
    *,
    states: Sequence[State] = (),
    text: str = "",
    offset: int = 0,
    limit: int = 50,
) -> JobPage:
    """Return a page of jobs.

    Args:
        store: the records.
        home: of the jobs.
        states: only in these; all if empty.
        text: only those with this in their id, name or project, in any case.
        offset: how many to leave out.
        limit: how many to return.
    """
    where, values = "1", []
    if text:
        # the id begins with the name in lower case
        where = "(instr(id, ?) OR instr(lower(project), ?))"
        values = [text.lower()] * 2
    rows = store._db.execute(
        f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY state", values
    )
    counts = {State(row[0]): row[1] for row in rows}
    if states:
        where += f" AND state IN ({', '.join('?' * len(states))})"
        values += list(states)
    found = store._db.execute(
        f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {where} "
        "ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
        (*values, limit, offset),
    ).fetchall()
    jobs = str(home.job(""))
    return JobPage(
        jobs=tuple(
            Status(
                **{**dict(row), "state": State(row["state"])},
                cost=None,
                folder=f"{jobs}/{row['id']}",
            )
            for row in found
        ),
        total=sum(n for state, n in counts.items() if not states or state in states),
        counts=counts,
    )


def next_of(store: JobReader, job: str) -> list[str]:
    """Return the ids of the jobs that repeat a job, in order."""
    rows = store._db.execute("SELECT id FROM jobs WHERE retry_of=? ORDER BY created", (job,))
    return [row["id"] for row in rows]
