"""Which jobs in Slurm a job of ours is, and what is known about them from files alone.

attempt-N/slurm.sh              the script that was submitted for this attempt
attempt-N/slurm.json            number of the job in Slurm, and the attempt it was submitted for
attempt-N/slurm-begun.json      written by the script when it starts
attempt-N/slurm-told            what Slurm has told the script: `USR1 preempt`, `TERM outside`
attempt-N/rank-R/left           exit status of a replica's wrapper, however it left

A gang, or a job of one replica, is one job in Slurm. The replicas of other jobs are one each; their
files end in `-rR`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from understudy.core.errors import UnderstudyError
from understudy.core.files import read_json, write_json
from understudy.launch.engines.slurm_client import unit_name
from understudy.launch.home import Home
from understudy.launch.spec import JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is kept about a submission.

    Attributes:
        id: Slurm's number.
        base: the attempt that it was submitted for; its n-th requeue is attempt `base + n`.
    """

    id: str
    base: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One job in Slurm, as files of one attempt tell of it.

    Attributes:
        home: of all jobs.
        job: our id.
        ranks: its replicas.
        rank: the replica, if the job's replicas are separate jobs in Slurm.
    """

    home: Home
    job: str
    ranks: tuple[int, ...]
    rank: int | None = None

    def _file(self, attempt: int, stem: str, end: str = "") -> Path:
        suffix = "" if self.rank is None else f"-r{self.rank}"
        return self.home.attempt(self.job, attempt) / f"{stem}{suffix}{end}"

    def name(self, attempt: int) -> str:
        """Return its name in Slurm."""
        return unit_name(self.job, attempt, self.rank)

    def script(self, attempt: int) -> Path:
        """Return where its script is written."""
        return self._file(attempt, "slurm", ".sh")

    def lock(self, attempt: int) -> Path:
        """Return the lock that whoever submits it holds, `sbatch` itself included."""
        return self._file(attempt, "sbatch", ".lock")

    def record(self, attempt: int) -> Record | None:
        """Return its submission; None if there was none, or nobody has written it down."""
        try:
            facts = read_json(self._file(attempt, "slurm", ".json"))
            return Record(id=str(facts["id"]), base=int(facts["base"]))
        except (UnderstudyError, OSError, KeyError, TypeError, ValueError):
            return None

    def keep(self, attempt: int, record: Record) -> None:
        """Write its submission down."""
        path = self._file(attempt, "slurm", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"id": record.id, "base": record.base})

    def begun(self, attempt: int) -> tuple[str, float] | None:
        """Return Slurm's number and the time at which its script started; None before."""
        path = self._file(attempt, "slurm-begun", ".json")
        try:
            return str(read_json(path)["id"]), path.stat().st_mtime
        except (UnderstudyError, OSError, KeyError, TypeError):
            return None

    def told(self, attempt: int) -> str:
        """Return what Slurm told its script: words `preempt`, `limit`, `outside`; or nothing."""
        with contextlib.suppress(OSError):
            return self._file(attempt, "slurm-told").read_text()
        return ""


def units(home: Home, job: str, spec: JobSpec) -> list[Unit]:
    """Return the jobs in Slurm that a job of ours is."""
    if spec.is_gang or spec.replicas == 1:
        return [Unit(home, job, tuple(range(spec.replicas)))]
    return [Unit(home, job, (rank,), rank) for rank in range(spec.replicas)]
