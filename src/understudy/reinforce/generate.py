"""Run a reinforcement: unit by unit, exactly once, with teachers that never wait for images."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core import progress
from understudy.core.config import to_dict
from understudy.core.progress import Ledger
from understudy.reinforce.cast import gather
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import Batch, Phase, add_counts
from understudy.reinforce.phases import Phases
from understudy.reinforce.prefetch import prefetch
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.unit import Gathering

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


def reinforce(
    store: Store,
    config: ReinforceConfig,
    *,
    teachers: Mapping[str, Teacher] | None = None,
) -> Report:
    """Ask teachers about every chosen row of a store and store what they say.

    Three phases run one after the other: captions of plain images; views with everything that is
    said about them; embeddings of texts and captions. Each is a job of the store: killed at any
    moment, the same call goes on where it was and ends with the same content.

    Args:
        store: what is reinforced.
        config: views, teachers, captioners and storage.
        teachers: ready-made teachers by name, for those of the configuration that have been made
            already, and for those that only exist in Python. One that the configuration does not
            name is asked for what it can do.

    Returns:
        what was done and where the time went.

    Raises:
        ConfigError: a teacher does not fit the configuration, the views or the dataset.
        CardError: a column is the work of another teacher, configuration or seed.
        DataError: an image does not decode, or a teacher's answer for a sample is of no use; the
            message names the row.
    """
    start = time.perf_counter()
    ledger = Ledger()
    with ledger.time("load teachers"):
        cast = gather(config, teachers)
        phases = Phases(store, config, cast)
    report = Report(rows=len(phases.rows), seconds=ledger.seconds)
    for phase in phases.jobs():
        _run(store, config, phase, phases.rows, report, ledger)
    for column in phases.stale_columns():
        store.drop(column)
    report.columns = phases.columns()
    report.wall_seconds = time.perf_counter() - start
    return report


def _run(
    store: Store,
    config: ReinforceConfig,
    phase: Phase,
    rows: np.ndarray,
    report: Report,
    ledger: Ledger,
) -> None:
    """Run one job to its commit."""
    per_batch = getattr(phase, "rows_per_batch", config.batch_size)
    # whole batches in a unit: what a teacher sees together does not depend on the unit's size
    unit_rows = -(-config.unit_rows // per_batch) * per_batch
    job = store.job(
        list(phase.cards.values()),
        phase.types,
        rows=rows,
        unit_rows=unit_rows,
        overwrite=config.overwrite,
    )
    label = f"reinforce: {phase.name}"
    with (
        job,
        progress.bar(label, job.num_wanted, "rows", done=job.num_done) as bar,
        closing(_units(store, phase, job, bar)) as units,
    ):
        for unit, gathering, seconds in units:
            result = gathering.result()
            began = time.perf_counter()
            job.write(unit, result.columns, seconds=seconds, column_facts=result.column_facts)
            ledger.add("write", time.perf_counter() - began)
            for part, spent in result.seconds.items():
                ledger.add(part, spent)
            add_counts(report.counts, result.counts)
            report.unit_seconds += seconds
            report.bytes += sum(array.nbytes for array in result.columns.values())
            report.computed += len(next(iter(result.columns.values())))
        began = time.perf_counter()
    ledger.add("commit", time.perf_counter() - began)
    store.refresh()


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
