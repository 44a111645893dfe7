"""What samplers share: checks of their arguments, and a small cache of permutations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError


class Recent:
    """The few permutations last used; they can be drawn again, so losing one costs only time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.items, self.lock = limit, OrderedDict(), Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` gave for `key`, calling it if that was dropped."""
        with self.lock:
            if key in self.items:
                self.items.move_to_end(key)
                return self.items[key]
        value = make()
        with self.lock:
            self.items[key] = value
            while len(self.items) > self.limit:
                self.items.popitem(last=False)
        return value

    def __getstate__(self) -> int:
        return self.limit

    def __setstate__(self, limit: int) -> None:
        self.__init__(limit)


def check_rows(rows: int | Sequence[int] | np.ndarray) -> tuple[int, np.ndarray | None]:
    """Return (how many rows, their numbers if they are not 0 to count - 1).

    Raises:
        ConfigError: there are none, or a number is negative.
    """
    if isinstance(rows, int | np.integer):
        count, chosen = int(rows), None
    else:
        chosen = np.ascontiguousarray(rows, np.int64)
        if chosen.ndim != 1 or (len(chosen) and chosen.min() < 0):
            raise ConfigError("sampler rows: expected row numbers, a list of integers from 0 on.")
        count = len(chosen)
    if count < 1:
        raise ConfigError("sampler: there are no rows to draw from.")
    return count, chosen


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"sampler {name}: expected an integer of at least {least}, got {value}.")
