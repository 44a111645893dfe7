"""One active attempt of the Ray engine: a Ray job for a gang, one for each replica otherwise."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from understudy.core.files import write_json
from understudy.launch.engines.ray_gang import ENDED, GANG
from understudy.launch.engines.ray_link import RayJob, RayLink
from understudy.launch.engines.ray_node import tell
from understudy.launch.engines.ray_piece import Piece
from understudy.launch.engines.ray_settings import RayOptions, RaySettings, bundle, options
from understudy.launch.engines.settings import Settings
from understudy.launch.engines.watch import STUCK_S, Watch
from understudy.launch.home import Home
from understudy.launch.replica_files import NEVER, PLAN, START
from understudy.launch.replica_plan import WIRING, write_plan
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Attempt, Job, Replica

MODULES = "understudy.launch.engines"


class RayWatch(Watch):
    """One attempt of one job on Ray.

    Signals go through files (see `ray_node`), whether a replica lives is Ray's to say, and how it
    ended is in its files.

    Args:
        store: the jobs.
        home: of all jobs, on a path that all nodes share.
        job: the job, placed.
        wake: the pipe that wakes the controller, for replicas on its machine.
        link: to the cluster.
        pool: threads for calls to it.
    """

    def __init__(
        self,
        store: JobStore,
        home: Home,
        job: Job,
        wake: Path,
        link: RayLink,
        pool: ThreadPoolExecutor,
    ) -> None:
        super().__init__(store, home, job)
        self.wake, self.link, self.pool = str(wake), link, pool
        self.options: RayOptions = options(job.spec)
        self.pieces: dict[tuple[int, ...], Piece] = {}
        self.settings = RaySettings()
        self.swept: set[int] = set()
        self.said = ""

    def _ref(self) -> str:
        return f"{self.job_id}-{self.n}"

    def _piece(self, job: Job, row: Replica, placed: list[Replica]) -> Piece:
        """Return the Ray job that runs a replica."""
        whole = job.spec.is_gang or job.spec.replicas == 1
        ranks = tuple(r.rank for r in placed) if whole else (row.rank,)
        for known, piece in self.pieces.items():
            if row.rank in known:
                return piece
        name = self._ref() if whole else f"{self._ref()}-{row.rank}"
        self.pieces[ranks] = Piece(name, ranks, self.link, self.pool)
        return self.pieces[ranks]

    # -- starting

    def _see_to(self, job: Job, placed: list[Replica], settings: Settings) -> None:
        assert isinstance(settings, RaySettings)
        self.settings = settings
        rows = {row.rank: row for row in placed}
        for row in placed:
            self._piece(job, row, placed)
        for piece in self.pieces.values():
            piece.look(settings.ask_s)
            own = [rows[rank] for rank in piece.ranks if rank in rows]
            if not own:
                continue
            late = len(own) > 1 and job.spec.launcher == "torchrun"
            if not late or (self.folder / WIRING).exists():
                self._write_plans(job, own)
            if all(self._files(row.rank).begun() for row in own):
                piece.submitted = True  # by a controller before this one
            elif piece.wants and not job.wish:
                piece.submit(self._job(job, piece, own))
        self._say()

    def _write_plans(self, job: Job, rows: list[Replica]) -> None:
        for row in rows:
            if (self._files(row.rank).folder / PLAN).exists():
                continue
            write_plan(
                self.home,
                job,
                row.rank,
                placed=len(rows) if job.spec.is_gang else job.spec.replicas,
                gpus=None if row.vector.get("gpu") else (),
                grace_s=self.settings.grace_s,
                heartbeat_s=self.settings.heartbeat_s,
                segment_bytes=self.settings.segment_bytes,
                segments=self.settings.segments,
                wake=self.wake,
            )

    def _job(self, job: Job, piece: Piece, rows: list[Replica]) -> RayJob:
        """Return what Ray is to run for some replicas."""
        python = self.settings.python or sys.executable
        bundles = [bundle(row.vector, row.gpu_type) for row in rows]
        # Ray's own stop must not cut our grace short
        wait = math.ceil(self.settings.grace_s + STUCK_S)
        about = {"understudy_job": job.id, "name": job.name, **self.options.metadata}
        if len(rows) == 1:
            folder = str(self._files(rows[0].rank).folder)
            gpus = ("--gpus",) if rows[0].vector.get("gpu") else ()
            return RayJob(
                id=piece.name,
                words=(python, "-m", f"{MODULES}.ray_node", folder, *gpus),
                needs=bundles[0],
                labels=self.options.labels,
                metadata=about,
                stop_wait_s=wait,
            )
        facts = {
            "ranks": [row.rank for row in rows],
            "bundles": bundles,
            "strategy": self.options.strategy,
            "labels": self.options.labels,
            "python": python,
            "torchrun": job.spec.launcher == "torchrun",
            "gpus": [bool(row.vector.get("gpu")) for row in rows],
        }
        write_json(self.folder / GANG, facts)
        return RayJob(
            id=piece.name,
            words=(python, "-m", f"{MODULES}.ray_gang", str(self.folder)),
            metadata=about,
            stop_wait_s=wait,
        )

    def _say(self) -> None:
        """Record what Ray says is wrong, once."""
        said = "; ".join(dict.fromkeys(p.trouble for p in self.pieces.values() if p.trouble))
        begun = all(self._files(r).begun() for ranks in self.pieces for r in ranks)
        if said and said != self.said and not begun:
            self.store.note(self.job_id, "warning", text=f"Ray: {said}")
            self.said = said

    # -- what became of a replica

    def _running_since(self, attempt: Attempt, rows: list[Replica]) -> float | None:
        """Time limits count from the first start: Ray may have let the job wait."""
        times = []
        for row in rows:
            with contextlib.suppress(FileNotFoundError):
                times.append((self._files(row.rank).folder / START).stat().st_mtime)
        return min(times, default=None)

    def _gone(self, row: Replica) -> bool:
        files, piece = self._files(row.rank), self._known(row)
        if (files.folder / NEVER).exists():
            return True
        if piece is None or not self._given_up(row, piece):
            return False
        if not files.begun() and not files.forbid():
            return False
        if row.rank not in self.swept:
            self._sweep(row.rank)
            self.swept.add(row.rank)
        return True

    def _given_up(self, row: Replica, piece: Piece) -> bool:
        """Say whether Ray does no more for a replica, for long enough that its files are here."""
        settings, now = self.settings, time.monotonic()
        if piece.refused:
            return True
        if piece.final_at is not None:
            return now - piece.final_at >= settings.settle_s
        with contextlib.suppress(FileNotFoundError):
            ended = (self._files(row.rank).folder / ENDED).stat().st_mtime
            return time.time() - ended >= settings.settle_s
        if piece.silent_since is None or now - piece.silent_since < settings.silent_s:
            return False
        age = self._files(row.rank).heartbeat_age_s()
        return age is None or age >= settings.silent_s

    def _known(self, row: Replica) -> Piece | None:
        return next((p for ranks, p in self.pieces.items() if row.rank in ranks), None)

    # -- stopping

    def _send(self, row: Replica, number: int) -> bool:
        files, piece = self._files(row.rank), self._known(row)
        if number == signal.SIGKILL and piece is not None:
            piece.stop()
        if not files.begun():
            # Ray may still hold it back, or be about to start it: then it is told next time
            if not files.forbid():
                return False
            if piece is not None:
                piece.stop()
            return True
        tell(files.folder, number)
        return True

    def _let_go(self, rows: list[Replica]) -> None:
        for piece in self.pieces.values():
            if any(self._files(rank).exit() is None for rank in piece.ranks):
                piece.stop()
