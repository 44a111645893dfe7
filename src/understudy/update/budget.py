"""How much to backfill: a fraction of what is left, a percentage, or a number of items."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from understudy.core.errors import ConfigError

_UNITS = (
    "A budget is a fraction in [0, 1] (0.5 is half of the items that are left), a percentage "
    "('50%') or a number of items ('50items')"
)
_WRITTEN = re.compile(r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|[-+]?nan|[-+]?inf)\s*(%|items?)?", re.I)


@dataclass(frozen=True, slots=True)
class Budget:
    """A checked budget.

    Attributes:
        text: as it was given.
        fraction: exact share of the items that are left; None for a count.
        count: number of items; None for a share.
    """

    text: str
    fraction: Fraction | None
    count: int | None

    def of(self, remaining: int) -> tuple[int, int]:
        """Return (items to encode, items of the budget that nothing is left for).

        A share is rounded down, as the grid of a curve is.
        """
        if self.fraction is not None:
            return math.floor(self.fraction * remaining), 0
        asked = self.count or 0
        return min(asked, remaining), max(0, asked - remaining)


def parse_budget(value: str | float | int) -> Budget:
    """Read a budget.

    Args:
        value: 0.2, "0.2", "20%" or "5000items".

    Raises:
        ConfigError: not a number, NaN, negative, or a number above 1 without a unit; the message
            explains the units.
    """
    text = str(value).strip().replace(",", "").replace("_", "")
    match = _WRITTEN.fullmatch(text)
    try:
        number = float(match[1]) if match else float("x")
        exact = Fraction(match[1]) if match and math.isfinite(number) else None
    except ValueError:
        raise ConfigError(f"budget '{value}' is not a number. {_UNITS}.") from None
    if match is None or exact is None:
        raise ConfigError(f"budget '{value}' is not finite. {_UNITS}.")
    if number < 0:
        raise ConfigError(f"budget '{value}' is negative. {_UNITS}.")
    unit = (match[2] or "").lower()
    if unit.startswith("item"):
        if exact.denominator != 1:
            raise ConfigError(f"budget '{value}': items are whole numbers. {_UNITS}.")
        return Budget(text, None, int(exact))
    share = exact * Fraction(1, 100) if unit == "%" else exact
    if share > 1:
        hint = f"write '{text}%' or '{text}items', whichever is meant" if unit == "" else ""
        more = f"; {hint}" if hint else ""
        raise ConfigError(f"budget '{value}' is more than everything. {_UNITS}{more}.")
    return Budget(text, share, None)
