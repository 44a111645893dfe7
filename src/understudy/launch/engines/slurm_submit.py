"""From a waiting job to a job in Slurm, once; and from its start to a begun attempt."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from understudy.launch.engines.slurm_queue import Queue
from understudy.launch.engines.slurm_script import render
from understudy.launch.engines.slurm_settings import SlurmSettings
from understudy.launch.engines.slurm_units import Record, Unit, units
from understudy.launch.engines.slurm_watch import reference
from understudy.launch.replica_files import take_lock
from understudy.launch.replica_plan import write_plan
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import begin_inside
from understudy.launch.states import WAITING

if TYPE_CHECKING:
    from understudy.launch.engines.slurm import SlurmEngine

_NOT_HERE = "CUDA_VISIBLE_DEVICES"


def submit(
    engine: SlurmEngine, job: Job, unit: Unit, queue: Queue, settings: SlurmSettings
) -> None:
    """Submit a job to Slurm unless it is there already.

    The lock is inherited by `sbatch`: a controller that follows one that was killed waits until a
    submission under way is over, then looks for it by name.

    Raises:
        SlurmError: Slurm does not take it.
    """
    n = job.attempt
    path = unit.lock(n)
    path.parent.mkdir(parents=True, exist_ok=True)
    tried = path.exists()
    handle = take_lock(path, wait_s=0.0)
    if handle is None:
        return
    try:
        record = found(unit, n, queue) if tried else None
        if record is None:
            record = Record(id=_submitted(engine, job, unit, settings, handle), base=n)
        unit.keep(n, record)
    finally:
        os.close(handle)
    with engine.store.transaction():
        now = engine.store.job(job.id)
        wanted = now.state in WAITING and now.attempt == n
        if wanted:
            ref = reference(units(engine.home, job.id, job.spec), n)
            engine.store.set_inside(job.id, engine_ref=ref)
    if not wanted:  # cancelled meanwhile
        engine.client.cancel(record.id)


def found(unit: Unit, attempt: int, queue: Queue) -> Record | None:
    """Return a submission that was made and not written down; None if there was none.

    Raises:
        SlurmError: Slurm does not answer, so nobody knows.
    """
    begun = unit.begun(attempt)
    if begun is not None:
        return Record(id=begun[0], base=attempt)
    queue.refresh()
    if queue.error:
        from understudy.launch.engines.slurm_client import SlurmError

        raise SlurmError(f"{queue.error} Unable to contact Slurm; try again.")
    shown = queue.named(unit.name(attempt))
    return None if shown is None else Record(id=shown.id, base=attempt)


def _submitted(
    engine: SlurmEngine, job: Job, unit: Unit, settings: SlurmSettings, handle: int
) -> str:
    environment = json.loads(job.environment)
    environment.pop(_NOT_HERE, None)  # devices of the machine that submits
    clean = replace(job, environment=json.dumps(environment))
    for rank in unit.ranks:
        write_plan(
            engine.home,
            clean,
            rank,
            placed=job.spec.replicas,
            grace_s=settings.grace_s,
            heartbeat_s=settings.heartbeat_s,
            segment_bytes=settings.segment_bytes,
            segments=settings.segments,
            wake=str(engine.wake_pipe),
        )
    script = unit.script(job.attempt)
    script.write_text(
        render(
            job.spec,
            name=unit.name(job.attempt),
            folder=engine.home.job(job.id),
            base=job.attempt,
            python=sys.executable,
            rank=unit.rank,
            grace_s=settings.grace_s,
            longest_s=engine.site().longest_s(job.spec),
            privileged=engine.site().privileged,
        )
    )
    return engine.client.submit(script, environment, [handle])


def begin(
    store: JobStore, job: Job, every: Sequence[Unit], started: Sequence[Unit], now: float
) -> None:
    """Begin the attempt of a job that Slurm has started; done twice it changes nothing.

    Args:
        store: the jobs.
        job: its record.
        every: all its jobs in Slurm.
        started: those that have started, or ended without.
        now: seconds since 1970.
    """
    times = [t[1] for unit in started if (t := unit.begun(job.attempt)) is not None]
    chosen = {rank: () for unit in started for rank in unit.ranks}
    with store.transaction() as db:
        current = store.job(job.id)
        begun = db.execute(
            "SELECT 1 FROM attempts WHERE job=? AND n=?", (job.id, job.attempt)
        ).fetchone()
        if begun or current.state not in WAITING or current.attempt != job.attempt or current.wish:
            return
        begin_inside(
            store, current, chosen, min([now, *times]), reference(list(every), job.attempt)
        )
