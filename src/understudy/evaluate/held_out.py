"""Score models on a store's held-out rows, whatever these can be scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError

if TYPE_CHECKING:
    from understudy.data.store import Store


def held_out_rows(store: Store, split: str = "test") -> np.ndarray:
    """Return the row numbers of a split; none if the store has no such rows."""
    if not store.has("split"):
        return np.arange(0)
    return np.asarray(store.where(f"split = '{split}'"), np.int64)


def scorer(
    store: Store, split: str = "test", **options: Any
) -> Callable[[Any], Mapping[str, float]] | None:
    """Return `evaluate(model) -> metrics` on a split; None if the store has no such rows.

    Zero-shot prompts come from the store's `meta["prompts"]` (one list a class) where it has them.
    Rows of a label below 0 have no class: they count for retrieval, not for classification.

    Args:
        store: with the split.
        split: its name.
        **options: passed to `evaluate_model`.
    """
    from understudy.evaluate.run import evaluate_model

    rows = held_out_rows(store, split)
    if not len(rows):
        return None
    meta = store.meta
    if "prompts" in meta and "classes" in meta and "prompts" not in options:
        options["prompts"] = dict(zip(meta["classes"], meta["prompts"], strict=True))
    label = options.get("label", "label")
    labelled = rows
    if store.has(label):
        values = store.array(label, rows)
        if np.issubdtype(values.dtype, np.integer):
            labelled = rows[values >= 0]
    if len(labelled) == len(rows) or "tasks" in options:
        return lambda model: evaluate_model(model, store, rows=rows, **options)

    def both(model: Any) -> dict[str, float]:
        if not hasattr(model, "encode_text"):
            return evaluate_model(model, store, rows=labelled, **options)
        found = evaluate_model(model, store, rows=rows, tasks=("retrieval",), **options)
        if len(labelled) and "classes" in meta:
            more = evaluate_model(model, store, rows=labelled, tasks=("zeroshot",), **options)
            found |= {k: v for k, v in more.items() if k != "rows"}
        return found

    return both


def needed_scorer(store: Store, split: str = "test") -> Callable[[Any], Mapping[str, float]]:
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
