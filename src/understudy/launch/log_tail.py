"""A job's output for somebody who looks in, goes away and comes back: the tail, then what comes.

A cursor says up to which line each replica was seen; a follower that begins at a cursor loses and
repeats nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from understudy.core.errors import ConfigError
from understudy.launch.home import Home
from understudy.launch.log_follow import merged
from understudy.launch.log_seek import last_number, lines_between, reader_from
from understudy.launch.replica_logs import LogLine, LogReader
from understudy.launch.state import JobStore
from understudy.launch.states import FINAL

READ_BYTES = 1 << 18
"""Most that one look takes from one replica."""
_CURSOR = re.compile(r"\d{1,9}\.\d{1,9}:\d{1,15}(,\d{1,9}\.\d{1,9}:\d{1,15})*")
Place = tuple[int, int]
"""Attempt and rank."""


def write_cursor(seen: Mapping[Place, int]) -> str:
    """Return a cursor as text, such as `1.0:57,1.1:33`."""
    return ",".join(f"{attempt}.{rank}:{seq}" for (attempt, rank), seq in sorted(seen.items()))


def read_cursor(text: str) -> dict[Place, int]:
    """Return the number of the last line that was seen, by attempt and rank.

    Raises:
        ConfigError: it is no cursor.
    """
    if text and not _CURSOR.fullmatch(text):
        raise ConfigError(f"cursor: expected ATTEMPT.RANK:LINE,..., got '{text[:80]}'.")
    found: dict[Place, int] = {}
    for part in filter(None, text.split(",")):
        place, _, seq = part.partition(":")
        attempt, _, rank = place.partition(".")
        found[int(attempt), int(rank)] = int(seq)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which lines are wanted.

    Attributes:
        rank: only of this replica.
        stream: which output.
        tail: how many lines of each replica to begin with.
    """

    rank: int | None = None
    stream: Literal["both", "stdout", "stderr"] = "both"
    tail: int = 200

    def wants(self, line: LogLine) -> bool:
        """Say whether a line is wanted; notes about lines that are gone always are."""
        return self.stream == "both" or line.stream in (self.stream, "note")


@dataclass(slots=True)
class Follower:
    """Follows a job: each look gives the lines since the one before.

    Looks may be made from different threads, one after the other.

    Attributes:
        home: of the jobs.
        job: its id.
        choice: which lines.
        seen: where to go on; empty begins with the tail of the current attempt.
    """

    home: Home
    job: str
    choice: Choice = field(default_factory=Choice)
    seen: dict[Place, int] = field(default_factory=dict)
    _readers: dict[Place, LogReader] = field(default_factory=dict)
    _from: int | None = None

    def look(self) -> tuple[list[LogLine], bool]:
        """Return new lines, and whether the job has ended and there will be no more.

        Raises:
            ConfigError: there is no such job.
        """
        with JobStore(self.home.database) as store:
            # Asked before reading: what a job that has ended wrote is there.
            job = store.job(self.job)
            places = [(r.attempt, r.rank) for r in store.replicas(self.job)]
        fresh = self._from is None and not self.seen
        if self._from is None:
            self._from = min((attempt for attempt, _ in self.seen), default=job.attempt)
        for place in places:
            wanted = self.choice.rank is None or place[1] == self.choice.rank
            if wanted and place[0] >= self._from and place not in self._readers:
                self._readers[place] = self._open(place, fresh)
        parts = [reader.read(READ_BYTES) for reader in self._readers.values()]
        for place, part in zip(self._readers, parts, strict=True):
            if part:
                self.seen[place] = part[-1].seq
        lines = [line for line in merged(parts) if self.choice.wants(line)]
        return lines, job.state in FINAL and not any(parts)

    def _open(self, place: Place, fresh: bool) -> LogReader:
        folder = self.home.rank(self.job, *place)
        if fresh:
            first = last_number(folder) - self.choice.tail + 1
        else:  # one that is not in the cursor began meanwhile
            first = self.seen.get(place, 0) + 1
        return reader_from(folder, first, *place)

    def cursor(self) -> str:
        """Return where another follower goes on."""
        return write_cursor(self.seen)

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def earlier(home: Home, job: str, before: Mapping[Place, int], most: int = 500) -> list[LogLine]:
    """Return the last lines before those that were seen first, merged by time.

    Args:
        home: of the jobs.
        job: its id.
        before: number of the first line that was seen, by attempt and rank.
        most: how many lines.
    """
    parts = [
        lines_between(home.rank(job, *place), first - most, first - 1, *place)
        for place, first in before.items()
        if first > 1
    ]
    return list(merged(parts))[-most:]
