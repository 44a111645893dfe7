"""Which rows of a store are evaluated, and what their labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.zeroshot import check_classes

if TYPE_CHECKING:
    from understudy.data.store import Store


def select_rows(
    store: Store, split: str | None = None, rows: np.ndarray | Sequence[int] | None = None
) -> np.ndarray:
    """Return row numbers int64: of a split, as given, or all.

    Raises:
        ConfigError: both are given.
        DataError: no such split (the splits are listed), a number outside the store, or no rows.
    """
    if split is not None and rows is not None:
        raise ConfigError("evaluate: give a split or rows, not both.")
    if rows is not None:
        chosen = np.asarray(rows, np.int64).reshape(-1)
        if chosen.size and not (0 <= chosen.min() and chosen.max() < store.num_rows):
            raise DataError(
                f"{store.path}: rows {chosen.min()}..{chosen.max()} asked for, but it has "
                f"{store.num_rows} rows."
            )
    elif split is not None:
        if "split" not in store.columns:
            raise DataError(f"{store.path}: no column 'split', so there is no split '{split}'.")
        quoted = split.replace("'", "''")
        chosen = np.asarray(store.where(f"split = '{quoted}'"), np.int64)
        if not chosen.size:
            known: set[str] = set()
            for batch in store.scan(["split"]):
                known |= {str(s) for s in batch.column(0).to_pylist() if s is not None}
            names = ", ".join(sorted(known)) or "none"
            raise DataError(f"{store.path}: no row has split '{split}'; there are: {names}.")
    else:
        chosen = np.arange(store.num_rows, dtype=np.int64)
    if not chosen.size:
        raise DataError(f"{store.path}: no rows to evaluate.")
    return chosen


def class_names(
    models: Sequence[Any], store: Store | None, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the class names to use: given ones, the model's, or the store's; () if none is known.

    Raises:
        DataError: names that are empty or there twice; or a model that was trained for another
            order of classes than the one about to be used.
    """
    known = [tuple(getattr(model.config, "classes", ())) for model in models]
    own = next((names for names in known if names), ())
    stored = tuple((store.meta.get("classes") or ()) if store is not None else ())
    if classes is not None:
        wanted = check_classes(classes)
    else:
        wanted = stored or own
    if wanted:
        check_classes(wanted)
    if own and wanted:
        for i in range(max(len(own), len(wanted))):
            ours, theirs = (names[i] if i < len(names) else None for names in (own, wanted))
            if ours != theirs:
                raise DataError(
                    f"classes: class {i} is {ours!r} for the model and {theirs!r} for the data; "
                    "the labels mean different things."
                )
    return wanted
