"""The Ray engine's controller: `python -m understudy.launch.engines.ray_controller HOME`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from understudy.core.config import to_dict
from understudy.launch.engines.controller import Controller, control
from understudy.launch.engines.local_schedule import schedule
from understudy.launch.engines.ray import RayEngine
from understudy.launch.engines.ray_link import RayLink
from understudy.launch.engines.ray_settings import (
    CLUSTER,
    TROUBLE,
    Cluster,
    RaySettings,
    read_settings,
)
from understudy.launch.engines.ray_watch import RayWatch
from understudy.launch.home import Home
from understudy.launch.state_rows import Job

THREADS = 8
NODES_S = 10.0
"""Between questions for the cluster's size."""


class RayController(Controller[RaySettings]):
    """Looks after the jobs that run on a Ray cluster.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: RayEngine) -> None:
        super().__init__(engine)
        self.ray = engine
        self.pool = ThreadPoolExecutor(THREADS)
        self.link = engine.link()
        self._sizing: Future[Cluster] | None = None
        self._size_at = 0.0

    def settings(self) -> RaySettings:
        """Return the settings that the home keeps."""
        return read_settings(self.store)

    def look(self, settings: RaySettings, now: float) -> None:
        """Learn the cluster's size, and whether it is there."""
        if settings.address and settings.address != self.link.address:
            self.link, self._sizing = RayLink(settings.address), None
        if self._sizing is not None and self._sizing.done():
            error = self._sizing.exception()
            self._keep(TROUBLE, "" if error is None else str(error))
            if error is None:
                self._keep(CLUSTER, to_dict(self._sizing.result()))
            self._sizing, self._size_at = None, time.monotonic() + NODES_S
        if self._sizing is None and time.monotonic() >= self._size_at:
            self._sizing = self.pool.submit(self.link.cluster)

    def _keep(self, key: str, value: object) -> None:
        """Write what has changed: each writing makes the controller look at the queue."""
        if self.store.meta(key) != value:
            self.store.set_meta(key, value)

    def place(self, settings: RaySettings, now: float) -> None:
        """Reserve for what may start; Ray finds the nodes."""
        schedule(self.store, self.ray.room(), settings, now, self.ray.name)

    def watch(self, job: Job) -> RayWatch:
        """Return what submits and watches a job's attempt."""
        return RayWatch(self.store, self.home, job, self.wake, self.link, self.pool)


def main(root: str) -> int:
    """Control the Ray jobs of a home unless somebody does; return when there are none."""
    engine = RayEngine(Home.open(root))
    return control(lambda: RayController(engine), engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
