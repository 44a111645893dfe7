"""Reinforce by several runs of one command: they lease units in a folder that all of them see.

Each run goes through the same phases. A unit is taken by whoever leases it first, computed, and
left as a checksummed file beside the store; when all units of a phase are there, whoever leases the
commit makes them visible, and all go on to the next phase. Runs may come late, end early or be
killed: the lease of a dead run is taken over (`understudy.core.leases`), and a unit that two runs
compute, since one of them was only slow, is the same file twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.core import progress
from understudy.core.errors import DataError
from understudy.core.files import write_json
from understudy.core.leases import HEARTBEAT_S, LEASE_S, Leases
from understudy.reinforce.fill import Filler, Report, Work
from understudy.reinforce.parts import stage_unit

if TYPE_CHECKING:
    from understudy.data.store import Job, Store, Unit

POLL_S = 0.5
"""How often is looked whether others have finished."""
TRIES = 3
"""Commits that may leave rows out (a unit was damaged) before it is called an error."""


class SharedWork(Filler):
    """Fills phases together with all other runs that name the same folder.

    Args:
        folder: for leases, on a file system that all of them see; beside other files is no harm.
        heartbeat_s: see `Leases`.
        lease_s: see `Leases`.
        poll_s: how often is looked for what others did.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        lease_s: float = LEASE_S,
        poll_s: float = POLL_S,
    ) -> None:
        self.leases = Leases(Path(folder) / "leases", heartbeat_s=heartbeat_s, lease_s=lease_s)
        self.reports = Path(folder) / "reports"
        self.poll_s = poll_s
        self._tries: dict[str, int] = {}

    def __enter__(self) -> SharedWork:
        return self

    def __exit__(self, *rest: object) -> None:
        self.leases.close()

    def fill(self, work: Work) -> None:
        """Fill the phase's columns with the others; return when they are committed."""
        job, units, version = self._plan(work)
        label = f"reinforce: {work.phase.name}"
        with progress.bar(label, job.num_wanted, "rows", done=job.num_done) as bar:
            while not self._committed(work):
                if work.store.version != version:  # committed, but not all: a unit was damaged
                    job, units, version = self._plan(work)
                done = job.finished()
                open_units = [unit for unit in units if unit not in done]
                if open_units:
                    rows = self._compute_one(work, job, open_units, version)
                    bar.advance(rows)
                else:
                    rows = self._commit(work, job)
                if not rows:
                    time.sleep(self.poll_s)

    def _plan(self, work: Work) -> tuple[Job, list[Unit], int]:
        """Return the job, its units, and the version of the store that they belong to."""
        # what is committed decides, so that all runs have the same units
        job = work.job(resume=False)
        units = job.todo()
        # from places of their own on, so that runs seldom ask for the same lease
        start = random.randrange(len(units)) if units else 0
        return job, units[start:] + units[:start], work.store.version

    def _compute_one(self, work: Work, job: Job, units: Sequence[Unit], version: int) -> int:
        """Claim and compute one of some units; return its rows, 0 if others have them all."""
        for unit in units:
            name = f"{job.key}-{unit.start}-{unit.stop}"
            if not self.leases.take(name):
                continue
            try:
                # in this order: a unit is removed from the finished ones after its commit
                if unit in job.finished() or work.store.refresh().version != version:
                    return 0
                rows = job.rows(unit)
                facts = stage_unit(
                    work.store, work.phase, unit, rows, work.unit_rows, work.config.overwrite
                )
                work.add(facts)
                return len(rows)
            finally:
                self.leases.release(name)
        return 0

    def _commit(self, work: Work, job: Job) -> int:
        """Commit if nobody else does; return the rows that became visible."""
        name = f"{job.key}-commit"
        if not self.leases.take(name):
            return 0
        try:
            if self._committed(work):  # while this run was on its way here
                return 0
            with work.ledger.time("commit"):
                job.commit()
        finally:
            self.leases.release(name)
        if not self._committed(work):
            self._tries[job.key] = self._tries.get(job.key, 0) + 1
            if self._tries[job.key] >= TRIES:
                raise DataError(
                    f"{work.store.path}: finished units of {', '.join(work.phase.cards)} prove "
                    f"damaged again and again; look at the disk, and run the same command again."
                )
        return len(work.rows)

    def _committed(self, work: Work) -> bool:
        """Say whether all rows of the phase are visible."""
        store = work.store.refresh()
        for column, card in work.phase.cards.items():
            found = store.cards.get(column)
            if found is None or found.identity() != card.identity():
                return False
            if not store.filled(column)[work.rows].all():
                return False
        return True

    def drop(self, store: Store, columns: Sequence[str]) -> None:
        """Drop columns that the rows have outgrown, unless another run does."""
        name = "drop"
        while not self.leases.take(name):
            time.sleep(self.poll_s)
        try:
            for column in columns:
                if store.refresh().has(column):
                    store.drop(column)
        finally:
            self.leases.release(name)

    def leave(self, report: Report, name: str) -> None:
        """Leave this run's report for whoever started the runs."""
        write_json(self.reports / f"{name}.json", report.to_dict())


def merged(folder: str | Path) -> Report | None:
    """Return the reports that runs left, as one; None if there are none."""
    from understudy.core.config import from_dict
    from understudy.core.files import read_json

    paths = sorted((Path(folder) / "reports").glob("*.json"))
    reports = [from_dict(Report, read_json(path), str(path)) for path in paths]
    if not reports:
        return None
    total = Report(rows=reports[0].rows, columns=reports[0].columns)
    for report in reports:
        facts = {
            "rows": report.computed,
            "bytes": report.bytes,
            "unit_seconds": report.unit_seconds,
            "counts": report.counts,
        }
        total.add_unit(facts)
        total.wall_seconds = max(total.wall_seconds, report.wall_seconds)
        for part, seconds in report.seconds.items():
            total.seconds[part] = total.seconds.get(part, 0.0) + seconds
    return total
