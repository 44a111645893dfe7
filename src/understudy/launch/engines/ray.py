"""Jobs on a Ray cluster, through its job server; see `ray_watch` for what runs there."""

from __future__ import annotations

import sys
from dataclasses import replace

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.launch.code import Code
from understudy.launch.engines.controlled import ControlledEngine
from understudy.launch.engines.ray_link import RayLink
from understudy.launch.engines.ray_settings import (
    ADDRESS_VARIABLES,
    CLUSTER,
    DEFAULT_ADDRESS,
    TROUBLE,
    Cluster,
    RaySettings,
    address_here,
    options,
    read_settings,
    write_settings,
)
from understudy.launch.engines.status import Plan
from understudy.launch.home import Home
from understudy.launch.spec import JobSpec
from understudy.launch.state_slots import Capacity
from understudy.launch.states import FINAL, State


class RayEngine(ControlledEngine):
    """Runs jobs on a Ray cluster.

    Which job starts next is ours to say (Ray has neither priorities, preemption nor retries); on
    which nodes is Ray's. The home must lie on a path that all nodes share, and so must the Python
    that runs wrappers there.

    Args:
        home: the folder of all jobs.
    """

    name = "ray"
    module = "understudy.launch.engines.ray_controller"
    prefix = "ray-controller"

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._link: RayLink | None = None
        self._planned = ""
        self._seen = Cluster()

    def capabilities(self) -> frozenset[str]:
        """Return what it can do."""
        return frozenset(
            {"gang", "elastic", "preempt", "gpu", "requeue", "options", "launcher:torchrun"}
        )

    # -- the cluster

    def address(self, spec: JobSpec | None = None) -> str:
        """Return the cluster's address.

        That of the spec, of `$RAY_API_SERVER_ADDRESS` or `$RAY_ADDRESS`, or the home's last one.
        """
        asked = options(spec).address if spec is not None else ""
        return asked or address_here() or read_settings(self.store).address or DEFAULT_ADDRESS

    def link(self, address: str = "") -> RayLink:
        """Return the connection to the cluster at an address, by default the home's."""
        address = address or read_settings(self.store).address or self.address()
        if self._link is None or self._link.address != address:
            self._link = RayLink(address)
        return self._link

    def cluster(self, address: str = "") -> Cluster:
        """Ask what the cluster has now.

        Raises:
            UnderstudyError: it does not answer.
        """
        return self.link(address).cluster()

    def capacity(self) -> Capacity:
        """Return all that the cluster has now."""
        self._seen = self.cluster(self._planned or self.address())
        return self._seen.capacity()

    def room(self) -> Capacity:
        """Return what the cluster had when the controller last asked."""
        return from_dict(Cluster, self.store.meta(CLUSTER, {}), where=CLUSTER).capacity()

    def configure(self, settings: RaySettings) -> None:
        """Change times, sizes and the cluster."""
        write_settings(self.store, settings)
        self.wake()

    def _use(self, address: str) -> None:
        """Make a cluster the home's; all its jobs that have not ended are on one."""
        settings = read_settings(self.store)
        python = settings.python or sys.executable
        if settings.address == address and settings.python == python:
            return
        states = [state for state in State if state not in FINAL]
        if settings.address not in ("", address):
            for job in self.store.jobs(states=states, engine=self.name, limit=1):
                raise ConfigError(
                    f"job {job.id} is {job.state} on the Ray cluster at {settings.address}, and "
                    f"this one is for {address}; wait for it, or use another home of jobs."
                )
        self.store.set_meta(CLUSTER, {})
        self.configure(replace(settings, address=address, python=python))

    # -- the calls

    def _plan(self, spec: JobSpec) -> tuple[Plan, Code | None, dict[str, str]]:
        self._planned = self.address(spec)
        try:
            found = super()._plan(spec)
        finally:
            self._planned = ""
        check_nodes(spec, self._seen)
        return found

    def submit(self, spec: JobSpec, **more: str) -> str:
        """Queue a job and return its id; the same key again returns the job that is there.

        Raises:
            ConfigError: what would keep it from running, a key that is taken by another spec, or
                jobs of this home on another cluster.
        """
        self._use(self.address(spec))
        return super().submit(spec, **more)

    def warnings(self) -> tuple[str, ...]:
        """Say when nobody controls the jobs, or Ray does not answer."""
        trouble = self.store.meta(TROUBLE, "")
        return (*super().warnings(), *((trouble,) if trouble else ()))

    def _environment(self) -> dict[str, str]:
        # the home's address counts, not that of whoever happens to start the controller
        return {k: v for k, v in super()._environment().items() if k not in ADDRESS_VARIABLES}


def check_nodes(spec: JobSpec, cluster: Cluster) -> None:
    """Raise `ConfigError` if a replica fits no node, or a gang of equals not all nodes together.

    Args:
        spec: the spec.
        cluster: the nodes.
    """
    for role in spec.roles:
        needs, kind = role.resources.vector(), role.resources.gpu_type
        hold = cluster.fit(needs, kind)
        asks = ", ".join(f"{name}={amount:g}" for name, amount in needs.items())
        if hold == 0:
            largest = max(cluster.nodes, key=lambda n: n.get("cpu", 0.0), default={})
            has = ", ".join(f"{name}={largest.get(name, 0.0):g}" for name in needs)
            raise ConfigError(
                f"role '{role.name}' asks {asks} for a replica; no node of engine 'ray' has all of "
                f"it (the largest of {len(cluster.nodes)}: {has})."
            )
        least = role.replicas if spec.elastic is None else min(role.replicas, spec.min_replicas)
        if spec.is_gang and len(spec.roles) == 1 and hold < least:
            raise ConfigError(
                f"role '{role.name}' is a gang of {least} replicas of {asks}; the nodes of engine "
                f"'ray' hold {hold} at once, however empty."
            )


def open_ray(home: str | Home, settings: RaySettings | None = None) -> RayEngine:
    """Return the Ray engine of a home, with other settings if given."""
    engine = RayEngine(home if isinstance(home, Home) else Home.open(home))
    if settings is not None:
        engine.configure(settings)
    return engine
