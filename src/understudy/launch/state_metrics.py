"""Numbers of jobs over steps: written in batches, read from lines that jobs append.

A job calls `log(step, loss=0.3)`; each replica appends to a file of its own (a database on a shared
folder does not lock reliably), and the controller takes new lines over, each exactly once.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.launch.state import JobStore

VARIABLE = "UNDERSTUDY_METRICS"
BATCH_ROWS = 100
BATCH_S = 1.0
READ_BYTES = 1_000_000
Row = tuple[str, int, float, str, float | None, int]
"""Job, step, time, name, value (None: not finite), rank."""


def log(step: int, **values: float) -> None:
    """Append numbers of a step, from inside a job; outside of one nothing happens.

    Args:
        step: of the job's own counting.
        **values: by name.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    numbers = {k: float(v) for k, v in values.items()}
    line = json.dumps({"step": int(step), "t": time.time(), "values": numbers})
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


class MetricSink:
    """Writes rows of metrics, 100 or one second at a time.

    Args:
        store: the jobs.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._rows: list[Row] = []
        self._since = time.monotonic()

    def add(self, job: str, step: int, name: str, value: float, rank: int = 0) -> None:
        """Take a value; it is written with its batch."""
        kept = float(value) if math.isfinite(value) else None
        self._rows.append((job, step, time.time(), name, kept, rank))
        if len(self._rows) >= BATCH_ROWS or time.monotonic() - self._since >= BATCH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is there."""
        if self._rows:
            with self._store.transaction():
                _insert(self._store, self._rows)
        self._rows, self._since = [], time.monotonic()

    def __enter__(self) -> MetricSink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()


def _insert(store: JobStore, rows: Sequence[Row]) -> None:
    store._db.executemany("INSERT INTO metrics VALUES(?, ?, ?, ?, ?, ?)", rows)


def ingest(store: JobStore, job: str, path: Path, rank: int) -> int:
    """Take new whole lines of a replica's file over and return how many rows they gave.

    Rows and the place in the file are one transaction: no line is taken twice or left out. Lines
    that are not metrics are passed over.
    """
    name = str(path)
    row = store._db.execute(
        "SELECT bytes FROM metric_files WHERE job=? AND path=?", (job, name)
    ).fetchone()
    start = row["bytes"] if row else 0
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(READ_BYTES)
    except FileNotFoundError:
        return 0
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        return 0
    rows = [row for line in whole.splitlines() for row in _rows(job, line, rank)]
    with store.transaction() as db:
        _insert(store, rows)
        db.execute(
            "INSERT INTO metric_files VALUES(?, ?, ?) ON CONFLICT(job, path) DO UPDATE SET "
            "bytes=excluded.bytes",
            (job, name, start + len(whole)),
        )
    return len(rows)


def _rows(job: str, line: bytes, rank: int) -> list[Row]:
    try:
        found = json.loads(line)
        step, t, values = int(found["step"]), float(found["t"]), dict(found["values"])
        pairs = [(str(k), float(v)) for k, v in values.items()]
    except (ValueError, TypeError, KeyError):
        return []
    return [(job, step, t, k, v if math.isfinite(v) else None, rank) for k, v in pairs]


def curve(store: JobStore, job: str, name: str, rank: int = 0) -> list[tuple[int, float | None]]:
    """Return (step, value) of a metric; a step that was done again counts once, as the last time.

    Raises:
        ConfigError: the job has no such metric.
    """
    rows = store._db.execute(
        "SELECT step, value FROM metrics WHERE job=? AND name=? AND rank=? ORDER BY rowid",
        (job, name, rank),
    ).fetchall()
    if not rows:
        names = store._db.execute(
            "SELECT DISTINCT name FROM metrics WHERE job=? ORDER BY 1", (job,)
        ).fetchall()
        have = ", ".join(r["name"] for r in names) or "none"
        raise ConfigError(f"job {job} has no metric '{name}' (it has {have}).")
    return sorted({row["step"]: row["value"] for row in rows}.items())
