"""What hierarchical factorizations count up to at sizes beyond a laptop."""

from __future__ import annotations

from math import log2

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost

ENTRIES = {2: 5, 3: 7}
"""Entries a row of the 5-point and 7-point Laplacian."""
FLOATS = {2: 9.6, 3: 49.4}
"""Stored numbers an entry at eps 0.01 and of second order, measured at 1 million unknowns (2D) and
262 thousand (3D)."""
MICROSECONDS = {2: 4.0, 3: 65.0}
"""Processor time of the factorization an unknown, with its tree, measured at the same sizes."""


def plan(
    scale: str = "paper", price_per_hour: float = 0.05, unknowns: int = 300_000_000, dims: int = 3
) -> Plan:
    """Count memory and time of a factorization.

    Args:
        scale: `"paper"`; the default is the largest published problem of this family (deferred
            compression, 300 million unknowns on a thousand processors).
        price_per_hour: money per core and hour.
        unknowns: size of the system.
        dims: 2 or 3.

    Raises:
        ConfigError: an unknown scale or dimension.
    """
    check_choice(scale, ("paper",), "plan of hierarchical-solver, scale")
    if dims not in ENTRIES:
        raise ConfigError(f"plan of hierarchical-solver: dims: expected 2 or 3, got {dims}.")
    if unknowns < 1:
        raise ConfigError(
            f"plan of hierarchical-solver: unknowns: expected at least 1, got {unknowns}."
        )
    made = Plan(recipe="hierarchical-solver", scale=scale)
    entries = ENTRIES[dims] * unknowns
    made.add("unknowns", unknowns, "", source="1811.11248, abstract")
    made.add("entries", entries, "", formula=f"{ENTRIES[dims]} x unknowns")
    made.add("levels of the tree", max(0, round(log2(unknowns / 32))), "", formula="log2(n / 32)")
    made.add(
        "factors", 8 * FLOATS[dims] * entries, "B", formula=f"8 x {FLOATS[dims]} x entries, linear"
    )
    direct = 8 * 2 * unknowns * log2(max(unknowns, 2)) if dims == 2 else 64 * unknowns ** (4 / 3)
    made.add(
        "factors of sparse LU", direct, "B",
        formula="8 x 2 n log2 n" if dims == 2 else "8 x 8 n^(4/3)", source="George 1973",
    )  # fmt: skip
    seconds = MICROSECONDS[dims] * 1e-6 * unknowns
    made.add(
        "factorization, one core", seconds, "s", formula=f"{MICROSECONDS[dims]:g} us x unknowns"
    )
    made.add("one application", 4 * FLOATS[dims] * entries, "FLOP", formula="4 x stored numbers")
    add_cost(made, {"factorization, cores": seconds / 3600}, price_per_hour)
    made.notes += [
        "numbers an entry and time an unknown are this project's measurements, taken as "
        "constant; in 3D ranks still grow at the sizes measured.",
        "this package runs on one machine; larger systems need a distributed implementation.",
    ]
    return made
