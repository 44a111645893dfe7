"""What vectors are refused for, and what their lengths say about how they were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import DataError

UNIT_TOLERANCE = 1e-2
"""How far a stored unit vector may be from length 1: 16-bit storage rounds each number."""
MIXED = (0.05, 0.95)
"""Between these shares of unit vectors, a column holds both normalised and other vectors."""
SHOWN = 5


def check_vectors(
    values: np.ndarray, names: Callable[[np.ndarray], list[str]], what: str
) -> np.ndarray:
    """Refuse vectors that are not finite or all zero; return their lengths, float64 [N].

    Args:
        values: [N, d].
        names: `names(places)` returns the ids of rows of `values`.
        what: what they are, for the message.

    Raises:
        DataError: the ids of the first bad rows are named.
    """
    # In float64 no square of a float32 overflows or vanishes, so one pass tells everything.
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    for bad, kind in ((~np.isfinite(lengths), "NaN or infinity"), (lengths == 0, "only zeros")):
        if bad.any():
            places = np.flatnonzero(bad)
            shown = ", ".join(f"'{name}'" for name in names(places[:SHOWN]))
            more = f" and {len(places) - SHOWN:,} more" if len(places) > SHOWN else ""
            raise DataError(
                f"{what}: the vectors of items {shown}{more} hold {kind}; encode these items again "
                "or leave them out."
            )
    return lengths


@dataclass
class Norms:
    """Lengths of vectors, added up.

    Attributes:
        count: vectors seen.
        total: sum of their lengths.
        units: how many are of length 1.
    """

    count: int = 0
    total: float = 0.0
    units: int = 0

    def add(self, lengths: np.ndarray) -> None:
        """Count vectors by their lengths [N]."""
        self.count += len(lengths)
        self.total += float(lengths.sum())
        self.units += int((np.abs(lengths - 1) <= UNIT_TOLERANCE).sum())

    @property
    def unit_share(self) -> float:
        """Share of vectors of length 1."""
        return self.units / max(self.count, 1)

    def describe(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "mean": round(self.total / max(self.count, 1), 6),
            "unit_share": round(self.unit_share, 6),
        }

    def mixed(self) -> bool:
        """Say whether some vectors are normalised and others are not."""
        return MIXED[0] < self.unit_share < MIXED[1]


def check_same_norms(found: Norms, expected: dict[str, Any] | None, what: str) -> None:
    """Refuse vectors that are normalised where a map learned from others, or the reverse.

    Args:
        found: lengths of what the map is applied to.
        expected: `Norms.describe()` of what it learned from; None is not compared.
        what: what they are, for the message.

    Raises:
        DataError: they were made in another way.
    """
    if not expected or not found.count:
        return
    here, there = found.unit_share, expected["unit_share"]
    if (here >= MIXED[1] and there <= MIXED[0]) or (here <= MIXED[0] and there >= MIXED[1]):
        made, learned = ("are", "were not") if here > there else ("are not", "were")
        raise DataError(
            f"{what}: these vectors {made} normalised (mean length "
            f"{found.total / found.count:.4g}), those that the map learned from {learned} (mean "
            f"length {expected['mean']:.4g}); give vectors made in the same way."
        )
