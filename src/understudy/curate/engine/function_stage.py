"""A function of your own as a stage."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import PageStage

ADDS = "_adds"
"""Argument of a step with a function: `{column: Arrow type}` of what it puts into `page.data`."""


class FunctionStage(PageStage):
    """A step of `function(page, **args) -> list of pages`.

    Args:
        name: `module:function`.
        function: what to call.
        args: its further arguments.
        adds: columns that it puts into `page.data`, with the names of their Arrow types; what the
            function's attribute `adds` says, if absent.

    Raises:
        ConfigError: a type that Arrow does not know.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        args: Mapping[str, Any],
        adds: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.function, self.args = name, function, dict(args)
        given = getattr(function, "adds", {}) if adds is None else adds
        self.adds = {column: _type(column, kind) for column, kind in given.items()}

    def pages(self, page: Page) -> list[Page]:
        """Call the function.

        Raises:
            DataError: it returned something else than pages, or a column that was not announced.
        """
        known = {*page.data, *self.adds}
        found = self.function(page, **self.args)
        if not isinstance(found, list) or not all(isinstance(p, Page) for p in found):
            raise DataError(
                f"{self.name}: page '{page.id}': expected a list of pages, got "
                f"{type(found).__name__}."
            )
        for one in found:
            new = set(one.data) - known
            if new:
                raise DataError(
                    f"{self.name}: page '{page.id}': columns {', '.join(sorted(new))} were not "
                    f"announced; add {ADDS}: {{{sorted(new)[0]}: float32}} to the step."
                )
        return found

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and a hash of the function's source."""
        try:
            source = hash_bytes(inspect.getsource(self.function).encode())
        except (OSError, TypeError):
            source = ""
        adds = {column: str(kind) for column, kind in self.adds.items()}
        return {"name": self.name, "args": self.args, "adds": adds, "source": source}


def _type(column: str, kind: Any) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        return kind
    try:
        return pa.type_for_alias(kind)
    except (ValueError, TypeError):
        raise ConfigError(f"{ADDS}.{column}: no Arrow type is called {kind!r}.") from None
