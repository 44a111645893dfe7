"""Who fills a phase's columns: this process; `ray_workers` and `shared` have others do it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core import progress
from understudy.core.config import to_dict
from understudy.core.progress import Ledger
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import Batch, Phase, add_counts
from understudy.reinforce.prefetch import prefetch
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.unit import Gathering, UnitResult

if TYPE_CHECKING:
    from understudy.data.store import Job, Store, Unit


@dataclass
class Report:
    """What a reinforcement did.

    Attributes:
        rows: chosen rows.
        computed: rows computed by this run, summed over jobs; the rest was there.
        columns: columns that the configuration asks for, in the order they were written or found.
        bytes: Arrow bytes written by this run.
        seconds: wall seconds by part. `read`, `views` and `decode` run ahead in another thread and
            overlap with the teachers.
        unit_seconds: wall seconds of the units, as the cards' `seconds` add up.
        wall_seconds: of the whole run.
        counts: things that were counted, such as mended captions.
    """

    rows: int
    computed: int = 0
    columns: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    unit_seconds: float = 0.0
    wall_seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return to_dict(self)

    def add_unit(self, facts: Mapping[str, Any]) -> None:
        """Add what `unit_facts` says of a unit, seconds by part left out."""
        self.computed += facts["rows"]
        self.bytes += facts["bytes"]
        self.unit_seconds += facts["unit_seconds"]
        add_counts(self.counts, facts["counts"])


def unit_facts(result: UnitResult, unit_seconds: float) -> dict[str, Any]:
    """Return what is told of a unit, as plain data: rows, bytes, seconds, counts."""
    return {
        "rows": len(next(iter(result.columns.values()))),
        "bytes": sum(array.nbytes for array in result.columns.values()),
        "unit_seconds": unit_seconds,
        "seconds": dict(result.seconds),
        "counts": dict(result.counts),
    }


@dataclass
class Work:
    """A phase to fill.

    Attributes:
        store: what is reinforced.
        config: the reinforcement.
        phase: whose columns lack rows.
        rows: all chosen rows.
        report: counts what was done.
        ledger: counts where the time went.
        teachers: ready-made teachers by name, if there are any.
    """

    store: Store
    config: ReinforceConfig
    phase: Phase
    rows: np.ndarray
    report: Report
    ledger: Ledger
    teachers: Mapping[str, Teacher] | None = None

    @property
    def unit_rows(self) -> int:
        """Rows of a unit: whole batches, so that what a teacher sees at once does not change."""
        per_batch = getattr(self.phase, "rows_per_batch", self.config.batch_size)
        return -(-self.config.unit_rows // per_batch) * per_batch

    def job(self, phase: Phase | None = None, *, resume: bool = True) -> Job:
        """Return the store's job for the phase, or for a part of it."""
        phase = phase or self.phase
        return self.store.job(
            list(phase.cards.values()),
            phase.types,
            rows=self.rows,
            unit_rows=self.unit_rows,
            overwrite=self.config.overwrite,
            resume=resume,
        )

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what a unit took and gave to report and ledger."""
        self.report.add_unit(facts)
        for part, seconds in facts["seconds"].items():
            self.ledger.add(part, seconds)


class Filler:
    """Fills phases here, unit by unit, with images prepared ahead of the teachers."""

    def fill(self, work: Work) -> None:
        """Fill the phase's columns and commit them."""
        job = work.job()
        label = f"reinforce: {work.phase.name}"
        with (
            job,
            progress.bar(label, job.num_wanted, "rows", done=job.num_done) as bar,
            closing(_units(work.store, work.phase, job, bar)) as units,
        ):
            for unit, gathering, seconds in units:
                result = gathering.result()
                began = time.perf_counter()
                job.write(unit, result.columns, seconds=seconds, column_facts=result.column_facts)
                work.ledger.add("write", time.perf_counter() - began)
                work.add(unit_facts(result, seconds))
            began = time.perf_counter()
        work.ledger.add("commit", time.perf_counter() - began)
        work.store.refresh()

    def drop(self, store: Store, columns: Sequence[str]) -> None:
        """Drop columns that the rows have outgrown."""
        for column in columns:
            store.drop(column)


def _units(
    store: Store, phase: Phase, job: Job, bar: progress.Bar
) -> Generator[tuple[Unit, Gathering, float], None, None]:
    """Yield finished units with their wall seconds; images of later ones are prepared meanwhile."""

    def ahead() -> Iterator[tuple[Unit, Batch | None]]:
        for unit in job.todo():
            for batch in phase.read(store, job.rows(unit)):
                yield unit, batch
            yield unit, None

    gathering = Gathering(phase)
    began = time.perf_counter()
    with closing(prefetch(ahead())) as batches:
        for unit, batch in batches:
            if batch is not None:
                gathering.add(batch)
                bar.advance(len(batch.rows))
                continue
            yield unit, gathering, time.perf_counter() - began
            gathering = Gathering(phase)
            began = time.perf_counter()
