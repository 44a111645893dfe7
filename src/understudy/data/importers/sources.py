"""Lists of shards by other names than a folder: `info.json`, and patterns with braces.

The released generator of reinforced sets takes `info.json`, `{"lengths": {shard: count}}`, or a
pattern such as `shards/{00000..00127}.tar` (arXiv 2508.20691).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.core.files import read_json

INFO = "info.json"
MAX_NAMES = 1_000_000
"""Names that a pattern may stand for."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def has_braces(source: str | Path) -> bool:
    """Say whether a source is a pattern and not the name of something that is there."""
    return _BRACES.search(str(source)) is not None and not Path(source).exists()


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern stands for, in its order.

    `{00..12}` counts, with leading zeros as in its first number; `{a,b}` lists.

    Raises:
        DataError: an empty range or list, or more than a million names.
    """
    parts: list[list[str]] = []
    at, count = 0, 1
    for match in _BRACES.finditer(pattern):
        parts.append([pattern[at : match.start()]])
        parts.append(list(itertools.islice(_choices(match[1], pattern), MAX_NAMES + 1)))
        count *= len(parts[-1])
        if count > MAX_NAMES:
            raise DataError(f"{pattern}: stands for more than {MAX_NAMES:,} names.")
        at = match.end()
    parts.append([pattern[at:]])
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def _choices(inside: str, pattern: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        if ".." in inside or "," not in inside or not all(inside.split(",")):
            raise DataError(
                f"{pattern}: '{{{inside}}}' is neither a range such as {{0000..0127}} nor a list "
                "such as {a,b}."
            )
        yield from inside.split(",")
        return
    first, last = (int(n) for n in numbers.groups())
    if last < first:
        raise DataError(f"{pattern}: the range '{{{inside}}}' is empty.")
    wide = len(numbers[1])
    yield from (f"{n:0{wide}d}" for n in range(first, last + 1))


def info_counts(source: Path) -> dict[Path, int]:
    """Return the samples of each shard that an `info.json` lists.

    A shard's path counts from where the program runs, else from the folder of the file.

    Raises:
        DataError: not of this form, or shards that are not on this machine.
    """
    data: Any = read_json(source)
    lengths = data.get("lengths") if isinstance(data, dict) else None
    if not isinstance(lengths, dict) or not lengths:
        raise DataError(f"{source}: expected {{'lengths': {{shard: count}}}} with some shards.")
    found: dict[Path, int] = {}
    for name, count in lengths.items():
        if "://" in name:
            raise DataError(
                f"{source}: '{name}' is not on this machine; copy the shards here and list their "
                "paths, or import their folder."
            )
        path = Path(name)
        if not path.is_file() and not path.is_absolute():
            path = source.parent / path
        if path in found:
            raise DataError(f"{source}: '{name}' comes twice.")
        try:
            found[path] = int(count)
        except (TypeError, ValueError):
            raise DataError(f"{source}: the count of '{name}' is {count!r}, no number.") from None
    return found


def named_files(source: Path) -> list[Path] | None:
    """Return the files that an `info.json` or a pattern names, or `None` for any other source.

    Raises:
        DataError: a file is missing, or comes twice.
    """
    if source.name == INFO and source.is_file():
        found = list(info_counts(source))
    elif has_braces(source):
        found = [Path(name) for name in expand_braces(str(source))]
    else:
        return None
    for path in found:
        if not path.is_file():
            raise DataError(f"{source}: there is no file '{path}'.")
    twice = len(found) - len({path.resolve() for path in found})
    if twice:
        raise DataError(f"{source}: {twice} of its files come twice.")
    return found


def there_is(source: str | Path) -> bool:
    """Say whether a source names anything on this machine."""
    return Path(source).exists() or has_braces(source)
