"""What Slurm said last about all jobs of ours: one question for all, more only where it matters."""

from __future__ import annotations

import time

from understudy.launch.engines.slurm_client import (
    FINAL,
    SlurmClient,
    SlurmError,
    SlurmJob,
    parse_name,
)
from understudy.launch.engines.slurm_units import Record, Unit

GONE = "GONE"
"""Slurm has forgotten the job, and there is no accounting, or it does not know it either."""
REQUEUED = "REQUEUED"
"""The attempt is over: Slurm has queued the job again."""
NO_HISTORY = (
    "this Slurm keeps no accounting: sacct history is not available; how a job ended is known from "
    "its own exit.json."
)


class Queue:
    """The newest answer of `squeue`, and of `scontrol` and `sacct` about single jobs.

    Args:
        client: calls Slurm's programs.
    """

    def __init__(self, client: SlurmClient) -> None:
        self.client = client
        self.jobs: dict[str, SlurmJob] = {}
        self.error = "not asked yet"
        self.history = True
        self.asked_at = -float("inf")
        self._shown: dict[str, dict[str, str] | None] = {}
        self._past: dict[str, str] = {}

    def refresh(self) -> None:
        """Ask now; when Slurm does not answer the last answer stays, marked by `error`."""
        self.asked_at = time.monotonic()
        self._shown = {}
        try:
            self.jobs = {job.id: job for job in self.client.queue()}
            self.error = ""
        except SlurmError as error:
            self.error = str(error)

    def named(self, name: str) -> SlurmJob | None:
        """Return the job of this name; one that has not ended before one that has."""
        found = sorted(
            (job for job in self.jobs.values() if job.name == name),
            key=lambda job: (job.final, int(job.id) if job.id.isdigit() else 0),
        )
        return found[0] if found else None

    def of(self, job: str) -> list[SlurmJob]:
        """Return what Slurm has of a job of ours."""
        return [j for j in self.jobs.values() if (parse_name(j.name) or ("",))[0] == job]

    def state(self, number: str) -> str:
        """Return a job's state: from `squeue`, else `scontrol`, else `sacct`, else `GONE`.

        Empty when Slurm does not answer.
        """
        job = self.jobs.get(number)
        if job is not None:
            return job.state
        if self.error:
            return ""
        try:
            shown = self._show(number)
        except SlurmError:
            return ""
        if shown is not None:
            return shown.get("JobState", "").upper()
        if number not in self._past:
            self._past[number] = self._remembered(number)
        return self._past[number]

    def _remembered(self, number: str) -> str:
        try:
            past = self.client.history(number)
        except SlurmError:
            self.history = False
            return GONE
        return past if past in FINAL else GONE

    def _show(self, number: str) -> dict[str, str] | None:
        if number not in self._shown:
            self._shown[number] = self.client.show(number)
        return self._shown[number]

    def restarts(self, number: str) -> int:
        """Return how often Slurm has queued a job again; 0 if it does not say."""
        try:
            return int((self._show(number) or {}).get("Restarts", "0"))
        except (SlurmError, ValueError):
            return 0

    def verdict(self, unit: Unit, record: Record, attempt: int) -> str:
        """Return how an attempt that has begun is over in Slurm's eyes; empty while it is not.

        Args:
            unit: the job in Slurm.
            record: its submission.
            attempt: number of the attempt.

        Returns:
            a final state of Slurm, `REQUEUED` or `GONE`.
        """
        later = unit.begun(attempt + 1)
        if later is not None and later[0] == record.id:
            return REQUEUED
        state = self.state(record.id)
        if state in ("", "RUNNING", "CONFIGURING", "SUSPENDED"):
            return ""
        if self.restarts(record.id) > attempt - record.base:
            return REQUEUED
        return state if state in FINAL or state == GONE else ""
