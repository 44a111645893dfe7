"""In which order the items of a gallery are encoded again.

| policy | first come the items | needs |
| --- | --- | --- |
| `uncertainty` | whose mapped vector the map trusts least | the map's uncertainties |
| `ascending` | whose mapped vector it trusts most: a control, to do worse than chance | the same |
| `random` | drawn by seed | nothing |
| `distance` | whose mapped vector is farthest from the new model's | the new vectors: a diagnosis |
| `class-mean` | whose mapped vector is farthest from the mean of its class | labels |

Scores are compared, never exponentiated or rounded: uncertainties are logarithms of a variance, and
+-1000 sorts like any other number. Equal scores are ordered by id.

References:
    arXiv 2303.04766 (uncertainty, and the other orders as brackets); class-mean distances come
    from later work on lambda-orthogonality regularisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng

POLICIES = ("uncertainty", "ascending", "random", "distance", "class-mean")
"""What a plan can order by."""

SCORED = ("uncertainty", "ascending", "distance", "class-mean")

Ids = Sequence[str] | pa.Array | pa.ChunkedArray


def order_by_score(scores: np.ndarray, ids: Ids, *, ascending: bool = False) -> np.ndarray:
    """Return the positions int64 [N] by score, largest first; equal scores by id.

    Args:
        scores: [N] of any float type.
        ids: [N] distinct strings; of equal scores the smaller id (by its UTF-8 bytes) comes first.
        ascending: smallest first.

    Raises:
        DataError: a score is NaN, named by its id; or the lengths differ.
    """
    scores = np.asarray(scores)
    names = _arrow(ids)
    if scores.shape != (len(names),):
        raise DataError(f"order: expected {len(names)} scores, one an id; got {scores.shape}.")
    bad = np.isnan(scores)
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"order: the score of item '{names[i].as_py()}' is NaN; {int(bad.sum())} of "
            f"{len(scores)} are. Apply the map again, or use policy random."
        )
    plain = scores.astype(np.float64) + 0.0  # exact for any float type; no negative zero
    places = pa.array(np.arange(len(plain)))
    table = pa.table({"score": pa.array(plain), "id": names, "place": places})
    direction = "ascending" if ascending else "descending"
    ordered = table.sort_by([("score", direction), ("id", "ascending")])
    return ordered.column("place").to_numpy().astype(np.int64)


def random_order(count: int, seed: int) -> np.ndarray:
    """Return a permutation int64 [count] that depends on the seed alone."""
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}.")
    return rng("backfill", seed).permutation(count).astype(np.int64)


def order_of(
    policy: str, ids: Ids, *, scores: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Return the order int64 [N] of a policy: positions, the first to be encoded first.

    Args:
        policy: one of `POLICIES`.
        ids: [N] distinct strings.
        scores: [N] what the policy orders by: uncertainties for `uncertainty` and `ascending`,
            distances for `distance` and `class-mean`; none for `random`.
        seed: of `random`.

    Raises:
        ConfigError: no such policy.
        DataError: scores are missing or NaN.
    """
    check_choice(policy, POLICIES, "policy")
    if policy == "random":
        return random_order(len(ids), seed)
    if scores is None:
        raise DataError(f"policy {policy} needs a score for each item.")
    return order_by_score(scores, ids, ascending=policy == "ascending")


def distances(mapped: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    """Return ||n_i - z_i|| float64 [N] of mapped [N, D] and encoded [N, D] vectors."""
    difference = np.asarray(encoded, np.float64) - np.asarray(mapped, np.float64)
    return np.sqrt((difference**2).sum(1))


class ClassMeans:
    """Means of the vectors of each class, gathered in a stream.

    Args:
        labels: class of each item [N], numbers or strings; None, NaN and numbers below 0 are none.
        dim: width of the vectors.
    """

    def __init__(self, labels: Sequence[Any] | np.ndarray, dim: int) -> None:
        from understudy.evaluate.ranking import label_numbers

        self.numbers = label_numbers(labels, labels)[0].numpy()
        if (self.numbers < 0).any():
            i = int(np.argmax(self.numbers < 0))
            raise DataError(
                f"policy class-mean: item {i} has no label; {int((self.numbers < 0).sum())} of "
                f"{len(self.numbers)} have none. Label them, or use another policy."
            )
        # label numbers may be any whole numbers; tables want 0, 1, 2, ...
        _, self.numbers = np.unique(self.numbers, return_inverse=True)
        size = int(self.numbers.max()) + 1 if len(self.numbers) else 0
        self.sums = np.zeros((size, dim))
        self.counts = np.bincount(self.numbers, minlength=size)

    def add(self, start: int, vectors: np.ndarray) -> None:
        """Add the vectors [M, D] of items start, start + 1, ..."""
        classes = self.numbers[start : start + len(vectors)]
        by_class = np.argsort(classes, kind="stable")
        edges = np.flatnonzero(np.diff(classes[by_class], prepend=-1))
        self.sums[classes[by_class[edges]]] += np.add.reduceat(
            vectors[by_class].astype(np.float64), edges, axis=0
        )

    def distances(self, start: int, vectors: np.ndarray) -> np.ndarray:
        """Return the distance float64 [M] of items start, ... to the means of their classes."""
        classes = self.numbers[start : start + len(vectors)]
        return distances(vectors, self.sums[classes] / self.counts[classes, None])


def class_mean_distances(vectors: np.ndarray, labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return each vector's distance float64 [N] to the mean of its class.

    Args:
        vectors: [N, D].
        labels: [N] numbers or strings.

    Raises:
        DataError: an item has no label.
    """
    means = ClassMeans(labels, vectors.shape[1])
    if len(vectors):
        means.add(0, vectors)
    return means.distances(0, vectors)


def _arrow(ids: Ids) -> pa.Array | pa.ChunkedArray:
    if isinstance(ids, pa.Array | pa.ChunkedArray):
        return ids
    return pa.array([str(name) for name in ids], pa.string())
