"""What the commands share: parsing by tyro, configuration files, tables."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.config import from_dict, load_yaml, to_dict
from understudy.core.errors import ConfigError

T = TypeVar("T")


def parse(function: Callable[..., T], argv: Sequence[str], prog: str) -> T:
    """Call `function` with the arguments that its signature and docstring describe."""
    import tyro

    return tyro.cli(function, args=list(argv), prog=prog, config=(tyro.conf.OmitArgPrefixes,))


def take_option(argv: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Remove `--name VALUE` (or `--name=VALUE`) from `argv`; return the value and the rest."""
    rest = list(argv)
    for i, word in enumerate(rest):
        if word == name:
            if i + 1 >= len(rest):
                raise ConfigError(f"{name} needs a value.")
            value = rest[i + 1]
            del rest[i : i + 2]
            return value, rest
        if word.startswith(name + "="):
            del rest[i]
            return word[len(name) + 1 :], rest
    return None, rest


def take_options(argv: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Remove `--name VALUE ...` from `argv`; return the values (up to an option) and the rest.

    Raises:
        ConfigError: the option is there without a value.
    """
    if name not in argv:
        return [], list(argv)
    start = list(argv).index(name)
    stop = start + 1
    while stop < len(argv) and not argv[stop].startswith("--"):
        stop += 1
    if stop == start + 1:
        raise ConfigError(f"{name} needs a value.")
    return list(argv[start + 1 : stop]), [*argv[:start], *argv[stop:]]


def take_flag(argv: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """Remove the flag `name` from `argv`; say whether it was there."""
    return name in argv, [word for word in argv if word != name]


def take_name(argv: Sequence[str], prog: str, kind: str) -> tuple[str, list[str]]:
    """Take the leading positional word off `argv`."""
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"{prog}: name a {kind} first, for example '{prog} mobileclip'.")
    return argv[0], list(argv[1:])


def parse_config(cls: type[T], argv: Sequence[str], prog: str) -> T:
    """Build the dataclass `cls`: its defaults, then `--config FILE` (YAML), then the options.

    Raises:
        ConfigError: the file has an unknown key or a value of the wrong type.
    """
    import tyro

    path, rest = take_option(argv, "--config")
    default: Any = None
    if path is not None:
        base: dict[str, Any] = {}
        if Path(path).suffix not in (".yaml", ".yml", ".json"):
            raise ConfigError(f"--config {path}: expected a .yaml, .yml or .json file.")
        base.update(load_yaml(path))
        default = from_dict(cls, base, where=str(path))
    if default is None:
        return tyro.cli(cls, args=rest, prog=prog)
    return tyro.cli(cls, args=rest, prog=prog, default=default)


def positional_store(argv: Sequence[str]) -> list[str]:
    """Let a command whose config has a `store` field take it as its first positional word."""
    if argv and not argv[0].startswith("-"):
        return ["--store", argv[0], *argv[1:]]
    return list(argv)


def show(data: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    """Print `data` as JSON, or as the text that `text` makes of it."""
    if dataclasses.is_dataclass(data):
        plain = to_dict(data)
    else:
        plain = data
    print(json.dumps(plain, indent=2, default=str) if as_json else text(data))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Format rows as a plain aligned table; numbers are right-aligned."""
    cells = [[str(h) for h in header], *[[_cell(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [
        all(isinstance(r[i], int | float) or r[i] is None for r in rows) for i in range(len(header))
    ]

    def line(row: Sequence[str]) -> str:
        pairs = zip(row, widths, numeric, strict=True)
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in pairs).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(cells[0]), rule, *[line(row) for row in cells[1:]]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def note(text: str) -> None:
    """Print a line to standard error, where it does not mix with a command's output."""
    print(text, file=sys.stderr, flush=True)
