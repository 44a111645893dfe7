"""What differs between two specs, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 5
_MISSING = object()


def differences(before: Any, after: Any) -> str:
    """Return the first differences as `path: old -> new`, separated by semicolons.

    Args:
        before: plain data.
        after: plain data.
    """
    found: list[str] = []
    _walk(before, after, "", found)
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _walk(before: Any, after: Any, path: str, found: list[str]) -> None:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else str(key)
            _walk(before.get(key, _MISSING), after.get(key, _MISSING), inner, found)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            _walk(one, other, f"{path}[{i}]", found)
    else:
        found.append(f"{path}: {_shown(before)} -> {_shown(after)}")


def _shown(value: Any) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
