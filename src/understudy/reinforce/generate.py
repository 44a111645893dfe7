"""Run a reinforcement: unit by unit, exactly once, with teachers that never wait for images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from understudy.core.progress import Ledger
from understudy.reinforce.cast import gather
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.fill import Filler, Report, Work
from understudy.reinforce.phases import Phases
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["Report", "reinforce"]


def reinforce(
    store: Store,
    config: ReinforceConfig,
    *,
    teachers: Mapping[str, Teacher] | None = None,
    filler: Filler | None = None,
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
        filler: who computes: this process by default, `ray_workers.RayWorkers` or
            `shared.SharedWork`. The content does not depend on it.

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
    filler = filler or Filler()
    with ledger.time("load teachers"):
        cast = gather(config, teachers)
        phases = Phases(store, config, cast)
    report = Report(rows=len(phases.rows), seconds=ledger.seconds)
    for phase in phases.jobs():
        filler.fill(Work(store, config, phase, phases.rows, report, ledger, teachers))
    stale = phases.stale_columns()
    if stale:
        filler.drop(store, stale)
    report.columns = phases.columns()
    report.wall_seconds = time.perf_counter() - start
    return report
