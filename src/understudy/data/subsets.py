"""Label subsets that are nested: the rows of a smaller share are among those of a larger one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng


def label_count(share: float, total: int) -> int:
    """Return how many rows a share stands for: a number up to 1 is a fraction, else a count.

    Raises:
        ConfigError: not positive, more than there are, or a count that is not whole.
    """
    if not share > 0:
        raise ConfigError(f"labels: expected a fraction in (0, 1] or a count, got {share}.")
    if share > 1:
        if share != int(share):
            raise ConfigError(f"labels: {share} is above 1, so it is a count and must be whole.")
        if share > total:
            raise ConfigError(f"labels: {int(share)} labelled rows asked for, there are {total}.")
        return int(share)
    return max(1, round(share * total))


def nested_subsets(
    rows: Sequence[int] | np.ndarray, shares: Sequence[float], seed: int
) -> dict[int, np.ndarray]:
    """Return a random subset of rows for each share, each containing all smaller ones.

    A subset depends on the rows, its size and the seed alone, not on the other shares.

    Args:
        rows: row numbers, all different.
        shares: fractions in (0, 1], or counts above 1 (1 is everything).
        seed: of the order.

    Returns:
        count -> row numbers int64 [count], ascending; in the order of growing counts.

    Raises:
        ConfigError: no rows or shares, doubled rows, or a share that does not fit.
    """
    pool = np.unique(np.asarray(rows, np.int64))
    if len(pool) != len(rows) or not len(pool):
        raise ConfigError(f"label subsets: {len(rows)} rows, {len(pool)} of them different.")
    if not len(shares):
        raise ConfigError("label subsets: give at least one fraction or count.")
    counts = sorted({label_count(share, len(pool)) for share in shares})
    order = rng("label-subset", seed).permutation(len(pool))
    return {count: np.sort(pool[order[:count]]) for count in counts}


def held_back(
    rows: Sequence[int] | np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows to learn from, `count` rows held back to choose settings on), both ascending.

    Raises:
        ConfigError: nothing would be left to learn from, or nothing held back.
    """
    pool = np.sort(np.asarray(rows, np.int64))
    if not 0 < count < len(pool):
        raise ConfigError(
            f"validation: {count} of {len(pool)} rows held back; expected at least 1 and fewer "
            "than there are."
        )
    order = rng("label-validation", seed).permutation(len(pool))
    return np.sort(pool[order[count:]]), np.sort(pool[order[:count]])
