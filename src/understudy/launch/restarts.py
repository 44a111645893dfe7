"""Restarts of all workers that torchrun made inside an attempt; see `worker`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from understudy.launch.worker import RESTARTS


def rounds(folder: Path) -> dict[int, tuple[int, set[int]]]:
    """Return restart -> (number of workers, ranks that have begun); 0 is the first start.

    Args:
        folder: of the attempt.
    """
    found: dict[int, tuple[int, set[int]]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / RESTARTS).read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):
                facts = json.loads(line)
                _, ranks = found.get(facts["restart"], (0, set()))
                ranks.add(facts["rank"])
                found[facts["restart"]] = (facts["world"], ranks)
    return found


def incomplete(folder: Path) -> int | None:
    """Return the newest restart if some of its workers have not begun; else None."""
    found = rounds(folder)
    newest = max(found, default=0)
    return newest if newest and len(found[newest][1]) < found[newest][0] else None
