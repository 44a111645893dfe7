"""Kills that are to come, and kills that were made."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chaos_processes import CONTROLLER, VICTIMS

CONTROLLER_S = 10.0
"""A controller lives so long on average."""
AT_ONCE = 0.3
"""Share of kills that do not wait until something is done: they hit starts and recoveries."""
START_S = 8.0
"""These come within so many seconds."""
PIECES = 4.0
"""Pieces of work that others wait for on average, after the first."""


@dataclass(slots=True)
class Aim:
    """The next kill of one kind of job, or of the controller.

    Attributes:
        at: the kind, or `controller`.
        victim: one of `VICTIMS`, or `controller`.
        pieces: of work that must be done first.
        due: not before, on the monotonic clock.
        delay_s: pause between the moment when all is ripe and the kill.
        held: pieces that were there when it was taken.
        seen: pieces that came since; they may have gone again.
        ripe_at: since when.
    """

    at: str
    victim: str
    pieces: int
    due: float
    delay_s: float
    held: set[Path] = field(default_factory=set)
    seen: set[Path] = field(default_factory=set)
    ripe_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """A kill that was made."""

    n: int
    at: str
    victim: str
    job: str
    attempt: int
    state: str
    pieces: int
    t: float


def draw_aim(
    draw: random.Random, at: str, held: set[Path], victims: tuple[str, ...] = VICTIMS
) -> Aim:
    """Draw the next kill.

    Args:
        draw: where from.
        at: a kind of job, or `controller`.
        held: pieces of work that are done.
        victims: whom the job has.
    """
    now = time.monotonic()
    if at == CONTROLLER:
        return Aim(at, CONTROLLER, 0, now + draw.expovariate(1 / CONTROLLER_S), 0.0)
    victim = draw.choice(victims)
    if draw.random() < AT_ONCE:
        return Aim(at, victim, 0, now + draw.uniform(0, START_S), 0.0)
    pieces = 1 + round(draw.expovariate(1 / PIECES))
    return Aim(at, victim, pieces, now, draw.uniform(0, 0.15), held)


class Journal:
    """Kills that were made, a line each, so that a run can go on after it was stopped.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kills: list[Kill] = []
        if path.exists():
            text = path.read_text()
            lines = text[: text.rfind("\n") + 1].splitlines()
            self.kills = [Kill(**json.loads(line)) for line in lines]

    def add(self, kill: Kill) -> None:
        """Note a kill."""
        self.kills.append(kill)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(kill)) + "\n")
