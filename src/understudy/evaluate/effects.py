"""Tell the effect of captions from the effect of teachers: a 2x2 design, paired by seed.

Arms with better captions are often distilled too, so a gain has two possible causes. With all four
cells the two effects and their interaction can be read apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.evaluate.stats import Interval, bootstrap

Cells = Mapping[tuple[str, bool], Sequence[float]]
"""(captions, whether distilled) -> one value a seed, the seeds in one order."""

EFFECTS = {
    "captions, no distillation": {("new", False): 1.0, ("old", False): -1.0},
    "captions, with distillation": {("new", True): 1.0, ("old", True): -1.0},
    "captions, mean": {
        ("new", False): 0.5,
        ("old", False): -0.5,
        ("new", True): 0.5,
        ("old", True): -0.5,
    },
    "distillation, old captions": {("old", True): 1.0, ("old", False): -1.0},
    "distillation, new captions": {("new", True): 1.0, ("new", False): -1.0},
    "distillation, mean": {
        ("new", True): 0.5,
        ("new", False): -0.5,
        ("old", True): 0.5,
        ("old", False): -0.5,
    },
    "interaction": {
        ("new", True): 1.0,
        ("new", False): -1.0,
        ("old", True): -1.0,
        ("old", False): 1.0,
    },
}
"""Weights of the four cells; interaction = how much distillation adds more with new captions."""


def effects(cells: Cells, old: str, new: str) -> dict[str, Interval]:
    """Return the effects that the cells allow: all seven with four cells, fewer otherwise.

    Args:
        cells: scores.
        old: captions that are compared with.
        new: captions that should be better.

    Raises:
        DataError: cells of different numbers of seeds, or no effect that can be read.
    """
    names = {"old": old, "new": new}
    known = {
        key: np.asarray(values, np.float64) for key, values in cells.items() if key[0] in (old, new)
    }
    if len({len(values) for values in known.values()}) > 1:
        raise DataError("effects: the arms have different numbers of seeds; they are paired by it.")
    found = {}
    for effect, weights in EFFECTS.items():
        wanted = {(names[side], distilled): w for (side, distilled), w in weights.items()}
        if all(key in known for key in wanted):
            found[effect] = bootstrap(sum(w * known[key] for key, w in wanted.items()))  # type: ignore[arg-type]
    if not found:
        raise DataError(
            f"effects: no pair of arms that differ in one cause only, among {sorted(known)}."
        )
    return found


def to_plain(found: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    """Return effects as JSON-like data: mean, 95% interval (with at least two seeds), seeds."""
    return {
        name: {
            "mean": one.mean,
            "ci95": [one.low, one.high] if one.count > 1 else None,
            "seeds": one.count,
        }
        for name, one in found.items()
    }
