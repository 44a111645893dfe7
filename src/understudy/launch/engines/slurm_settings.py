"""How the Slurm engine behaves."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.config import from_dict, to_dict
from understudy.launch.engines.settings import Settings
from understudy.launch.spec_parts import check_range
from understudy.launch.state import JobStore

SETTINGS = "slurm.settings"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmSettings(Settings):
    """Times and sizes of the Slurm engine, besides those of every engine.

    Attributes:
        poll_s: how often the controller looks at the files of replicas.
        squeue_s: how often it asks Slurm, once for all jobs.
        exit_grace_s: a replica that Slurm calls ended may take so long to show its `exit.json`:
            shared file systems are late.
        requeue_at_once: a job that Slurm has queued again after a preemption is asked to be
            eligible now. Slurm itself makes it wait for two minutes.
    """

    poll_s: float = 1.0
    squeue_s: float = 5.0
    exit_grace_s: float = 30.0
    requeue_at_once: bool = True

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        check_range(self.squeue_s, 0, "settings.squeue_s", above=True)
        check_range(self.exit_grace_s, 0, "settings.exit_grace_s")


def read_settings(store: JobStore) -> SlurmSettings:
    """Return the settings that a home keeps."""
    return from_dict(SlurmSettings, store.meta(SETTINGS, {}), where=SETTINGS)


def write_settings(store: JobStore, settings: SlurmSettings) -> None:
    """Keep settings; a running controller takes them over."""
    store.set_meta(SETTINGS, to_dict(settings))
