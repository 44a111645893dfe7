"""Reinforce on Ray: pools of actors compute units, one committer makes them visible.

Workers are pools of a Ray Data pipeline, elastic between a least and a most number. An actor holds
its models from its first unit to its last. What it computes it leaves as a checksummed file beside
the store, whole or absent, and hands back nothing but facts; the process that called `reinforce`
commits the columns when all units are there. An actor that dies costs the unit in work, a driver
that dies nothing: the same call goes on. Since a unit is a function of the store, the
configuration and the teachers, the content does not depend on how many workers there are.

`lance-ray` (0.5) is not used, since it does not keep this contract: it writes a fragment at a time
and knows what is finished in the driver's memory alone, so that a kill loses everything; it refuses
fragments that are partly covered and columns that are there already, which is what filling rows
later means; cards cannot be in the commit that adds the columns; and when its commit meets another
one it commits the fragments of the older version again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core import errors, progress
from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.core.ray_session import RaySession
from understudy.data.store import Unit
from understudy.reinforce.fill import Filler, Work
from understudy.reinforce.parts import Part, PartWorker, split
from understudy.reinforce.phase_base import Phase
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Job

MAX_BLOCKS = 2_000
"""Blocks of a pipeline at most; a block is what Ray Data hands on at a time."""
IN_FLIGHT = 2
"""Blocks that wait at an actor, so that it goes from one to the next without a pause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """How many workers there are, and what each takes.

    Attributes:
        least: actors of a pool that are kept.
        most: actors of a pool; 0 for as many as the cluster's accelerators, or its cores, allow.
        cpus: cores an actor; torch uses as many threads.
        gpus: accelerators an actor; None for one where the cluster has any.
        apart: a pool for each teacher, so that an actor holds one model; None for that where there
            are accelerators. Else an actor holds all teachers of a phase and makes views once for
            all of them.
    """

    least: int = 1
    most: int = 0
    cpus: int = 1
    gpus: float | None = None
    apart: bool | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or self.cpus < 1:
            raise ConfigError(
                f"workers: expected at least 1 with at least 1 core, got {self.least} with "
                f"{self.cpus}."
            )
        if self.most and self.most < self.least:
            raise ConfigError(f"workers: at most {self.most} is less than at least {self.least}.")


