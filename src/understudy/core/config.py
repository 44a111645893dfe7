"""Dataclass configurations to and from plain data, with every unknown key named.

A misspelled key that is silently ignored costs a training run, so nothing here ignores one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.errors import ConfigError

T = TypeVar("T")


def check_keys(given: Collection[str], valid: Collection[str], where: str) -> None:
    """Raise `ConfigError` naming the first key not in `valid`, and a near match."""
    for key in given:
        if key not in valid:
            near = difflib.get_close_matches(str(key), list(valid), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            names = ", ".join(valid)
            raise ConfigError(f"{where}: unknown key '{key}'.{hint} Valid keys: {names}.")


def check_choice(value: str, valid: Collection[str], where: str) -> None:
    """Raise `ConfigError` unless `value` is one of `valid`."""
    if value not in valid:
        near = difflib.get_close_matches(str(value), list(valid), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{where}: '{value}' is not one of {', '.join(valid)}.{hint}")


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        errors = []
        for option in arguments:
            if option is type(None):
                continue
            try:
                return _convert(option, value, where)
            except ConfigError as error:
                errors.append(error)
        raise errors[0]
    if origin is typing.Literal:
        check_choice(value, arguments, where)
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_dict(kind, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(inner) != len(value):
            raise ConfigError(f"{where}: expected {len(inner)} values, got {len(value)}.")
        pairs = zip(inner, value, strict=True)
        return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(pairs))
    if origin is list and isinstance(value, list | tuple):
        return [_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {k: _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type):
        wrong_bool = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or wrong_bool:
            raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}.")
    return value


def from_dict(cls: type[T], data: Mapping[str, Any], where: str | None = None) -> T:
    """Build the dataclass `cls` from plain data, recursively.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type; the message gives the
            path of the key and, for an unknown one, the nearest valid key.
    """
    where = where or cls.__name__
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    check_keys(data, fields, where)
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in data:
            raise ConfigError(f"{where}: missing key '{name}'.")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()})


LATER = {"later": True}
"""Metadata of a field that came after data with hashes of its class were written: `to_dict` leaves
it out where it has its default, so that those hashes (and runs that go on) stay what they were."""


def to_dict(config: Any, *, full: bool = False) -> Any:
    """Turn a dataclass (or a container of them) into JSON-like data.

    Args:
        config: what to turn.
        full: also give fields that are marked as `LATER` and have their default.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            f.name: to_dict(getattr(config, f.name), full=full)
            for f in dataclasses.fields(config)
            if full or not (f.metadata.get("later") and getattr(config, f.name) == f.default)
        }
    if isinstance(config, Mapping):
        return {str(k): to_dict(v, full=full) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(v, full=full) for v in config]
    return str(config) if isinstance(config, Path) else config


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) mapping.

    Raises:
        ConfigError: the file is missing, does not parse or is not a mapping.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file.") from None
    except yaml.YAMLError as error:
        detail = str(error).replace("\n", " ")
        raise ConfigError(f"{path}: not valid YAML ({detail}).") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values.")
    return data
