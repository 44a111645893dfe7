"""Which row of the store a reference record belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import read_json
from understudy.data.importers.common import Skips
from understudy.data.store import Store


def read_keys(keys: str | Path | Sequence[str]) -> list[str]:
    """Return the `id` of each index, from a list or a JSON file with one.

    Raises:
        DataError: not a list of strings, or one is listed twice.
    """
    names = read_json(keys) if isinstance(keys, str | Path) else list(keys)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise DataError(f"{keys}: expected a JSON list of ids.")
    if len(set(names)) != len(names):
        seen: set[str] = set()
        double = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise DataError(f"keys: '{double}' is listed twice.")
    return names


def match_rows(store: Store, names: list[str], indices: np.ndarray, skips: Skips) -> np.ndarray:
    """Return the row of each index, after checking keys, records and rows against each other.

    Args:
        store: the store with the images.
        names: the `id` of each index.
        indices: indices that have a record, sorted.
        skips: whether rows without a record may stay unfilled.

    Raises:
        DataError: they do not match; the message names the first key that differs.
    """
    if len(indices) and indices[-1] >= len(names):
        first = int(indices[np.searchsorted(indices, len(names))])
        raise DataError(
            f"records and keys differ in length: {len(names)} keys, but there is a record of index "
            f"{first}; the first without a key is {first}."
        )
    where: dict[str, int] = {}
    row = 0
    for batch in store.scan(["id"], batch_size=8192):
        for uid in batch.column(0).to_pylist():
            where[uid] = row
            row += 1
    rows = np.array([where.get(name, -1) for name in names], np.int64)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise DataError(
            f"keys and store differ: the first key without a row is '{names[missing[0]]}' (index "
            f"{missing[0]}); import the images of the whole data set first."
        )
    if len(names) != store.num_rows and not skips.skip:
        known = set(names)
        lone = next(uid for uid in where if uid not in known)
        raise DataError(
            f"keys and store differ in length: {len(names)} keys, {store.num_rows} rows; the first "
            f"row without a key is '{lone}' (on_missing='skip' leaves such rows unfilled)."
        )
    lacking = np.setdiff1d(np.arange(len(names)), indices)
    if len(lacking):
        message = (
            f"records and keys differ in length: {len(indices)} records, {len(names)} keys; the "
            f"first key without a record is '{names[lacking[0]]}' (index {lacking[0]})."
        )
        if not skips.skip:
            raise DataError(f"{message} on_missing='skip' leaves such rows unfilled.")
        skips.counts["no record"] = len(lacking)
        skips.first["no record"] = message
    return rows
