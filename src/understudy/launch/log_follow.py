"""The output of a job: of all its replicas and attempts, as it is or as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from understudy.core.errors import ConfigError
from understudy.launch.home import Home
from understudy.launch.replica_logs import LogLine, LogReader
from understudy.launch.state import JobStore
from understudy.launch.states import FINAL

POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class LogQuery:
    """Which lines are wanted; see `Engine.logs`.

    Attributes:
        replica: only of this rank.
        follow: whether to wait for more.
        since: only from this time on.
        stream: which output.
    """

    replica: int | None = None
    follow: bool = False
    since: float | None = None
    stream: Literal["both", "stdout", "stderr"] = "both"

    def wants(self, line: LogLine) -> bool:
        """Say whether a line is wanted; notes about lines that are gone always are."""
        if self.since is not None and line.t < self.since:
            return False
        return self.stream == "both" or line.stream in (self.stream, "note")


def read_logs(store: JobStore, home: Home, job_id: str, query: LogQuery) -> Iterator[LogLine]:
    """Yield lines: those that are there merged by time, then, following, as they come.

    Lines of one replica keep the order of their numbers, whatever its clock did.

    Raises:
        ConfigError: no such job or replica.
    """
    job = store.job(job_id)
    if query.replica is not None and not 0 <= query.replica < job.spec.replicas:
        raise ConfigError(
            f"job {job.id} has no replica {query.replica}; its replicas are 0 to "
            f"{job.spec.replicas - 1}."
        )
    return _lines(store, home, job_id, query)


def _lines(store: JobStore, home: Home, job_id: str, query: LogQuery) -> Iterator[LogLine]:
    readers: dict[tuple[int, int], LogReader] = {}
    try:
        while True:
            # Asked before reading: what a job that has ended wrote is there.
            ended = store.job(job_id).state in FINAL
            for row in store.replicas(job_id):
                key = (row.attempt, row.rank)
                wanted = query.replica is None or row.rank == query.replica
                if wanted and key not in readers:
                    readers[key] = LogReader(home.rank(job_id, *key), *key)
            for line in merged([reader.read() for reader in readers.values()]):
                if query.wants(line):
                    yield line
            if ended or not query.follow:
                return
            time.sleep(POLL_S)
    finally:
        for reader in readers.values():
            reader.close()


def merged(parts: list[list[LogLine]]) -> Iterator[LogLine]:
    """Yield lines of several replicas by attempt and time; one replica's in their own order."""
    keyed: list[tuple[int, float, int, int, LogLine]] = []
    for lines in parts:
        latest = 0.0
        for i, line in enumerate(lines):
            latest = max(latest, line.t)
            keyed.append((line.attempt, latest, line.rank, i, line))
    keyed.sort(key=lambda item: item[:4])
    for item in keyed:
        yield item[4]
