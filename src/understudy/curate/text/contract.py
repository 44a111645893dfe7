"""What the text stages share: settings are their fields, and decide their identity."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from understudy.core.errors import ConfigError
from understudy.curate.engine.stage import Stage


class Described(Stage):
    """A stage that is a dataclass: what decides its result are its fields."""

    def describe(self) -> dict[str, Any]:
        """Return the name and the settings."""
        if not is_dataclass(self):
            return {"name": self.name}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {"name": self.name, **given}

    def check_range(self, field: str, low: float, high: float = float("inf")) -> None:
        """Refuse a setting that is no number from `low` to `high`.

        Raises:
            ConfigError: it is not; the message names stage and field.
        """
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self.name}: {field} must be a number, got {value!r}.")
        if not low <= value <= high:
            upto = "" if high == float("inf") else f" and at most {high:g}"
            raise ConfigError(f"{self.name}: {field} must be at least {low:g}{upto}, got {value}.")
