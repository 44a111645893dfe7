"""Where jobs live: one folder with the database, packed code and a folder per job.

jobs.db                           the records; see `understudy.launch.state_schema`
code/<hash>/                      packed code, by content
secrets/<NAME>                    values that specs name; yours to write, mode 600
jobs/<id>/work/                   the job's copy of its code; commands start here
jobs/<id>/out/                    what the job keeps: outputs are paths below it
jobs/<id>/checkpoints/
jobs/<id>/attempt-1/rank-0/       one replica: start.json, heartbeat, log-*.txt, exit.json
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "UNDERSTUDY_JOBS"
"""Environment variable that names the folder."""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of everything that belongs to jobs.

    Attributes:
        root: the folder.
    """

    root: Path

    @classmethod
    def open(cls, root: str | Path | None = None) -> Home:
        """Return the home at `root`, at `$UNDERSTUDY_JOBS`, or in the user's data folder."""
        if root is None:
            root = os.environ.get(VARIABLE) or None
        if root is None:
            data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
            root = Path(data).expanduser() / "understudy" / "jobs"
        home = cls(Path(root).expanduser().absolute())
        home.root.mkdir(parents=True, exist_ok=True)
        return home

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "jobs.db"

    @property
    def secrets(self) -> Path:
        """The folder of secret values, a file each."""
        return self.root / "secrets"

    def code(self, digest: str) -> Path:
        """Packed code of this content hash."""
        return self.root / "code" / digest

    def job(self, job_id: str) -> Path:
        """The folder of a job."""
        return self.root / "jobs" / job_id

    def attempt(self, job_id: str, attempt: int) -> Path:
        """The folder of one attempt of a job."""
        return self.job(job_id) / f"attempt-{attempt}"

    def rank(self, job_id: str, attempt: int, rank: int) -> Path:
        """The folder of one replica."""
        return self.attempt(job_id, attempt) / f"rank-{rank}"
