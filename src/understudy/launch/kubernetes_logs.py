"""A job's output by the pod log API, which gives both streams as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from understudy.launch.kubernetes_api import Api
from understudy.launch.kubernetes_seen import container_of, rank_of
from understudy.launch.replica_logs import LogLine


def seconds(stamp: str) -> float:
    """Return a time such as `2026-11-24T19:00:00.123456789Z` in seconds since 1970.

    Raises:
        ValueError: it is none.
    """
    head, _, rest = stamp.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(head + "+00:00").timestamp()
    return whole + (float(f"0.{rest}") if rest else 0.0)


@dataclass(slots=True)
class _PodReader:
    """Reads a container's lines, each once: a look asks from the last line's second on."""

    name: str
    container: str
    rank: int
    last: str = ""
    repeats: int = 0
    seq: int = 0

    def read(self, api: Api, namespace: str, attempt: int) -> list[LogLine]:
        """Return the lines since the last call."""
        skip, found = self.repeats, []
        since = f"{self.last.partition('.')[0].removesuffix('Z')}Z" if self.last else ""
        for line in api.log(namespace, self.name, self.container, since):
            stamp, _, text = line.partition(" ")
            try:
                t = seconds(stamp)
            except ValueError:
                continue  # not a line of the log
            if self.last and _key(stamp) < _key(self.last):
                continue
            if stamp == self.last:
                if skip:
                    skip -= 1
                    continue
                self.repeats += 1
            else:
                self.last, self.repeats, skip = stamp, 1, 0
            self.seq += 1
            found.append(LogLine(attempt, self.rank, self.seq, t, "stdout", text))
        return found


def _key(stamp: str) -> tuple[str, str]:
    head, _, rest = stamp.removesuffix("Z").partition(".")
    return head, rest.ljust(9, "0")


@dataclass(slots=True)
class PodLogs:
    """Reads the output of all pods of a job.

    Attributes:
        api: the API server.
        namespace: of the pods.
        selector: their labels.
        attempt: for the lines.
    """

    api: Api
    namespace: str
    selector: str
    attempt: int = 1
    _readers: dict[str, _PodReader] = field(default_factory=dict)

    def read(self, rank: int | None = None) -> Iterator[LogLine]:
        """Yield new lines, by time; those of one pod in their order.

        Args:
            rank: only of this replica.
        """
        for pod in self.api.pods(self.namespace, self.selector):
            name = pod["metadata"]["name"]
            if name not in self._readers and rank in (None, rank_of(pod)):
                self._readers[name] = _PodReader(name, container_of(pod), rank_of(pod))
        lines = [
            line
            for reader in self._readers.values()
            for line in reader.read(self.api, self.namespace, self.attempt)
        ]
        yield from sorted(lines, key=lambda line: line.t)
