"""Components of a graph and matrices that have the constant vector in their null space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.lazy import require

ZERO = 1e-12
"""Row sums below this share of the absolute row sums are zero."""
CONSISTENT = 1e-8
"""Sums of b below this share of its norm are rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Components:
    """The connected components of a matrix.

    Attributes:
        count: how many there are.
        label: int32 [n], the component of each unknown.
        singular: int64, components on which `A 1 = 0`.
    """

    count: int
    label: np.ndarray
    singular: np.ndarray

    def size(self, component: int) -> int:
        """Return the number of unknowns of a component."""
        return int((self.label == component).sum())


def find_components(matrix: Any) -> Components:
    """Return the components of a matrix and on which of them every row sums to zero."""
    graph: Any = require("scipy.sparse.csgraph", "solve", "the solver")
    count, label = graph.connected_components(matrix, directed=False)
    sums = np.abs(np.asarray(matrix.sum(axis=1)).ravel())
    sizes = np.asarray(abs(matrix).sum(axis=1)).ravel()
    largest = np.zeros((count, 2))
    np.maximum.at(largest[:, 0], label, sums)
    np.maximum.at(largest[:, 1], label, sizes)
    singular = np.flatnonzero(largest[:, 0] <= ZERO * largest[:, 1])
    return Components(count=int(count), label=label, singular=singular)


def check_regular(components: Components) -> None:
    """Raise `DataError` if a matrix is singular because its rows sum to zero."""
    if components.singular.size:
        k = int(components.singular[0])
        raise DataError(
            f'A*1 = 0 on component {k} ({components.size(k)} nodes): pass null="constant" or '
            "add tau (A + tau*D)."
        )


def check_consistent(components: Components, b: np.ndarray) -> None:
    """Raise `DataError` if a right-hand side [n, r] does not sum to zero where it has to."""
    total = np.zeros((components.count, b.shape[1]))
    size = np.zeros_like(total)
    np.add.at(total, components.label, b)
    np.add.at(size, components.label, np.abs(b))
    for k in components.singular:
        wrong = np.flatnonzero(np.abs(total[k]) > CONSISTENT * size[k])
        if wrong.size:
            column = f", column {wrong[0]}" if b.shape[1] > 1 else ""
            raise DataError(
                f"b is not orthogonal to the null space: on component {k} "
                f"({components.size(int(k))} nodes{column}) it sums to "
                f"{total[k, wrong[0]]:.6g}, and it must sum to 0."
            )


def grounds(matrix: Any, components: Components) -> np.ndarray:
    """Return one unknown of each singular component, that with the largest diagonal.

    Without them the matrix is regular; with their value fixed at 0 the solution is the same up to
    a constant a component.
    """
    diagonal = matrix.diagonal()
    order = np.lexsort((-diagonal, components.label))
    label = components.label[order]
    first = np.concatenate(([True], label[1:] != label[:-1]))
    return np.sort(order[first][np.isin(label[first], components.singular)])


def centred(x: np.ndarray, components: Components) -> np.ndarray:
    """Return x [n, r] with mean zero on every singular component."""
    total = np.zeros((components.count, x.shape[1]))
    np.add.at(total, components.label, x)
    mean = total / np.bincount(components.label, minlength=components.count)[:, None]
    part = np.isin(np.arange(components.count), components.singular)
    return x - np.where(part[:, None], mean, 0.0)[components.label]
