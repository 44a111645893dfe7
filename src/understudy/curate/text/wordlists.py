"""Lists of words that filters take from files, and patterns that find them quickly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from understudy.core.errors import DataError

EXAMPLES = Path(__file__).parent / "lists"
"""Small lists of ours that show the form; use lists of your own for real pages."""


def read_list(path: str | Path | None, example: str, where: str) -> list[str]:
    """Return the entries of a list, in lower case, each once, sorted.

    Args:
        path: a UTF-8 text file, one entry a line; blank lines and lines that begin with `#` are
            passed over. None takes the example of ours.
        example: name of that example.
        where: what needs the list, for messages.

    Raises:
        DataError: the file cannot be read, or has no entry.
    """
    file = EXAMPLES / f"{example}.txt" if path is None else Path(path)
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: {where} needs a list in UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise DataError(
            f"{file}: the list that {where} needs cannot be read ({error.strerror}); give a text "
            "file with one entry a line, or leave the option out for the example list."
        ) from None
    entries = {e.lower() for line in lines if (e := line.strip()) and not e.startswith("#")}
    if not entries:
        raise DataError(f"{file}: the list that {where} needs has no entry.")
    return sorted(entries)


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches any of some words, longest first, with shared beginnings once.

    Time to match does not grow with the number of words, as it does for plain alternatives.
    """
    tree: dict[str, dict] = {}
    for word in words:
        node = tree
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _pattern(tree)


def _pattern(node: dict[str, dict]) -> str:
    ends = "" in node
    rest = [re.escape(char) + _pattern(after) for char, after in sorted(node.items()) if char]
    if not rest:
        return ""
    if len(rest) == 1 and not ends:
        return rest[0]
    return f"(?:{'|'.join(rest)}){'?' if ends else ''}"
