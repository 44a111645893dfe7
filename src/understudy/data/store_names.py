"""Logical column names and what they are called inside Lance. This is the only place that knows.

Logical names contain dots (`view.main.0`). In Lance a dot separates nested fields, so a stored
name has a colon for every dot; logical names may not contain a colon, which keeps the map
one-to-one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from understudy.core.errors import DataError

_LOGICAL = re.compile(r"[A-Za-z0-9][\w.\-+/@]*")
_RESERVED = ("_rowid", "_rowaddr", "row")
# A quoted string, a back-quoted name, or a bare word that may be a dotted or dashed column name.
_TOKEN = re.compile(r"'(?:[^']|'')*'|`[^`]*`|[A-Za-z_][\w.\-+/@]*")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def physical(column: str) -> str:
    """Return the name under which Lance stores a logical column."""
    return column.replace(".", ":")


def logical(name: str) -> str:
    """Return the logical name of a stored column; the inverse of `physical`."""
    return name.replace(":", ".")


def check_name(column: str) -> str:
    """Return `column` if it can be a logical column name.

    Raises:
        DataError: it is empty, reserved, or has other characters than letters, digits and `_.-+/@`.
    """
    if not _LOGICAL.fullmatch(column) or column in _RESERVED:
        raise DataError(
            f"'{column}' cannot be a column name: expected letters, digits and any of _.-+/@, "
            f"starting with a letter or digit, and none of {', '.join(_RESERVED)}."
        )
    return column


def missing(column: str, columns: Collection[str], where: str) -> DataError:
    """Return the error for a column that is not there, with near matches."""
    near = difflib.get_close_matches(column, list(columns), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has: {', '.join(columns)}."
    return DataError(f"{where} has no column '{column}'. {hint}")


def check_columns(wanted: Iterable[str], columns: Collection[str], where: str) -> list[str]:
    """Return `wanted` as a list after checking that every column exists.

    Raises:
        DataError: none is wanted, or one does not exist; the message lists near matches.
    """
    if isinstance(wanted, str):
        raise DataError(f"columns must be a list of names, got the string '{wanted}'.")
    names = list(wanted)
    if not names:
        raise DataError(f"no column was asked for; {where} has: {', '.join(columns)}.")
    for name in names:
        if name not in columns:
            raise missing(name, columns, where)
    return names


def rewrite_filter(text: str, columns: Collection[str]) -> str:
    """Replace logical column names in an SQL filter by quoted stored names.

    `view.main.0 IS NOT NULL`, with or without back-quotes, is understood; text inside quotes is
    left alone.
    """

    def replace(match: re.Match[str]) -> str:
        token = match.group()
        name = token[1:-1] if token[0] == "`" else token
        if token[0] == "'" or name not in columns:
            return token
        stored = physical(name)
        return stored if _PLAIN.fullmatch(stored) else f"`{stored}`"

    return _TOKEN.sub(replace, text)
