"""Names to code without importing it: lazy tables and optional dependencies."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from understudy.core.errors import ConfigError, MissingExtraError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: what to import, for example `"onnxruntime"`.
        extra: the extra of this package that brings it.
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed, or it is and fails to import; the message says what
            to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingExtraError(
                f'{purpose} needs {module}: pip install "understudy[{extra}]".'
            ) from None
        raise MissingExtraError(
            f"{purpose} needs {module}, which is installed but misses {error.name}: "
            f'pip install "understudy[{extra}]".'
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"{purpose} needs {module}, which is installed but does not import "
            f"({str(error).splitlines()[0]}). A torchvision built for another torch does this: "
            f'pip install "understudy[{extra}]" with the torchvision that matches your torch.'
        ) from error


def installed(module: str) -> bool:
    """Say whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


class LazyTable(Mapping[str, str]):
    """A read-only table `name -> "module:attribute"`; nothing is imported until `load`.

    Args:
        kind: what the names are, for messages ("model", "recipe", ...).
        entries: the table.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            ConfigError: no such name; the message lists near matches.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(self)}."
            raise ConfigError(f"there is no {self.kind} '{name}'. {hint}")
        module, _, attribute = self._entries[name].partition(":")
        loaded = importlib.import_module(module)
        return getattr(loaded, attribute) if attribute else loaded
