"""Jobs as processes of this machine, under a controller that outlives whoever submits them."""

from __future__ import annotations

from understudy.core.config import to_dict
from understudy.launch.engines.controlled import ControlledEngine
from understudy.launch.engines.local_settings import (
    CAPACITY,
    LocalSettings,
    read_capacity,
    write_settings,
)
from understudy.launch.home import Home
from understudy.launch.spec_parts import check_range
from understudy.launch.state_slots import Capacity


class LocalEngine(ControlledEngine):
    """Runs jobs on this machine.

    Slots are reserved in one transaction; a controller (a process of its own session) starts
    replicas, watches them and starts again after it was killed: whoever next submits, waits or
    cancels sees to that. Replicas do not notice.

    Args:
        home: the folder of all jobs.
    """

    name = "local"
    module = "understudy.launch.engines.local_controller"
    prefix = "controller"

    def capabilities(self) -> frozenset[str]:
        """Return what it can do."""
        return frozenset(
            {"gang", "elastic", "preempt", "gpu", "requeue", "capacity", "launcher:torchrun"}
        )

    def capacity(self) -> Capacity:
        """Return what jobs may use."""
        return read_capacity(self.store, self.home)

    def set_capacity(self, n: int) -> None:
        """Let jobs use `n` cores; what runs is not stopped."""
        check_range(n, 1, "capacity")
        capacity = self.capacity()
        self.set_resources(
            Capacity(amounts={**capacity.amounts, "cpu": float(n)}, gpu_types=capacity.gpu_types)
        )

    def set_resources(self, capacity: Capacity) -> None:
        """Let jobs use exactly this much of everything."""
        self.store.set_meta(CAPACITY, to_dict(capacity))
        self.wake()

    def configure(self, settings: LocalSettings) -> None:
        """Change times and sizes."""
        write_settings(self.store, settings)
        self.wake()


def open_local(home: str | Home, settings: LocalSettings | None = None) -> LocalEngine:
    """Return the local engine of a home, with other settings if given."""
    engine = LocalEngine(home if isinstance(home, Home) else Home.open(home))
    if settings is not None:
        engine.configure(settings)
    return engine
