"""Score models on a store's held-out rows, whatever these can be scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.splits import TEST, VAL

if TYPE_CHECKING:
    from understudy.data.store import Store


def held_out_rows(store: Store, split: str = TEST) -> np.ndarray:
    """Return the row numbers of a split; none if the store has no such rows."""
    if not store.has("split"):
        return np.arange(0)
    return np.asarray(store.where(f"split = '{split}'"), np.int64)


@dataclass(frozen=True)
class Scorer:
    """Score models on the rows of a split: `scorer(model) -> metrics`.

    Attributes:
        store: with the split.
        split: its name.
        rows: int64 row numbers.
        options: passed to `evaluate_model`.
    """

    store: Store
    split: str
    rows: np.ndarray
    options: Mapping[str, Any]

    def __call__(self, model: Any) -> Mapping[str, float]:
        """Return a model's metrics, see `evaluate_model`."""
        from understudy.evaluate.run import evaluate_model

        return evaluate_model(model, self.store, rows=self.rows, **self.options)


def scorer(store: Store, split: str = TEST, **options: Any) -> Scorer | None:
    """Return what scores models on a split; None if the store has no such rows.

    Zero-shot prompts come from the store's `meta["prompts"]` (one list a class) where it has them.

    Args:
        store: with the split.
        split: its name.
        **options: passed to `evaluate_model`.
    """
    rows = held_out_rows(store, split)
    if not len(rows):
        return None
    meta = store.meta
    if "prompts" in meta and "classes" in meta and "prompts" not in options:
        options["prompts"] = dict(zip(meta["classes"], meta["prompts"], strict=True))
    return Scorer(store, split, rows, options)


def watcher(store: Store, **options: Any) -> Scorer | None:
    """Return what scores a student while it trains and chooses its best weights: split `val`.

    None if the store has no such rows: then whoever chooses does so on the rows of the final score,
    which makes the score of the chosen weights too good.
    """
    return scorer(store, VAL, **options)


def needed_scorer(store: Store, split: str = TEST) -> Scorer:
    """Return what `scorer` returns.

    Raises:
        DataError: the store has no rows of that split.
    """
    found = scorer(store, split)
    if found is None:
        raise DataError(
            f"{store.path}: no rows of split '{split}' to score students on; import some with "
            f"--split {split}."
        )
    return found
