"""Memory planned before the start: what is free, and a refusal that names what would fit."""

from __future__ import annotations

from understudy.core.memory import available_bytes

RESERVED_BYTES = 1 << 28
"""Left to the interpreter, the libraries and the batches of pages."""


def budget_bytes(given: int = 0) -> int | None:
    """Return what a step may take: `given`, or what is free less a reserve; None if unknown."""
    if given:
        return given
    free = available_bytes()
    return None if free is None else max(0, free - RESERVED_BYTES)


def readable(count: float) -> str:
    """Return bytes with a binary unit, such as `6.54 TiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.2f} {unit}"
        count /= 1024
    raise AssertionError
