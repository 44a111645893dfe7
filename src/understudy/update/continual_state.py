"""The state of a stream that goes on for years: a small file beside its runs.

`stream.json` says which periods were learned, from which rows, by which run, and what the replay
buffer still holds. Rows that arrive later for a period that is done change nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from understudy.core.config import from_dict, to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_bytes
from understudy.data.periods_stream import Stream, StreamRule, TimeStep

FILE = "stream.json"
FORMAT, VERSION = "understudy-stream", 1


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A period that was learned.

    Attributes:
        name: of the period.
        run: folder of the run, relative to the file if it lies beside it.
        method: how it was learned; empty for a run that began outside of the stream.
        rows: how many rows it had.
        last_row: the largest of their numbers.
        rows_hash: hash of their numbers.
        kept: rows that the buffer holds of every period after it, this one included.
        base_steps: iterations of one C.
    """

    name: str
    run: str
    method: str
    rows: int
    last_row: int
    rows_hash: str
    kept: dict[str, int]
    base_steps: int

    def rows_then(self, step: TimeStep) -> np.ndarray:
        """Return the rows that were learned from, of what the period holds today.

        Raises:
            DataError: they are no longer the same.
        """
        rows = step.rows[step.rows <= self.last_row]
        if len(rows) != self.rows or _hash(rows) != self.rows_hash:
            raise DataError(
                f"time step '{self.name}': {self.rows} rows were learned from, and {len(rows)} of "
                f"other numbers are there now (up to row {self.last_row}); the store or the "
                "periods have changed since."
            )
        return rows


def _hash(rows: np.ndarray) -> str:
    return hash_bytes(np.ascontiguousarray(rows, np.int64).tobytes())


def learned(
    step: TimeStep, run: str, method: str, kept: dict[str, int], base_steps: int
) -> Learned:
    """Return the entry of a step that was just learned."""
    return Learned(
        name=step.name,
        run=run,
        method=method,
        rows=len(step.rows),
        last_row=int(step.rows[-1]) if len(step.rows) else -1,
        rows_hash=_hash(step.rows),
        kept=kept,
        base_steps=base_steps,
    )


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """What a stream has been through.

    Attributes:
        store: path of its store.
        rule: how rows become time steps.
        steps: in order.
    """

    store: str
    rule: StreamRule
    steps: tuple[Learned, ...] = field(default_factory=tuple)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the state of a folder of runs; None if there is none.

        Raises:
            DataError: the file is something else, or a newer version's.
        """
        path = folder / FILE
        if not path.exists():
            return None
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{path}: not the state of a stream.")
        if data.get("version") != VERSION:
            raise DataError(f"{path}: version {data.get('version')}, this version reads {VERSION}.")
        return cls(
            store=data["store"],
            rule=from_dict(StreamRule, data["rule"], str(path)),
            steps=tuple(from_dict(Learned, entry, str(path)) for entry in data["steps"]),
        )

    def write(self, folder: Path) -> Path:
        """Write the state into a folder of runs, atomically; return the path."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "store": self.store,
            "rule": to_dict(self.rule),
            "steps": [asdict(step) for step in self.steps],
        }
        return write_json(folder / FILE, data)

    def up_to(self, run: Path, folder: Path) -> Self:
        """Return the state as it was after a run.

        Args:
            run: its folder.
            folder: of the state.

        Raises:
            ConfigError: the stream has no such run; its runs are listed.
        """
        for count, step in enumerate(self.steps, 1):
            if (folder / step.run).resolve() == run.resolve():
                return replace(self, steps=self.steps[:count])
        known = ", ".join(step.run for step in self.steps)
        raise ConfigError(
            f"{run}: not a run of the stream in {folder / FILE} ({known}); give its newest run."
        )

    def seen(self, stream: Stream) -> list[TimeStep]:
        """Return the steps that were learned, with the rows that they had then.

        Raises:
            ConfigError: the stream has no such period any more.
            DataError: its rows are others now.
        """
        found = []
        for entry in self.steps:
            step = stream[stream.index(entry.name)]
            found.append(replace(step, rows=entry.rows_then(step)))
        return found

    def kept(self) -> list[int] | None:
        """Return what the buffer holds of every step; None for an empty stream."""
        if not self.steps:
            return None
        last = self.steps[-1].kept
        return [last.get(step.name, 0) for step in self.steps]


def record_stream(
    folder: Path,
    stream: Stream,
    store: str,
    method: str,
    runs: Sequence[tuple[str, dict[str, int]]],
    base_steps: int,
) -> None:
    """Write down a stream that was gone through in one call, so that it can go on.

    Nothing is written for a stream that no rule made, nor over a state that went on from here.

    Args:
        folder: of the runs.
        stream: the time steps.
        store: path of the store.
        method: of all steps.
        runs: folder and replayed rows of each step.
        base_steps: iterations of one C.
    """
    if stream.rule is None:
        return
    entries = tuple(
        learned(step, Path(run).name, method, {**replayed, step.name: len(step.rows)}, base_steps)
        for step, (run, replayed) in zip(stream, runs, strict=True)
    )
    known = StreamState.read(folder)
    if known is None or known.steps[: len(entries)] != entries:
        StreamState(store=store, rule=stream.rule, steps=entries).write(folder)


def assumed(stream: Stream, store: str, rule: StreamRule, run: Path, before: int) -> StreamState:
    """Return the state of a run that began outside of a stream: it saw all periods before one.

    Args:
        stream: the time steps.
        store: path of the store.
        rule: of the stream.
        run: its folder.
        before: number of the period that comes next, from 0.
    """
    steps: Sequence[TimeStep] = stream.steps[:before]
    kept = {step.name: len(step.rows) for step in steps}
    entries = [learned(step, str(run.resolve()), "", kept, 0) for step in steps]
    return StreamState(store=store, rule=rule, steps=tuple(entries))
