"""The local engine's controller: `python -m understudy.launch.engines.local_controller HOME`."""

from __future__ import annotations

import sys

from understudy.launch.engines.controller import Controller, control
from understudy.launch.engines.local import LocalEngine
from understudy.launch.engines.local_schedule import schedule
from understudy.launch.engines.local_settings import LocalSettings, read_settings
from understudy.launch.engines.local_watch import Watch
from understudy.launch.home import Home
from understudy.launch.state_rows import Job


class LocalController(Controller[LocalSettings]):
    """Looks after the jobs that run on this machine."""

    def settings(self) -> LocalSettings:
        """Return the settings that the home keeps."""
        return read_settings(self.store)

    def place(self, settings: LocalSettings, now: float) -> None:
        """Reserve slots for what may start."""
        schedule(self.store, self.engine.capacity(), settings, now)

    def watch(self, job: Job) -> Watch:
        """Return what starts and watches a job's replicas."""
        return Watch(self.store, self.home, job, self.wake)


def main(root: str) -> int:
    """Control the jobs of a home unless somebody does; return when there are none."""
    engine = LocalEngine(Home.open(root))
    return control(lambda: LocalController(engine), engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
