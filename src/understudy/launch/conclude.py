"""The end of an attempt, as one transaction: release, record, and move the job on."""

from __future__ import annotations

import time
from dataclasses import replace

from understudy.core.hashing import hash_data
from understudy.launch.content import content
from understudy.launch.cost import affords_another
from understudy.launch.home import Home
from understudy.launch.outcome import Outcome, retry_after_s
from understudy.launch.replica_plan import local_path
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Artefact, Job
from understudy.launch.state_slots import release_inside
from understudy.launch.states import State


def collect(home: Home, job: Job) -> tuple[list[Artefact], str]:
    """Return a finished job's artefacts, and the name of the first output that is missing."""
    out = (home.job(job.id) / "out").resolve()
    found = []
    for output in job.spec.outputs:
        path = out / output.path
        # a link must not make something outside the job's folder its output
        if not path.exists() or not path.resolve().is_relative_to(out):
            return [], output.name
        digest, size = content(path)
        found.append(
            Artefact(name=output.name, uri=str(path), sha256=digest, bytes=size, kind=output.kind)
        )
    return found, ""


def conclude(
    store: JobStore,
    home: Home,
    job: Job,
    outcome: Outcome,
    now: float | None = None,
    collected: tuple[list[Artefact], str] | None = None,
) -> State:
    """End a job's current attempt and return the state that the job is in then.

    Done twice, as after a crash, it changes nothing the second time.

    Args:
        store: the jobs.
        home: of all jobs.
        job: its record.
        outcome: how the attempt ended.
        now: seconds since 1970.
        collected: what `collect` gave, if it was asked already.
    """
    now = time.time() if now is None else now
    artefacts: list[Artefact] = []
    if outcome.cause == "success":
        artefacts, missing = collected or collect(home, job)
        if missing:
            outcome = Outcome("missing_output", f"missing_output {missing}", 0)
    with store.transaction() as db:
        current = store.job(job.id)
        if current.attempt != job.attempt or current.final or current.state is State.QUEUED:
            return current.state
        earlier = [a.cause for a in store.attempts(job.id) if a.n < job.attempt]
        release_inside(store, job.id, job.attempt, now)
        db.execute(
            'UPDATE attempts SET "end"=?, exit=?, reason=?, cause=? WHERE job=? AND n=?',
            (now, outcome.exit_code, outcome.reason, outcome.cause, job.id, job.attempt),
        )
        for a in artefacts:
            db.execute(
                "INSERT INTO artefacts VALUES(?, ?, ?, ?, ?, ?)",
                (job.id, a.name, a.uri, a.sha256, a.bytes, a.kind),
            )
            for source in job.spec.inputs:
                name = source.sha256 or hash_data([local_path(source.uri)])
                db.execute("INSERT OR IGNORE INTO lineage VALUES(?, ?, ?)",
                           (name, job.id, a.sha256))  # fmt: skip
        wait = retry_after_s(job.spec.retry, outcome.cause, earlier, job.id)
        if wait is not None and not affords_another(store, job.id, now):
            wait = None
            outcome = replace(outcome, reason=f"{outcome.reason}; the budget pays for no more")
        _move_on(store, current, outcome, wait, now)
        return store.job(job.id).state


def _move_on(store: JobStore, job: Job, outcome: Outcome, wait: float | None, now: float) -> None:
    """Make the moves that follow an outcome, inside the caller's transaction."""
    cause, facts = outcome.cause, {"reason": outcome.reason, "exit_code": outcome.exit_code}
    again = {} if wait is None else {
        "attempt": job.attempt + 1, "not_before": now + wait, "wish": "",
        "wish_t": None, "wish_grace_s": None,
    }  # fmt: skip

    def move(to: State, **columns: object) -> None:
        store.move_inside(job.id, to, now=now, **columns)  # type: ignore[arg-type]

    if cause in ("node_loss", "start_deadline"):
        move(State.LOST, **facts)
        if again:
            move(State.QUEUED, **facts, **again)
        else:
            move(State.FAILED, **facts)
        return
    if job.state is not State.RUNNING and cause != "cancel":
        # it began and ended between two looks
        move(State.RUNNING)
    if cause == "success":
        move(State.SUCCEEDED, exit_code=0)
    elif cause == "cancel":
        move(State.CANCELLED, **facts)
    elif cause == "preemption":
        move(State.PREEMPTED, **facts)
        if again:
            move(State.QUEUED, **facts, **again)
        else:
            move(State.CANCELLED, **facts)
    elif again:
        move(State.RESTARTING, **facts, **again)
    else:
        move(State.TIMED_OUT if cause == "timeout" else State.FAILED, **facts)
