"""What a policy orders by, read from a store in a stream."""

from __future__ import annotations

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.store import Store
from understudy.update.columns import scan_values, scan_vectors, uncertainty_column, vector_width
from understudy.update.orders import ClassMeans, distances


def policy_scores(
    store: Store,
    policy: str,
    mapped: str,
    wanted: np.ndarray,
    *,
    labels: str = "",
    oracle: str = "",
) -> np.ndarray | None:
    """Return the score of each wanted row, in row order; None for policy random.

    At most a few megabytes of vectors are in memory, and 8 bytes an item.

    Args:
        store: where the columns are.
        policy: one of `understudy.update.orders.POLICIES`.
        mapped: mapped column.
        wanted: bool [num_rows] rows to score; the mapped column is filled in all of them.
        labels: column of classes, for `class-mean`.
        oracle: column of the new model's vectors, for `distance`.

    Raises:
        DataError: the map has no uncertainty head, or a needed column is not filled.
        ConfigError: a policy's column is not named.
    """
    if policy == "random":
        return None
    if policy in ("uncertainty", "ascending"):
        return uncertainties(store, mapped, wanted)
    scores = np.empty(int(wanted.sum()))
    if policy == "distance":
        if not oracle:
            raise ConfigError(
                "policy distance orders by how far mapped vectors are from the new model's own, so "
                "it is a diagnosis and saves nothing: name the column that holds those of all "
                "items (--oracle COLUMN), or use policy uncertainty."
            )
        for start, (z, n) in scan_vectors(store, [mapped, oracle], wanted):
            scores[start : start + len(z)] = distances(z, n)
        return scores
    if not labels:
        raise ConfigError("policy class-mean needs a class for each item (--labels COLUMN).")
    classes = scan_values(store, labels, wanted)
    if classes.null_count:
        row = int(np.flatnonzero(wanted)[np.argmin(classes.is_valid().to_numpy())])
        raise DataError(
            f"policy class-mean: {classes.null_count} items have no '{labels}', the first is row "
            f"{row}. Label them, or use another policy."
        )
    means = ClassMeans(classes.to_pylist(), vector_width(store, mapped))
    for start, (z,) in scan_vectors(store, [mapped], wanted):
        means.add(start, z)
    for start, (z,) in scan_vectors(store, [mapped], wanted):
        scores[start : start + len(z)] = means.distances(start, z)
    return scores


def uncertainties(store: Store, mapped: str, wanted: np.ndarray) -> np.ndarray:
    """Return the uncertainty float32 of each wanted row, in row order.

    Raises:
        DataError: the map predicts none, or there is none for a wanted row.
    """
    column = uncertainty_column(mapped)
    if not store.has(column):
        raise DataError(
            f"{store.path}: no column '{column}': this map has no uncertainty head; use --policy "
            "random or refit with the uncertainty loss ('understudy update fit')."
        )
    values = scan_values(store, column, wanted)
    if values.null_count:
        row = int(np.flatnonzero(wanted)[np.argmin(values.is_valid().to_numpy())])
        raise DataError(
            f"column '{column}' of {store.path} is empty in row {row}, where '{mapped}' is filled; "
            "apply the map again ('understudy update apply')."
        )
    found = values.to_numpy()
    if found.dtype == object:  # stored as a list of one number
        found = np.array([v[0] for v in found], np.float32)
    return found
