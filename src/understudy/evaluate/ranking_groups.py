"""How much worse off one group of queries is than the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.ranking_blocks import Rankings


def smallest_group(groups: Sequence[Any] | np.ndarray, counted: np.ndarray | None = None) -> Any:
    """Return the group with the fewest members, of equals the one that sorts first.

    Args:
        groups: one a query.
        counted: bool [Q], which members count; all when absent.

    Raises:
        DataError: there are fewer than two groups.
    """
    values = np.asarray(groups, object)
    sizes = Counter(values if counted is None else values[counted])
    if len(sizes) < 2:
        raise DataError(f"subgroups: expected two or more groups, got {sorted(map(str, sizes))}.")
    return min(sizes, key=lambda name: (sizes[name], str(name)))


def group_cmc(
    found: Rankings, groups: Sequence[Any] | np.ndarray, *, k: int = 1, variant: int = 0
) -> dict[Any, float]:
    """Return CMC top-k of the queries of each group that have something relevant.

    Args:
        found: rankings of Q queries.
        groups: [Q] the group of each query.
        k: of CMC.
        variant: of the rankings.
    """
    values = _groups(groups, found)
    counted = found.relevant > 0
    hit = found.first[variant] < k
    names = dict.fromkeys(values[counted].tolist())
    return {name: float(hit[counted & (values == name)].mean()) for name in names}


def cmc_gap(
    found: Rankings,
    groups: Sequence[Any] | np.ndarray,
    minority: Any,
    *,
    k: int = 1,
    variant: int = 0,
) -> float:
    """Return CMC top-k of all other queries minus that of the minority's.

    Positive: the minority is worse off.

    Args:
        found: rankings of Q queries.
        groups: [Q] the group of each query.
        minority: one of the groups.
        k: of CMC.
        variant: of the rankings.

    Raises:
        DataError: no query of the minority, or of the others, has something relevant.
    """
    values = _groups(groups, found)
    if k < 1:
        raise ConfigError(f"subgroups: k must be at least 1, got {k}.")
    counted = found.relevant > 0
    inside = counted & np.array([value == minority for value in values], bool)
    outside = counted & ~inside
    for part, name in ((inside, f"group {minority!r}"), (outside, "the other groups")):
        if not part.any():
            known = ", ".join(sorted({str(v) for v in values}))
            raise DataError(
                f"subgroups: no query of {name} has anything relevant; groups are: {known}."
            )
    hit = found.first[variant] < k
    return float(hit[outside].mean() - hit[inside].mean())


def _groups(groups: Sequence[Any] | np.ndarray, found: Rankings) -> np.ndarray:
    values = np.asarray(groups, object)
    if values.shape != found.relevant.shape:
        raise DataError(
            f"subgroups: expected a group for each of {len(found.relevant)} queries, got "
            f"{list(values.shape)}."
        )
    return values
