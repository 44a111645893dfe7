"""The states of a job and the moves between them; there are no others."""

from __future__ import annotations

from enum import StrEnum

from understudy.core.errors import UnderstudyError


class State(StrEnum):
    """Where a job is."""

    CREATED = "CREATED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    PREEMPTED = "PREEMPTED"
    RESTARTING = "RESTARTING"
    LOST = "LOST"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT})
"""States that never change."""
ACTIVE = frozenset({State.STARTING, State.RUNNING, State.RESTARTING})
"""States in which replicas may exist."""
WAITING = frozenset({State.QUEUED, State.RESTARTING})
"""States from which an engine places replicas."""

MOVES: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.QUEUED, State.CANCELLED, State.LOST}),
    State.QUEUED: frozenset({State.STARTING, State.CANCELLED, State.LOST}),
    State.STARTING: frozenset({State.RUNNING, State.CANCELLED, State.LOST}),
    State.RUNNING: frozenset(
        {
            State.SUCCEEDED,
            State.FAILED,
            State.CANCELLED,
            State.TIMED_OUT,
            State.PREEMPTED,
            State.RESTARTING,
            State.LOST,
        }
    ),
    State.PREEMPTED: frozenset({State.QUEUED, State.CANCELLED, State.LOST}),
    State.RESTARTING: frozenset({State.RUNNING, State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.QUEUED, State.FAILED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.TIMED_OUT: frozenset(),
}
"""What may follow each state."""


class MoveError(UnderstudyError):
    """A move that the table does not have."""


def check_move(job: str, before: State, after: State) -> None:
    """Raise `MoveError` unless `after` may follow `before`."""
    if after not in MOVES[before]:
        known = ", ".join(sorted(MOVES[before])) or "nothing: it is final"
        raise MoveError(f"job {job}: {after} cannot follow {before} (what can: {known}).")