class RayWorkers(Filler):
    """Fills phases on Ray; used as a context, it stops a Ray that it started.

    Args:
        address: `ray://host:port` of a cluster, or None for this machine.
        pool: the workers.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: it cannot be reached.
    """

    def __init__(self, address: str | None = None, pool: PoolConfig | None = None) -> None:
        self.pool = pool or PoolConfig()
        cpus = self.pool.most * self.pool.cpus
        self._session = RaySession(address, cpus)

    def __enter__(self) -> RayWorkers:
        self._session.open()
        return self

    def __exit__(self, *rest: object) -> None:
        self._session.close()

    def _sizes(self, pools: int) -> tuple[int, int, float]:
        """Return (least, most) actors of each of several pools, and accelerators an actor."""
        total = self._session.open().cluster_resources()
        gpus = self.pool.gpus
        if gpus is None:
            gpus = 1.0 if total.get("GPU", 0) else 0.0
        room = int(total.get("CPU", 0) // self.pool.cpus)
        if gpus:
            room = min(room, int(total.get("GPU", 0) // gpus))
        room //= pools
        if room < 1:
            raise ConfigError(
                f"on: {pools} pools of workers of {self.pool.cpus} CPU and {gpus:g} GPU do not fit "
                f"on a cluster of {total.get('CPU', 0):g} CPU and {total.get('GPU', 0):g} GPU."
            )
        most = min(self.pool.most or room, room)
        return min(self.pool.least, most), most, gpus

    def _apart(self, phase: Phase) -> bool:
        if self.pool.apart is not None:
            return self.pool.apart
        return bool(self._session.open().cluster_resources().get("GPU", 0))

    def fill(self, work: Work) -> None:
        """Have the pools fill the phase's columns, and commit them."""
        parts = split(work, apart=self._apart(work.phase))
        jobs = [work.job(phase) for _, phase in parts]
        todo = _todo(jobs)
        label = f"reinforce: {work.phase.name}"
        wanted, done = jobs[0].num_wanted, min(job.num_done for job in jobs)
        with progress.bar(label, wanted, "rows", done=done) as bar:
            for answer in self._answers([part for part, _ in parts], todo, work.teachers):
                _check(answer)
                for i, facts in json.loads(answer["facts"]).items():
                    _amend(jobs[int(i)], facts.pop("backends"))
                    work.add(facts)
                bar.advance(answer["rows"])
        with work.ledger.time("commit"):
            for job in jobs:
                job.commit()
        work.store.refresh()
        _check_filled(work)

    def _answers(
        self,
        parts: Sequence[Part],
        todo: Mapping[Unit, dict[int, np.ndarray]],
        teachers: Mapping[str, Teacher] | None,
    ) -> Any:
        """Return the stream of rows that come out of the pools, one a unit."""
        if not todo:
            return ()
        least, most, gpus = self._sizes(len(parts))
        rows = [
            {
                "unit": list(unit),
                "rows": max(len(r) for r in asked.values()),
                "asked": json.dumps({i: r.tolist() for i, r in asked.items()}),
                "facts": "{}",
                "error": "",
            }
            for unit, asked in todo.items()
        ]
        pool = {
            "least": min(least, len(rows)),
            "most": min(most, len(rows)),
            "cpus": self.pool.cpus,
            "gpus": gpus,
        }
        place = (os.getcwd(), [entry or os.getcwd() for entry in sys.path])
        # teachers as bytes: what they are made of can be imported once the path is known
        dumps = self._session.open().cloudpickle.dumps
        ready = teachers or {}
        actors = [
            {
                "number": i,
                "part": json.dumps(to_dict(part)),
                "place": place,
                "threads": self.pool.cpus,
                "teachers": dumps({n: t for n, t in ready.items() if n in part.asked}),
            }
            for i, part in enumerate(parts)
        ]
        return self._session.stream(_pipeline, rows, actors, pool)


def _pipeline(
    data: Any, rows: list[dict[str, Any]], actors: list[dict[str, Any]], pool: dict[str, Any]
) -> Any:
    """Return the data set of what comes out of the pools, one after the other."""
    stream = data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    for arguments in actors:
        stream = stream.map(
            _Actor,
            fn_constructor_kwargs=arguments,
            compute=data.ActorPoolStrategy(
                min_size=pool["least"],
                max_size=pool["most"],
                max_tasks_in_flight_per_actor=IN_FLIGHT,
            ),
            num_cpus=pool["cpus"],
            num_gpus=pool["gpus"],
        )
    return stream


class _Actor:
    """A worker. Errors come back in the rows, so that they arrive as the sentences they are."""

    def __init__(
        self,
        number: int,
        part: str,
        place: tuple[str, list[str]],
        threads: int,
        teachers: bytes,
    ) -> None:
        folder, path = place
        # teachers of one's own, and relative paths, are where the driver found them
        sys.path += [entry for entry in path if entry not in sys.path]
        if os.path.isdir(folder):
            os.chdir(folder)
        self.number, self.error, self.worker = number, "", None
        try:
            plain = json.loads(part)
            tuples = {name: tuple(plain[name]) for name in ("columns", "ks", "fresh", "asked")}
            # written by this run's driver a moment ago, and sent by Ray alone
            self.worker = PartWorker(Part(**{**plain, **tuples}), pickle.loads(teachers))
            _use_threads(threads)
        except Exception as error:
            self.error = _told(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Compute a unit."""
        asked = json.loads(row["asked"]).get(str(self.number))
        if row["error"] or asked is None:
            return row
        if self.worker is None:
            return {**row, "error": self.error}
        start, stop = (int(edge) for edge in row["unit"])
        try:
            facts = self.worker.run(Unit(start, stop), np.array(asked, np.int64))
        except Exception as error:
            return {**row, "error": _told(error)}
        known = {
            **json.loads(row["facts"]),
            self.number: {**facts, "backends": self.worker.backends},
        }
        return {**row, "facts": json.dumps(known)}


def _use_threads(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _told(error: Exception) -> str:
    """Return an error as text: its class, then what it says."""
    if isinstance(error, UnderstudyError):
        return f"{type(error).__name__}: {error}"
    return (
        f"DataError: a worker on {socket.gethostname()} failed ({type(error).__name__}: {error})."
    )


def _check(answer: Mapping[str, Any]) -> None:
    if answer["error"]:
        kind, _, text = answer["error"].partition(": ")
        raise getattr(errors, kind, DataError)(text)


def _todo(jobs: Sequence[Job]) -> dict[Unit, dict[int, np.ndarray]]:
    """Return the rows that each job lacks, by unit and number of the job."""
    found: dict[Unit, dict[int, np.ndarray]] = {}
    for i, job in enumerate(jobs):
        for unit in job.todo():
            found.setdefault(unit, {})[i] = job.rows(unit)
    return dict(sorted(found.items()))


def _amend(job: Job, backends: Mapping[str, dict[str, Any]]) -> None:
    """Have the cards say what computed the columns, which may be another device than here."""
    for column, backend in backends.items():
        job.cards[column] = dataclasses.replace(job.cards[column], backend=backend)


def _check_filled(work: Work) -> None:
    for column in work.phase.cards:
        lacking = int((~work.store.filled(column)[work.rows]).sum())
        if lacking:
            raise DataError(
                f"{work.store.path}: workers finished, but {lacking:,} rows of '{column}' are not "
                "there; the store must be on a file system, or object store, that every worker "
                "sees. If it is, a unit was damaged: run the same command again."
            )
