"""Tables of vectors behind a fastText model: dense, product-quantised, or mostly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Matrix(Protocol):
    """A table of float32 rows that is read by row number."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), columns]."""
        ...


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """Every number is there.

    Attributes:
        values: float32 [M, D]; may be a memory map.
    """

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), D]."""
        return np.asarray(self.values[ids], np.float32)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """A few rows hold numbers, all others are zero.

    Attributes:
        num_rows: M.
        index: int64 [K], sorted numbers of the rows that are stored.
        values: float32 [K, D].
    """

    num_rows: int
    index: np.ndarray
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.num_rows, self.values.shape[1]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), D]."""
        out = np.zeros((len(ids), self.values.shape[1]), np.float32)
        if len(self.index):
            place = np.minimum(np.searchsorted(self.index, ids), len(self.index) - 1)
            there = self.index[place] == ids
            out[there] = self.values[place[there]]
        return out


@dataclass(frozen=True, slots=True)
class QuantMatrix:
    """Product quantisation: each run of `width` columns is one of 256 centroids.

    Attributes:
        codes: uint8 [M, parts].
        centroids: for each part float32 [256, columns of the part].
        norms: float32 [M], the factor of each row, or None.

    References:
        Joulin et al. 2016, "FastText.zip", arXiv 1612.03651.
    """

    codes: np.ndarray
    centroids: tuple[np.ndarray, ...]
    norms: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.codes.shape[0], sum(c.shape[1] for c in self.centroids)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), D]."""
        codes = self.codes[ids]
        parts = [c[codes[:, m]] for m, c in enumerate(self.centroids)]
        out = np.concatenate(parts, axis=1)
        return out if self.norms is None else out * self.norms[ids][:, None]


def project(matrix: Matrix, weights: np.ndarray, chunk: int = 65_536) -> np.ndarray:
    """Return float32 [M, L]: every row times `weights` [L, D], a chunk of rows at a time.

    A classifier over a mean of rows is the mean of the classifier over rows, so that with few
    labels this small table replaces the large one.
    """
    if isinstance(matrix, SparseRows):
        out = np.zeros((matrix.shape[0], len(weights)), np.float32)
        out[matrix.index] = matrix.values @ weights.T
        return out
    out = np.empty((matrix.shape[0], len(weights)), np.float32)
    for start in range(0, len(out), chunk):
        stop = min(start + chunk, len(out))
        out[start:stop] = matrix.rows(np.arange(start, stop)) @ weights.T
    return out


def segment_sums(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return float64 [N, D]: the sums of runs of rows, `counts[i]` of them each; empty runs are 0.

    Args:
        rows: [total, D].
        counts: int64 [N], summing to `total`.
    """
    out = np.zeros((len(counts), rows.shape[1]))
    full = counts > 0
    if not full.any():
        return out
    starts = (np.cumsum(counts) - counts)[full]
    if rows.shape[1] <= 8:  # a column at a time is several times faster than whole rows
        for column in range(rows.shape[1]):
            values = np.ascontiguousarray(rows[:, column])
            out[full, column] = np.add.reduceat(values, starts, dtype=np.float64)
    else:
        out[full] = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    return out
