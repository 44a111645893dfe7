"""Where a controller is killed (-9): around transactions, files, and what an engine adds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import contextmanager

from understudy.core import files
from understudy.launch.state import JobStore


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Points:
    """Counts the places that are passed and dies at the `limit`-th.

    Begin and end of each transaction and of each file are such places.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        transaction, write_bytes = JobStore.transaction, files.write_bytes

        @contextmanager
        def counted(store):
            self.passed()
            with transaction(store) as db:
                yield db
                self.passed()
            self.passed()

        JobStore.transaction = counted
        files.write_bytes = self.around(write_bytes)

    def passed(self) -> None:
        self.count += 1
        if self.count == self.limit:
            die()

    def around(self, function: Callable) -> Callable:
        """Return the function with a place before it and one behind it."""

        def counted(*args, **kwargs):
            self.passed()
            found = function(*args, **kwargs)
            self.passed()
            return found

        return counted
