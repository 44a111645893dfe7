"""Specs as text: YAML or JSON to a `JobSpec` and back; mistakes with line and column."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.config import from_dict, to_dict
from understudy.core.errors import ConfigError
from understudy.launch import spec_yaml
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Rates

_PART = re.compile(r"\.([^.\[\]:]+)|\[(\d+)\]")


def load(path: str | Path) -> JobSpec:
    """Read a spec from a `.yaml`, `.yml` or `.json` file.

    A relative `workdir`, `python.lock`, `python.wheelhouse` and `budget.rate_table` (a file of
    prices) are relative to the file.

    Raises:
        ConfigError: a mistake; with line and column where the text shows it.
    """
    data, keys = spec_yaml.read_file(path)
    folder = Path(path).absolute().parent
    return parse(data, spec_yaml.locator(keys, str(path)), folder)


def loads(text: str, where: str = "spec.yaml", folder: str | Path = ".") -> JobSpec:
    """Read a spec from text; see `load`."""
    data, keys = spec_yaml.read(text, where)
    return parse(data, spec_yaml.locator(keys, where), Path(folder).absolute())


def dumps(spec: JobSpec) -> str:
    """Write a spec as YAML; `loads` of it gives an equal spec."""
    return spec_yaml.write(to_dict(spec))


def parse(data: Any, locate: spec_yaml.Locate, folder: Path) -> JobSpec:
    """Build a spec from plain data.

    Args:
        data: what the text says.
        locate: path of a key -> where it is.
        folder: what relative paths are relative to.

    Raises:
        ConfigError: as `load`.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{locate(())}: expected a mapping of keys to values.")
    if data.get("schema", 1) != 1:
        raise ConfigError(
            f"{locate(('schema',))}: schema: expected 1, the version that this package reads, got "
            f"{data['schema']!r}."
        )
    data = _anchored(dict(data), folder)
    _check_keys(data, JobSpec, (), locate)
    try:
        return from_dict(JobSpec, data, where="\0")
    except ConfigError as error:
        raise ConfigError(_located(str(error), locate)) from None


def _anchored(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make relative paths absolute, and read prices from their file."""
    if isinstance(data.get("workdir"), str) and data["workdir"]:
        data["workdir"] = str((folder / Path(data["workdir"]).expanduser()).resolve())
    python = data.get("python")
    if isinstance(python, Mapping):
        data["python"] = {
            k: str((folder / v).resolve())
            if k in ("lock", "wheelhouse") and isinstance(v, str) and v
            else v
            for k, v in python.items()
        }
    budget = data.get("budget")
    if isinstance(budget, Mapping) and isinstance(budget.get("rate_table"), str):
        path = folder / budget["rate_table"]
        table, keys = spec_yaml.read_file(path)
        locate = spec_yaml.locator(keys, str(path))
        if not isinstance(table, Mapping):
            raise ConfigError(f"{path}: expected a mapping of prices.")
        _check_keys(table, Rates, (), locate)
        try:
            rates = from_dict(Rates, table, where="\0")
        except ConfigError as error:
            raise ConfigError(_located(str(error), locate)) from None
        data["budget"] = {**budget, "rate_table": to_dict(rates)}
    return data


def _check_keys(
    data: Any, kind: Any, path: tuple[str | int, ...], locate: spec_yaml.Locate
) -> None:
    """Raise `ConfigError` at the first key that its dataclass does not have."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for option in typing.get_args(kind):
            if dataclasses.is_dataclass(option):
                _check_keys(data, option, path, locate)
        return
    if typing.get_origin(kind) is tuple and isinstance(data, list | tuple):
        for i, item in enumerate(data):
            _check_keys(item, typing.get_args(kind)[0], (*path, i), locate)
        return
    if not dataclasses.is_dataclass(kind) or not isinstance(data, Mapping):
        return
    hints = typing.get_type_hints(kind)
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"{locate((*path, key))}: unknown key '{key}'.{hint} Valid keys: "
                f"{', '.join(hints)}."
            )
        _check_keys(value, hints[key], (*path, key), locate)


def _located(message: str, locate: spec_yaml.Locate) -> str:
    """Put line and column in front of a message that begins with the path of a key."""
    if not message.startswith("\0"):
        return f"{locate(())}: {message}"
    head, _, rest = message[1:].partition(": ")
    path: list[str | int] = []
    for word, number in _PART.findall(head):
        path.append(word or int(number))
    shown = head.removeprefix(".")
    return f"{locate(tuple(path))}: {shown + ': ' if shown else ''}{rest}"
