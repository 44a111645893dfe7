"""Features of nodes, checked: dense or sparse, Euclidean or by angle."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.solve.graph.scipy_parts import is_sparse, sparse

METRICS = ("euclidean", "cosine")
LARGEST, LARGEST32 = 1e150, 1e15
"""Values beyond have squares that overflow, in double and in single precision."""


def checked_features(given: Any, metric: str = "euclidean") -> Any:
    """Return features [n, d] as a float array or CSR matrix, ready for Euclidean distances.

    float32 stays float32; everything else becomes float64. For `cosine`, rows get length one, so
    that the squared distance is 2 - 2 cos.

    Raises:
        DataError: not two-dimensional, no numbers, not finite, or a zero row for `cosine`; the
            first offending row is named.
    """
    check_choice(metric, METRICS, "graph: metric")
    if is_sparse(given):
        return _checked_sparse(given, metric)
    values = np.asarray(given)
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"features: expected an array [n, d], got the shape {values.shape}.")
    if values.dtype.kind not in "biuf":
        raise DataError(f"features: expected real numbers, got {values.dtype}.")
    values = values.astype(np.float32 if values.dtype in (np.float16, np.float32) else np.float64)
    good = np.isfinite(values).all(axis=1)
    if not good.all():
        raise DataError(f"features: row {int(np.argmin(good))} holds NaN or infinity.")
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST:
        raise DataError(
            f"features: the largest value is {largest:.3g}, whose square is no number; scale them."
        )
    if largest > LARGEST32:
        values = values.astype(np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(values, axis=1)
        _check_norms(norms)
        values /= norms[:, None]
    return values


def _checked_sparse(given: Any, metric: str) -> Any:
    matrix = sparse().csr_matrix(given, dtype=np.float64)
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        at = int(np.argmin(np.isfinite(matrix.data)))
        row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
        raise DataError(f"features: row {row} holds NaN or infinity.")
    if metric == "cosine":
        norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        _check_norms(norms)
        matrix = sparse().diags(1.0 / norms) @ matrix
    return sparse().csr_matrix(matrix)


def _check_norms(norms: np.ndarray) -> None:
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        raise DataError(
            f"features: row {zero[0]} is zero and has no direction; use metric 'euclidean', or "
            "leave the row out."
        )


def feature_bytes(values: Any) -> int:
    """Return the memory of features."""
    if is_sparse(values):
        return int(values.data.nbytes + values.indices.nbytes + values.indptr.nbytes)
    return int(values.nbytes)
