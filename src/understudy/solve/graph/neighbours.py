"""Nearest neighbours, exactly: a block of queries against all points at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import require
from understudy.solve.graph.scipy_parts import is_sparse

BLOCK_BYTES = 32 << 20
SLACK = 8
"""Candidates beyond k whose distances are computed again without cancellation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """The k nearest points of each node, nearest first; of equals the lower number comes first.

    Attributes:
        indices: int32 [n, k].
        distances: float64 [n, k], increasing.
    """

    indices: np.ndarray
    distances: np.ndarray

    def __post_init__(self) -> None:
        if self.indices.shape != self.distances.shape or self.indices.ndim != 2:
            raise DataError(
                f"neighbours: expected indices and distances [n, k], got {self.indices.shape} and "
                f"{self.distances.shape}."
            )


class ExactSearch:
    """Exact neighbours in a set of points; memory is bounded whatever their number.

    Args:
        points: what `checked_features` returned, [n, d].
        block_bytes: working memory.
    """

    def __init__(self, points: Any, block_bytes: int = BLOCK_BYTES) -> None:
        self.sparse = is_sparse(points)
        self.block_bytes = block_bytes
        # centred points lose least in |x|^2 + |y|^2 - 2 x.y
        self.centre = None if self.sparse else points.mean(axis=0, dtype=np.float64)
        self.points = points if self.sparse else self._centred(points)
        self.norms = _squares(self.points)

    @property
    def n(self) -> int:
        """Number of points."""
        return int(self.points.shape[0])

    def neighbours(self, k: int, rows: np.ndarray | None = None) -> Neighbours:
        """Return the k nearest other points of points themselves.

        Args:
            k: neighbours.
            rows: int64 [m], which points to ask for; all when absent.

        Raises:
            ConfigError: k is not in [1, n - 1].
        """
        if not 1 <= k <= self.n - 1:
            raise ConfigError(
                f"graph: k: expected 1 to {self.n - 1} neighbours among {self.n} points, got {k}."
            )
        rows = np.arange(self.n) if rows is None else np.asarray(rows, np.int64)
        return self._search(self.points, rows, k, own=True)

    def query(self, values: Any, k: int) -> Neighbours:
        """Return the k nearest points of other values [m, d], for which nothing is left out.

        Raises:
            ConfigError: k is not in [1, n].
            DataError: another width, or dense for sparse.
        """
        if not 1 <= k <= self.n:
            raise ConfigError(f"graph: k: expected 1 to {self.n} neighbours, got {k}.")
        if values.shape[1] != self.points.shape[1] or is_sparse(values) != self.sparse:
            raise DataError(
                f"features: expected {'sparse' if self.sparse else 'dense'} rows of "
                f"{self.points.shape[1]} numbers, got {values.shape[1]}."
            )
        values = values if self.sparse else self._centred(values)
        return self._search(values, np.arange(values.shape[0]), k, own=False)

    def _centred(self, values: Any) -> np.ndarray:
        return (values - self.centre).astype(values.dtype)

    def _search(self, source: Any, rows: np.ndarray, k: int, own: bool) -> Neighbours:
        found = np.empty((len(rows), k), np.int32)
        distances = np.empty((len(rows), k))
        step = self._block_rows(k)
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            stop = at + len(part)
            found[at:stop], distances[at:stop] = self._block(source[part], part, k, own)
        return Neighbours(indices=found, distances=distances)

    def _block_rows(self, k: int) -> int:
        row = 2 * self.norms.itemsize * self.n  # distances, and slack
        again = 3 * 8 * (k + SLACK) * (1 if self.sparse else self.points.shape[1])
        return max(1, self.block_bytes // (row + again))

    def _block(
        self, queries: Any, rows: np.ndarray, k: int, own: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        product = queries @ self.points.T
        product = product.toarray() if self.sparse else product
        # |x|^2 of the query is the same along a row and changes no order
        rough = product
        rough *= -2.0
        rough += self.norms[None, :]
        if own:
            rough[np.arange(len(rows)), rows] = np.inf
        most = self.n - 1 if own else self.n
        wide = min(k + SLACK, most)
        candidates = _smallest(rough, wide)
        squares = self._again(queries, candidates)
        order = np.lexsort((candidates, squares), axis=1)[:, :k]
        chosen = np.take_along_axis(candidates, order, axis=1)
        return chosen, np.sqrt(np.take_along_axis(squares, order, axis=1))

    def _again(self, queries: Any, candidates: np.ndarray) -> np.ndarray:
        """Return squared distances [m, c] from differences: equal points are at exactly 0."""
        if not self.sparse:
            difference = self.points[candidates].astype(np.float64) - queries[:, None, :]
            return np.einsum("mcd,mcd->mc", difference, difference)
        m, c = candidates.shape
        difference = queries[np.repeat(np.arange(m), c)] - self.points[candidates.ravel()]
        return np.asarray(difference.multiply(difference).sum(axis=1)).reshape(m, c)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    require("numba", "solve", "the search for neighbours")
    from understudy.solve.graph.select_kernels import smallest

    return smallest(values, count)


def _squares(values: Any) -> np.ndarray:
    if is_sparse(values):
        return np.asarray(values.multiply(values).sum(axis=1)).ravel()
    return np.einsum("nd,nd->n", values, values)
