"""Steps of the curate job of `chaos.py`, named `chaos_steps:...` in its pipeline."""

from __future__ import annotations

import time
from typing import Any


def slow(page: Any, seconds: float) -> list[Any]:
    """Hand a page on after a while, so that there is something to interrupt."""
    time.sleep(seconds)
    return [page]


def shout(page: Any) -> list[Any]:
    """Write a page in capitals."""
    page.text = page.text.upper()
    return [page]
