"""How sure a row of class scores is: the margin between the best two, the entropy of all."""

from __future__ import annotations

import numpy as np

from understudy.core.errors import ConfigError, DataError


def checked_scores(scores: np.ndarray) -> np.ndarray:
    """Return scores [n, C] with rows that sum to 1; rows of zeros stay zero.

    Raises:
        DataError: not two-dimensional, negative or not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"scores: expected an array [n, C], got the shape {values.shape}.")
    bad = ~(np.isfinite(values) & (values >= 0)).all(axis=1)
    if bad.any():
        raise DataError(f"scores: row {int(np.argmax(bad))} is negative or not finite.")
    totals = values.sum(axis=1, keepdims=True)
    return np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)


def margins(scores: np.ndarray) -> np.ndarray:
    """Return float64 [n]: largest minus second largest share of each row; 0 for a zero row."""
    shares = checked_scores(scores)
    if shares.shape[1] == 1:
        return shares[:, 0]
    top = np.partition(shares, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def entropies(scores: np.ndarray) -> np.ndarray:
    """Return float64 [n]: entropy of each row over log C, in [0, 1]; 1 for a zero row."""
    shares = checked_scores(scores)
    if shares.shape[1] == 1:
        return np.where(shares[:, 0] > 0, 0.0, 1.0)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    found = -(shares * logs).sum(axis=1) / np.log(shares.shape[1])
    return np.where(shares.sum(axis=1) > 0, np.clip(found, 0.0, 1.0), 1.0)


def keep_confident(
    scores: np.ndarray, *, min_margin: float = 0.0, max_entropy: float = 1.0
) -> np.ndarray:
    """Return bool [n]: rows sure enough to serve as pseudo-labels; zero rows never are.

    Args:
        scores: [n, C], not negative.
        min_margin: drop rows with a smaller margin.
        max_entropy: drop rows with a larger entropy.

    Raises:
        ConfigError: a bound outside of [0, 1].
    """
    for name, value in (("min_margin", min_margin), ("max_entropy", max_entropy)):
        if not 0 <= value <= 1:
            raise ConfigError(f"confidence: {name}: expected a number in [0, 1], got {value}.")
    known = np.asarray(scores).sum(axis=1) > 0
    return known & (margins(scores) >= min_margin) & (entropies(scores) <= max_entropy)
