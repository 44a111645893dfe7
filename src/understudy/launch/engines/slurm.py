"""Jobs on a Slurm cluster: one `sbatch` each, every replica under the same wrapper as elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from understudy.core.errors import ConfigError
from understudy.launch.code import Code
from understudy.launch.engines.base import GRACE_S
from understudy.launch.engines.controlled import ControlledEngine
from understudy.launch.engines.slurm_client import SlurmClient, SlurmError, unit_name
from understudy.launch.engines.slurm_script import render
from understudy.launch.engines.slurm_settings import SlurmSettings, read_settings, write_settings
from understudy.launch.engines.slurm_site import Site, read_site, total
from understudy.launch.engines.slurm_submit import begin
from understudy.launch.engines.slurm_units import units
from understudy.launch.engines.status import Plan, Status
from understudy.launch.home import Home
from understudy.launch.replica_files import ReplicaFiles
from understudy.launch.spec import JobSpec
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import Capacity
from understudy.launch.states import WAITING

SITE_S = 60.0
"""How long what a cluster has is taken for granted."""


class SlurmEngine(ControlledEngine):
    """Runs jobs on Slurm, whose programs must be on PATH.

    The home must lie on a file system that the nodes share: files in it tell how replicas are.
    Slurm places and preempts; what is tried again, and as which attempt, is decided here.

    Args:
        home: the folder of all jobs.
    """

    name = "slurm"
    module = "understudy.launch.engines.slurm_controller"
    prefix = "slurm-controller"

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.client = SlurmClient()
        self._site: tuple[float, Site] | None = None

    def capabilities(self) -> frozenset[str]:
        """Return what it can do; `preempt` where the cluster does."""
        found = {"gang", "elastic", "gpu", "requeue", "queue", "options", "launcher:torchrun"}
        return frozenset(found | ({"preempt"} if self.site().preempts else set()))

    def site(self) -> Site:
        """Return what the cluster has and allows.

        Raises:
            ConfigError: Slurm is not installed here, or does not answer.
        """
        if self._site is None or time.monotonic() - self._site[0] > SITE_S:
            self._site = (time.monotonic(), read_site(self.client))
        return self._site[1]

    def capacity(self) -> Capacity:
        """Return what all nodes have together."""
        return total(list(self.site().nodes))

    def configure(self, settings: SlurmSettings) -> None:
        """Change times and sizes."""
        write_settings(self.store, settings)
        self.wake()

    def _plan(self, spec: JobSpec) -> tuple[Plan, Code | None, dict[str, str]]:
        self._site = None  # what is refused is refused by what the cluster says now
        warnings = self.site().check(spec)
        plan, code, environment = super()._plan(spec)
        self._test(spec, environment)
        return replace(plan, warnings=(*plan.warnings, *warnings)), code, environment

    def _test(self, spec: JobSpec, environment: Mapping[str, str]) -> None:
        """Have Slurm itself check the job: accounts, qos, limits and whatever the site adds."""
        settings = read_settings(self.store)
        for rank in [unit.rank for unit in units(self.home, "", spec)][:1]:
            text = render(
                spec,
                name=unit_name(f"{spec.name.lower()}-00000000", 1, rank),
                folder=self.home.root,
                base=1,
                python=sys.executable,
                rank=rank,
                grace_s=settings.grace_s,
                longest_s=self.site().longest_s(spec),
                privileged=self.site().privileged,
            )
            try:
                self.client.test(text, environment)
            except SlurmError as error:
                if not error.passes:
                    raise ConfigError(f"engine 'slurm' refuses the job: {error}") from None

    def cancel(self, job_id: str, grace_s: float = GRACE_S) -> Status:
        """Stop a job; one that waits in Slurm is taken out of its queue. See `Engine.cancel`."""
        job = self.store.job(job_id)
        if job.state in WAITING:
            self._hold(job)
        status = super().cancel(job_id, grace_s)
        if self.store.job(job_id).final and job.state in WAITING:
            for unit in units(self.home, job.id, job.spec):
                record = unit.record(job.attempt)
                if record is not None:
                    self.client.cancel(record.id)
            self.ensure_controller()  # for a submission that is under way
        return status

    def _hold(self, job: Job) -> None:
        """See that replicas of a waiting job never begin, or that those that have are recorded."""
        found = units(self.home, job.id, job.spec)
        started = []
        for unit in found:
            ranks = [ReplicaFiles(self.home.rank(job.id, job.attempt, r)) for r in unit.ranks]
            if not all([files.forbid() for files in ranks]):
                started.append(unit)
        if started:
            begin(self.store, job, found, started, time.time())


def open_slurm(home: str | Home, settings: SlurmSettings | None = None) -> SlurmEngine:
    """Return the Slurm engine of a home, with other settings if given."""
    engine = SlurmEngine(home if isinstance(home, Home) else Home.open(home))
    if settings is not None:
        engine.configure(settings)
    return engine
