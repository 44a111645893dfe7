"""Restarts of all workers that torchrun made inside an attempt; see `worker`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from understudy.launch.worker import RESTARTS


def rounds(folder: Path) -> dict[int, tuple[int, set[int]]]:
    """Return restart -> (number of workers, ranks that have begun); 0 is the first start.

    Workers that meet at one place are of one round, whatever their agents count.

    Args:
        folder: of the attempt.
    """
    found: dict[int, tuple[int, set[int]]] = {}
    number: dict[object, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / RESTARTS).read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):
                facts = json.loads(line)
                where = (facts.get("meet"), None if "meet" in facts else facts["restart"])
                n = number.setdefault(where, len(number))
                _, ranks = found.get(n, (0, set()))
                ranks.add(facts["rank"])
                found[n] = (facts["world"], ranks)
    return found


def incomplete(folder: Path) -> int | None:
    """Return the newest restart if some of its workers have not begun; else None."""
    found = rounds(folder)
    newest = max(found, default=0)
    return newest if newest and len(found[newest][1]) < found[newest][0] else None
