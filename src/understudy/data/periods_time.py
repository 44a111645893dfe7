"""Times of all kinds as comparable keys: dates, versions, whole numbers."""

from __future__ import annotations

import datetime
import re
from typing import Any

Key = tuple[int, ...]
Possible = tuple[int, int]
PARTS = 4
"""Numbers of a version's key: 12.1 is (12, 1, 0, 0)."""
_DATE = re.compile(r"(\d{4})(?:-?(\d{2})(?:-?(\d{2})(?:[T ].*)?)?)?")
_VERSION = re.compile(r"[vE]?(\d+(?:\.\d+){0,3})")


def parse_time(value: Any, kind: str, possible: Possible) -> Key | None:
    """Return the comparable key of a time; None for none and for one that cannot be.

    Args:
        value: a text, number, date or timestamp.
        kind: `date`, `version` or `number`.
        possible: the years that a date may have, ends included.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, datetime.date):  # and datetime
        value = value.strftime("%Y-%m-%d")
    if kind == "number":
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return (int(number),) if number.is_integer() else None
    text = f"{value:g}" if isinstance(value, float) else str(value).strip()
    if kind == "version":
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        parts = [int(part) for part in match.group(1).split(".")]
        return tuple(parts + [0] * (PARTS - len(parts)))
    return parse_date(text, possible)


def parse_date(text: str, possible: Possible) -> Key | None:
    """Return (year), (year, month) or (year, month, day); None for a day that cannot be."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    key = tuple(int(part) for part in match.groups() if part is not None)
    try:
        datetime.date(*(*key, 1, 1)[:3])
    except ValueError:
        return None
    return key if possible[0] <= key[0] <= possible[1] else None


def show_key(key: Key, kind: str) -> str:
    """Return the text of a key: 2018-03, 12.1, 7."""
    if kind == "date":
        return "-".join(f"{part:0{4 if i == 0 else 2}d}" for i, part in enumerate(key))
    if kind == "version":
        parts = list(key)
        while len(parts) > 2 and not parts[-1]:
            parts.pop()
        return ".".join(map(str, parts))
    return str(key[0])
