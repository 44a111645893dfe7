"""Running jobs while killing who runs them; see `chaos.py`."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from chaos_aims import Aim, Journal, Kill, draw_aim
from chaos_checks import Checker
from chaos_jobs import Kind
from chaos_processes import CONTROLLER, Process, kill, kill_all, living
from understudy.core.errors import ConfigError
from understudy.core.files import read_json, write_json
from understudy.launch.engines.local import LocalEngine, open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import room
from understudy.launch.states import ACTIVE, State

SLOTS = 4
SETTINGS = LocalSettings(idle_exit_s=2.0, poll_s=0.1)
LOOK_S, MISS_S = 0.02, 0.1


class WrongError(Exception):
    """Something does not hold; the message says what."""


class Chaos:
    """Jobs of several kinds, again and again, until enough of their processes were killed.

    Args:
        folder: where everything is kept; a run that was stopped goes on from it.
        kinds: the jobs.
        expected: result of each kind's unbroken run.
        wanted: number of kills.
        seed: of all draws.
        say: takes a line to print.
    """

    def __init__(
        self,
        folder: Path,
        kinds: dict[str, Kind],
        expected: dict[str, str],
        *,
        wanted: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.kinds, self.expected = folder, kinds, expected
        self.wanted, self.seed, self.say = wanted, seed, say
        self.engine: LocalEngine = open_local(str(folder / "killed"), SETTINGS)
        self.engine.set_capacity(SLOTS)
        self.checker = Checker(self.engine)
        self.journal = Journal(folder / "kills.jsonl")
        self.kills = self.journal.kills
        self.draw = random.Random(f"{seed}:{len(self.kills)}")
        self.rounds = dict.fromkeys(kinds, 0)
        self.jobs: dict[str, str] = {}
        self.done: list[Job] = []
        self.aims: dict[str, Aim] = {}
        self.revive_at: float | None = None
        self.revived: Counter[str] = Counter()

    # -- jobs

    def _submit(self, name: str) -> None:
        spec = self.kinds[name].with_key(f"chaos-{self.seed}-{name}-{self.rounds[name]}")
        self.jobs[name] = self.engine.submit(spec)

    def _turn(self, name: str) -> bool:
        """See to one kind: check what has ended, begin what is next; False when it is done."""
        if name not in self.jobs:
            self._submit(name)
        job = self.engine.store.job(self.jobs[name])
        if not job.final:
            return True
        if all(job.id != other.id for other in self.done):
            self._ended(name, job)
        if len(self.kills) >= self.wanted:
            return False
        self.rounds[name] += 1
        self._submit(name)
        self.aims.pop(name, None)
        return True

    def _ended(self, name: str, job: Job) -> None:
        folder = self.engine.folder(job.id)
        if job.state is not State.SUCCEEDED:
            said = _said(self.engine, job.id)
            raise WrongError(f"{job.id} is {job.state} ({job.reason}): {said}")
        runs = folder / "out" / "runs"
        starts = runs.read_text().splitlines() if runs.exists() else []
        if len(set(starts)) < len(starts):
            raise WrongError(f"{job.id}: a replica has begun twice in one attempt: {starts}")
        found = self.kinds[name].result(folder)
        if found != self.expected[name]:
            raise WrongError(f"{job.id}: the result is {found}, unbroken {self.expected[name]}")
        self.done.append(job)
        mine = sum(k.job == job.id for k in self.kills)
        self.say(f"{job.id}: the same after {mine} kills and {job.attempt} attempts "
                 f"({len(self.kills)} kills in all)")  # fmt: skip

    # -- killing

    def _aim(self, at: str) -> Aim:
        if at == CONTROLLER:
            return draw_aim(self.draw, at, set())
        return draw_aim(self.draw, at, self._pieces(at), self.kinds[at].victims)

    def _pieces(self, name: str) -> set[Path]:
        return self.kinds[name].progress(self.engine.folder(self.jobs[name]))

    def _ripe(self, aim: Aim) -> bool:
        now = time.monotonic()
        if now < aim.due:
            return False
        if aim.ripe_at is None and aim.pieces:
            aim.seen |= self._pieces(aim.at) - aim.held
        if aim.ripe_at is None and len(aim.seen) >= aim.pieces:
            aim.ripe_at = now
        return aim.ripe_at is not None and now >= aim.ripe_at + aim.delay_s

    def _fire(self, aim: Aim) -> Process | int | None:
        """Kill the one that is aimed at; None if there is none now."""
        if aim.at == CONTROLLER:
            pid = self.engine.controller_pid()
            if pid is None:
                return None
            found = Process(pid, 0, _words(pid), "", 0, 0, CONTROLLER)
            return pid if kill(found) else None
        job = self.engine.store.job(self.jobs[aim.at])
        if job.state not in ACTIVE:
            return None
        found = living(self.engine.home.root, {job.id})
        victims = [p for p in found if p.role == aim.victim]
        if not victims:
            return None
        victim = self.draw.choice(sorted(victims, key=lambda p: (p.rank, p.pid)))
        return victim if kill(victim) else None

    def _shoot(self) -> None:
        for at in (*self.kinds, CONTROLLER):
            if len(self.kills) >= self.wanted:
                return
            aim = self.aims.setdefault(at, self._aim(at))
            if not self._ripe(aim):
                continue
            state = "" if at == CONTROLLER else self.engine.store.job(self.jobs[at]).state
            hit = self._fire(aim)
            if hit is None:
                aim.due = time.monotonic() + MISS_S
                continue
            self._note(aim, hit, state)
            del self.aims[at]
            if at == CONTROLLER:
                self.revive_at = time.monotonic() + self.draw.uniform(0, 1.5)
            self._check()

    def _note(self, aim: Aim, hit: Process | int, state: str) -> None:
        at = isinstance(hit, Process)
        made = Kill(
            n=len(self.kills) + 1, at=aim.at, victim=hit.role if at else CONTROLLER,
            job=hit.job if at else "", attempt=hit.attempt if at else 0, state=state,
            pieces=aim.pieces, t=round(time.time(), 3),
        )  # fmt: skip
        self.journal.add(made)

    def _revive(self) -> None:
        """Do what a user does who sees that nothing moves."""
        if self.revive_at is None or time.monotonic() < self.revive_at or not self.jobs:
            return
        self.revive_at = None
        name = self.draw.choice(sorted(self.jobs))
        way = self.draw.choice(("submit", "reconcile", "wait"))
        if way == "submit":
            self._submit(name)
        elif way == "reconcile":
            self.engine.reconcile()
        else:
            with contextlib.suppress(ConfigError):  # it has not ended yet
                self.engine.wait(self.jobs[name], 0.05)
        self.revived[way] += 1

    # -- looking

    def _look(self) -> list[Process]:
        return living(self.engine.home.root, set(self.jobs.values()))

    def _check(self) -> None:
        wrong = self.checker.record() + self.checker.processes(self._look)
        for job in self.jobs.values():
            wrong += self.checker.files(self.engine.folder(job))
        if wrong:
            raise WrongError("; ".join(wrong))

    def _empty(self) -> None:
        """See that nothing is left when all has ended."""
        self._check()
        everyone = {job.id for job in self.engine.store.jobs(engine=self.engine.name)}
        end = time.monotonic() + 10
        while left := living(self.engine.home.root, everyone):
            if time.monotonic() > end:
                raise WrongError(f"processes are left: {[' '.join(p.words) for p in left]}")
            time.sleep(0.1)
        free = room(self.engine.store, self.engine.capacity(), self.engine.name).free["cpu"]
        if free != SLOTS:
            raise WrongError(f"{free:g} of {SLOTS} slots are free when all has ended")

    def run(self, deadline_s: float) -> None:
        """Kill until it is enough, and let all jobs end.

        Raises:
            WrongError: something does not hold.
        """
        end = time.monotonic() + deadline_s
        try:
            while True:
                going = [name for name in self.kinds if self._turn(name)]
                if not going and len(self.kills) >= self.wanted:
                    break
                self._shoot()
                self._revive()
                if len(self.kills) >= self.wanted and not self.engine.controller_alive():
                    self.engine.ensure_controller()
                if time.monotonic() > end:
                    states = {n: self.engine.store.job(j).state for n, j in self.jobs.items()}
                    raise WrongError(f"not done after {deadline_s:g} s: {states}")
                time.sleep(LOOK_S)
            self._empty()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the controller, and what a run that went wrong has left."""
        pid = self.engine.controller_pid()
        if pid is not None:
            kill(Process(pid, 0, _words(pid), "", 0, 0, CONTROLLER))
        jobs = {job.id for job in self.engine.store.jobs(engine=self.engine.name)}
        kill_all(self.engine.home.root, jobs)


def _words(pid: int) -> tuple[str, ...]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ()
    return tuple(text.split("\0")[:-1])


def unbroken(folder: Path, kinds: dict[str, Kind], timeout_s: float) -> dict[str, str]:
    """Run each job once, in peace, and return the results; those of earlier calls are kept.

    Raises:
        WrongError: a job did not succeed.
    """
    kept = folder / "unbroken.json"
    found: dict[str, str] = read_json(kept) if kept.exists() else {}
    engine = open_local(str(folder / "unbroken"), SETTINGS)
    engine.set_capacity(SLOTS)
    jobs = {n: engine.submit(kinds[n].with_key(n)) for n in kinds if n not in found}
    try:
        for name, job in jobs.items():
            status = engine.wait(job, timeout_s)
            if status.state is not State.SUCCEEDED:
                raise WrongError(f"{job} is {status.state} ({status.reason}): {_said(engine, job)}")
            found[name] = kinds[name].result(engine.folder(job))
    finally:
        kill_all(engine.home.root, set(jobs.values()))
        engine.close()
    write_json(kept, found)
    return {name: found[name] for name in kinds}


def _said(engine: LocalEngine, job: str) -> str:
    return " | ".join(line.text for line in list(engine.logs(job))[-5:])
