"""Scores of vectors for queries: fast in float32 to choose, exact in float64 to rank.

A matrix product's last bits depend on how many rows are multiplied at once. So a product only
chooses candidates, with a bound on its error; those are scored one by one in float64, rounded to
float32 and ranked by score and row number. The answer does not depend on blocks, threads or on
where a row happens to lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import DataError

METRICS = ("cosine", "dot", "l2")
_EPS = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


def check_queries(queries: object, dim: int, where: str) -> np.ndarray:
    """Return queries as float32 [Q, dim].

    Args:
        queries: `[Q, dim]` or `[dim]`.
        dim: width of the vectors that are searched.
        where: what is searched, for messages.

    Raises:
        DataError: another width, NaN or infinity.
    """
    try:
        found = np.atleast_2d(np.asarray(queries, np.float32))
    except (TypeError, ValueError):
        raise DataError(f"{where}: the query is not a list of numbers.") from None
    if found.ndim != 2 or found.shape[1] != dim:
        raise DataError(
            f"{where}: the query has {found.shape[-1]} numbers, the gallery's vectors have {dim}; "
            "encode the query with the gallery's model."
        )
    if not np.isfinite(found).all():
        raise DataError(f"{where}: the query holds NaN or infinity.")
    return np.ascontiguousarray(found)


def squared_norms(vectors: np.ndarray) -> np.ndarray:
    """Return the squared lengths float32 [N] of vectors float32 [N, D]."""
    return np.einsum("nd,nd->n", vectors, vectors)


class Kernel:
    """Scores for some queries by one metric; larger is nearer in everything but `shown`.

    Args:
        queries: float32 [Q, D], finite.
        metric: `cosine`, `dot` or `l2`.
    """

    def __init__(self, queries: np.ndarray, metric: str) -> None:
        check_choice(metric, METRICS, "metric")
        self.metric = metric
        self._exact = queries.astype(np.float64)
        lengths = np.sqrt((self._exact**2).sum(1))
        if metric == "cosine":
            self._exact = self._exact / np.maximum(lengths, _TINY)[:, None]
        scale = 2.0 if metric == "l2" else 1.0
        self._fast = np.ascontiguousarray((scale * self._exact).astype(np.float32))
        self._lengths = np.sqrt((self._fast.astype(np.float64) ** 2).sum(1))

    def __len__(self) -> int:
        return len(self._exact)

    def keys(self, vectors: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """Return float32 [Q, N], for each query in the order of its scores up to `slack`.

        Args:
            vectors: float32 [N, D].
            squared: float32 [N], from `squared_norms`.
        """
        if len(self._fast) == 1:  # a matrix times a vector reads the rows at memory speed
            keys = (vectors @ self._fast[0])[None]
        else:
            keys = self._fast @ vectors.T
        if self.metric == "cosine":
            keys /= np.maximum(np.sqrt(squared), _TINY)
        elif self.metric == "l2":  # |q|^2 - |q - v|^2
            keys -= squared
        return keys

    def slack(self, largest: float, dim: int) -> np.ndarray:
        """Return float64 [Q]: how far two keys may be from the order of their exact scores.

        Args:
            largest: largest squared length among the vectors.
            dim: numbers in a vector.
        """
        length = 1.0 if self.metric == "cosine" else float(np.sqrt(largest))
        # of a sum of `dim` rounded products, and of the division by a rounded length
        bound = 2 * (dim + 8) * _EPS * self._lengths * length
        if self.metric == "l2":
            # the squares' own error, and the rounding of the distance that ties are judged by
            bound = bound + (dim + 8) * _EPS * largest + _EPS * (self._lengths / 2 + length) ** 2
        return 2 * bound + _TINY

    def exact(self, query: int, vectors: np.ndarray) -> np.ndarray:
        """Return the scores float32 [N] of one query, rounded once from float64."""
        wide, q = np.ascontiguousarray(vectors, np.float64), self._exact[query]
        # sums along rows: unlike a product's, a row's bits do not depend on its neighbours
        if self.metric == "l2":
            return -np.sqrt(((wide - q) ** 2).sum(1)).astype(np.float32)
        dots = (wide * q).sum(1)
        if self.metric == "cosine":
            dots = dots / np.maximum(np.sqrt((wide**2).sum(1)), _TINY)
        return dots.astype(np.float32)

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """Return scores as people expect them: similarities, or distances for `l2`."""
        return -scores if self.metric == "l2" else scores


def candidates(keys: np.ndarray, k: int, slack: float) -> np.ndarray:
    """Return the places int64 [M] of all that may be among the k nearest.

    Args:
        keys: float32 [N]; -inf leaves one out.
        k: neighbours wanted.
        slack: from `Kernel.slack`.
    """
    if len(keys) > k:
        worst = np.partition(keys, len(keys) - k)[len(keys) - k]
        if np.isfinite(worst):
            return np.flatnonzero(keys >= worst - slack)
    return np.flatnonzero(np.isfinite(keys))


@dataclass(frozen=True, slots=True)
class Hits:
    """Nearest rows of some queries, nearest first.

    Attributes:
        rows: int64 [Q, k] row numbers; -1 where there are fewer than k.
        scores: float32 [Q, k]: cosine, dot product (larger is nearer) or Euclidean distance
            (smaller is); infinitely far where there is no row.
        encoded: bool [Q, k]; the model's own vector, else a mapped one.
    """

    rows: np.ndarray
    scores: np.ndarray
    encoded: np.ndarray


class Ranking:
    """The k best rows of each query so far; equal scores are ranked by row number."""

    def __init__(self, kernel: Kernel, k: int) -> None:
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}.")
        self.kernel, self.k = kernel, k
        self._scores = np.full((len(kernel), k), -np.inf, np.float32)
        self._rows = np.full((len(kernel), k), -1, np.int64)
        self._encoded = np.zeros((len(kernel), k), bool)

    def offer(self, query: int, rows: np.ndarray, vectors: np.ndarray, encoded: np.ndarray) -> None:
        """Rank rows int64 [N] with vectors float32 [N, D] among the best of a query."""
        scores = np.concatenate([self._scores[query], self.kernel.exact(query, vectors)])
        rows = np.concatenate([self._rows[query], rows])
        encoded = np.concatenate([self._encoded[query], encoded])
        order = np.lexsort((rows, -scores))[: self.k]
        self._scores[query], self._rows[query] = scores[order], rows[order]
        self._encoded[query] = encoded[order]

    def hits(self) -> Hits:
        """Return what was ranked."""
        return Hits(self._rows, self.kernel.shown(self._scores), self._encoded)
