"""How an attempt ended, from the ends of its replicas and what was wished; and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.core.hashing import hash_data
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Retry

BACKOFF_CAP_S = 600.0
JITTER = 0.2
COUNTED = ("failure", "timeout", "node_loss")
"""Causes that use up `retry.max_failures`."""


@dataclass(frozen=True, slots=True)
class End:
    """How one replica ended.

    Attributes:
        rank: which.
        role: its role.
        facts: its `exit.json`; None if it is gone without one.
    """

    rank: int
    role: str
    facts: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.facts is not None and self.facts["code"] == 0

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self.facts is not None and bool(self.facts["stopped_by"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        cause: `success`, `cancel`, `timeout`, `preemption`, `start_deadline`, `failure` or
            `node_loss`.
        reason: in words.
        exit_code: of the replica that decided.
    """

    cause: str
    reason: str
    exit_code: int | None = None


def judge(spec: JobSpec, ends: Sequence[End], wish: str) -> Outcome:
    """Return the outcome of an attempt whose replicas have all ended.

    Args:
        spec: of the job.
        ends: of its replicas.
        wish: what was being done to it: `cancel`, `timeout`, `preempt`, `start_deadline`, `stop`
            (others of the gang had failed) or nothing.
    """
    good = sum(end.ok for end in ends)
    # told to end and ended well may be a job that saved its state on TERM: it is not done
    done = sum(end.ok and not end.stopped for end in ends)
    enough = done == len(ends) or (spec.elastic is not None and done >= spec.min_replicas)
    if ends and enough:
        return Outcome("success", "", 0)
    bad = [end for end in ends if not end.ok]
    code = _code(_first(bad)) if _known(bad) else None
    if wish == "cancel":
        return Outcome("cancel", "cancelled", code)
    if wish == "timeout":
        return Outcome("timeout", f"timeout after {spec.timeout_s:g} s", code)
    if wish == "preempt":
        return Outcome("preemption", "preempted", code)
    if wish == "start_deadline":
        return Outcome("start_deadline", "not all replicas started in time", code)
    lost = [end for end in bad if end.facts is None]
    # of a gang, those that were stopped because another one failed are not the reason
    failed = [end for end in _known(bad) if not end.stopped]
    if failed:
        return _failure(_first(failed))
    if lost:
        gone = ", ".join(str(end.rank) for end in lost)
        return Outcome("node_loss", f"rank {gone} is gone without a word")
    if good < len(ends):
        return _failure(_first(bad))
    return Outcome("failure", "ended by a signal from outside before its work was done", 0)


def _known(ends: Sequence[End]) -> list[End]:
    return [end for end in ends if end.facts is not None]


def _first(ends: Sequence[End]) -> End:
    return min(_known(ends), key=lambda end: end.facts["end"] if end.facts else 0.0)


def _code(end: End) -> int | None:
    return int(end.facts["code"]) if end.facts else None


def _failure(end: End) -> Outcome:
    reason = end.facts["reason"] if end.facts else "gone"
    return Outcome("failure", f"rank {end.rank} ({end.role}): {reason}", _code(end))


def backoff_s(first_s: float, failures: int, *seed: int | str) -> float:
    """Return the pause before the next attempt: doubled each time, capped, with jitter.

    Args:
        first_s: the first pause.
        failures: attempts that failed before, at least 1.
        *seed: what the jitter is drawn for, so that all who ask get the same.
    """
    uniform = int(hash_data(["backoff", *seed])[:13], 16) / 16**13
    # a float has no place for 2 ** 1024, and the cap comes long before
    base = min(first_s * 2.0 ** min(failures - 1, 100), BACKOFF_CAP_S)
    return base * (1 + JITTER * (2 * uniform - 1))


def retry_after_s(retry: Retry, cause: str, earlier: Sequence[str], job: str) -> float | None:
    """Return how long to wait before another attempt; None if there is none.

    Args:
        retry: the job's rules.
        cause: of the attempt that ended.
        earlier: causes of the attempts before it.
        job: its id, for the jitter.
    """
    if cause == "start_deadline":
        return 0.0
    if cause not in retry.on:
        return None
    if cause == "preemption":
        return 0.0
    failures = sum(c in COUNTED for c in earlier) + 1
    if failures > retry.max_failures:
        return None
    return backoff_s(retry.backoff_s, failures, job, failures)
