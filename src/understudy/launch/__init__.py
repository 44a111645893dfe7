"""Jobs: one validated spec, a strict state machine in SQLite, thin engines.

This room knows commands and files, never models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.launch.spec import JobSpec


def submit(spec: JobSpec, engine: str = "local", home: str | Path | None = None) -> str:
    """Queue a job and return its id; the same key again returns the same job.

    Args:
        spec: what to run.
        engine: where: a name in `understudy.launch.engines.ENGINES`.
        home: the folder with the records of all jobs; see `understudy.launch.home`.

    Raises:
        ConfigError: the spec cannot run there, or its key exists with another spec.
    """
    from understudy.launch.engines import open_engine

    return open_engine(engine, home).submit(spec)
