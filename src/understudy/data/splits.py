"""Which rows are for learning, for choosing and for the final score."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.data.store import Store

TRAIN, VAL, TEST = "train", "val", "test"
"""Names of the splits that have a meaning: learned from, chosen on, scored on."""


def training_filter(store: Store) -> str:
    """Return the SQL filter of the rows to learn from when nobody says which.

    The split `train` where there is one; else every row that is neither `val` nor `test`, rows
    without a split included. Empty where rows have no split: all rows.
    """
    if not store.has("split"):
        return ""
    train = f"split = '{TRAIN}'"
    if len(store.where(train)):
        return train
    # In SQL a comparison with null is neither true nor false: without the first half, rows of no
    # split would be lost.
    return f"split IS NULL OR split NOT IN ('{VAL}', '{TEST}')"
