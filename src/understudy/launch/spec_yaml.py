"""YAML without its surprises, with line and column.

Words are what they look like: `on`, `yes` and `12:30` are strings, `1e5` is a number (the core
schema of YAML 1.2). A key that is there twice is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from understudy.core.errors import ConfigError

Position = tuple[int, int]
"""Line and column, from 1."""
Keys = dict[tuple[str | int, ...], Position]
"""Path of keys and list positions -> where its key (or list item) is."""

_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for kind, pattern, first in _RESOLVERS:
        for letter in first:
            entry = (f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"))
            table.setdefault("" if letter == "\0" else letter, []).append(entry)
    return table


_Loader.yaml_implicit_resolvers = _resolvers()  # type: ignore[assignment]
# Written so that readers of YAML 1.1, too, see words as words: `on` gets quotes.
_Dumper.yaml_implicit_resolvers = {  # type: ignore[assignment]
    letter: [
        *_resolvers().get(letter, ()),
        *yaml.SafeDumper.yaml_implicit_resolvers.get(letter, ()),
    ]
    for letter in {*_resolvers(), *yaml.SafeDumper.yaml_implicit_resolvers}
}


def _number(convert: Callable[[str], Any]) -> Callable[[yaml.SafeLoader, Any], Any]:
    return lambda loader, node: convert(str(loader.construct_scalar(node)))


_Loader.add_constructor("tag:yaml.org,2002:float", _number(float))
_Loader.add_constructor("tag:yaml.org,2002:int", _number(lambda text: int(text, 0)))


def read(text: str, where: str) -> tuple[Any, Keys]:
    """Parse YAML, or JSON when `where` ends with `.json`.

    Args:
        text: the file's text.
        where: its name, for messages.

    Returns:
        the data, and where each key is.

    Raises:
        ConfigError: a tab, another slip of syntax, or a key that is there twice; the message gives
            line and column.
    """
    data: Any = None
    if where.endswith(".json"):
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{where}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})."
            ) from None
        # Tabs are blanks in JSON and errors in YAML; strings of JSON hold none.
        text = text.replace("\t", " ")
    try:
        node = yaml.compose(text, _Loader)
        keys: Keys = {}
        if node is not None:
            _walk(node, (), keys, where)
        if not where.endswith(".json"):
            data = None if node is None else _Loader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(error, text, where)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({str(error).splitlines()[0]}).") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.") from None
    return data, keys


def _syntax(error: yaml.MarkedYAMLError, text: str, where: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{where}: not valid YAML ({error.problem})."
    lines = text.splitlines()
    for number in range(mark.line, max(mark.line - 2, -1), -1):
        line = lines[number] if number < len(lines) else ""
        blank = line[: len(line) - len(line.lstrip())]
        if "\t" in blank:
            return (
                f"{where}, line {number + 1}, column {blank.index(chr(9)) + 1}: a tab; YAML is "
                "indented with spaces."
            )
    at = f"line {mark.line + 1}, column {mark.column + 1}"
    return f"{where}, {at}: not valid YAML ({error.problem})."


def _walk(node: yaml.Node, path: tuple[str | int, ...], keys: Keys, where: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            keys[(*path, i)] = (item.start_mark.line + 1, item.start_mark.column + 1)
            _walk(item, (*path, i), keys, where)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}, line {at[0]}, column {at[1]}: a key is not a word.")
            if key.value == "<<":
                raise ConfigError(
                    f"{where}, line {at[0]}, column {at[1]}: '<<' merges mappings unseen; write "
                    "the keys out."
                )
            inner = (*path, key.value)
            if inner in keys:
                raise ConfigError(
                    f"{where}, line {at[0]}, column {at[1]}: the key '{key.value}' is there twice, "
                    f"first in line {keys[inner][0]}."
                )
            keys[inner] = at
            # keys are words, whatever they look like
            key.tag = "tag:yaml.org,2002:str"
            _walk(value, inner, keys, where)


def write(data: Any) -> str:
    """Write plain data as YAML that `read` reads back as the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=100)


def read_file(path: str | Path) -> tuple[Any, Keys]:
    """Parse a `.yaml`, `.yml` or `.json` file; see `read`.

    Raises:
        ConfigError: it is not there, or of another kind, or not valid.
    """
    if Path(path).suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(f"{path}: expected a .yaml, .yml or .json file.")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from None
    return read(text, str(path))


Locate = Callable[[tuple[str | int, ...]], str]


def locator(keys: Keys, where: str) -> Locate:
    """Return a function from a key's path to `"file, line L, column C"`."""

    def locate(path: tuple[str | int, ...]) -> str:
        while path and path not in keys:
            path = path[:-1]
        if not path:
            return where
        line, column = keys[path]
        return f"{where}, line {line}, column {column}"

    return locate
