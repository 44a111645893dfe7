"""Matrices and vectors as the solver takes them, and what is wrong with those that it does not."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.lazy import require
from understudy.core.memory import available_bytes

SYMMETRY = 1e-12
"""Largest difference of A and its transpose that is rounding, relative to the largest value."""
LARGEST_INDEX = 2**31 - 1


def checked_matrix(given: Any, name: str = "A") -> Any:
    """Return a matrix as float64 CSR with int32 indices, duplicate entries summed.

    Args:
        given: SciPy sparse matrix or array, or a dense array, [n, n].
        name: what messages call it.

    Raises:
        DataError: not square, complex, NaN or infinite, a row without entries, or too large for
            32-bit indices.
    """
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    if not sparse.issparse(given):
        given = np.asarray(given)
        if given.dtype == object:
            raise DataError(f"{name}: expected a SciPy sparse matrix or an array.")
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        shape = " x ".join(str(side) for side in given.shape)
        raise DataError(f"{name}: expected a square matrix, got {shape}.")
    if given.shape[0] == 0:
        raise DataError(f"{name}: the matrix is empty.")
    if np.iscomplexobj(given):
        row, column = _first(sparse.coo_array(given), lambda values: values.imag != 0)
        raise DataError(
            f"{name}: complex values are not solved, the first is at ({row}, {column}); solve for "
            "the real and the imaginary part as one system of twice the size."
        )
    coo = sparse.coo_array(given)
    if coo.nnz > LARGEST_INDEX:
        raise DataError(
            f"{name}: {coo.nnz:,} entries do not fit 32-bit indices (at most {LARGEST_INDEX:,}); "
            f"a factorization would take more than {estimate_bytes(coo.nnz) / 1e9:,.0f} GB."
        )
    if not np.isfinite(coo.data).all():
        row, column = _first(coo, lambda values: ~np.isfinite(values))
        raise DataError(f"{name}: the value at ({row}, {column}) is not finite.")
    csr = sparse.csr_array(coo.astype(np.float64))
    csr.sum_duplicates()
    csr.eliminate_zeros()
    csr.sort_indices()
    empty = np.flatnonzero(np.diff(csr.indptr) == 0)
    if empty.size:
        raise DataError(f"{name}: row {empty[0]} has no entry but zeros, so {name} is singular.")
    csr.indices, csr.indptr = csr.indices.astype(np.int32), csr.indptr.astype(np.int32)
    return csr


def _first(coo: Any, wrong: Any) -> tuple[int, int]:
    at = np.flatnonzero(wrong(coo.data))
    order = at[np.lexsort((coo.col[at], coo.row[at]))] if at.size else np.zeros(1, np.int64)
    return int(coo.row[order[0]]), int(coo.col[order[0]])


def asymmetry(matrix: Any) -> tuple[float, int, int]:
    """Return the largest `|A - A^T|` and where it is, (0, 0, 0) for a symmetric matrix."""
    difference = (matrix - matrix.T).tocoo()
    if difference.nnz == 0:
        return 0.0, 0, 0
    at = int(np.abs(difference.data).argmax())
    return float(abs(difference.data[at])), int(difference.row[at]), int(difference.col[at])


def is_symmetric(matrix: Any) -> bool:
    """Say whether a matrix equals its transpose up to rounding."""
    return asymmetry(matrix)[0] <= SYMMETRY * np.abs(matrix.data).max(initial=0.0)


def check_symmetric(matrix: Any, method: str) -> None:
    """Raise `DataError` for unsymmetric values where the method needs symmetric ones."""
    worst, row, column = asymmetry(matrix)
    if worst > SYMMETRY * np.abs(matrix.data).max(initial=0.0):
        raise DataError(
            f"max |A-A^T| = {worst:.3g} at ({row},{column}), and method='{method}' needs a "
            'symmetric matrix; use method="hsolve_lu" + GMRES.'
        )


def checked_vectors(given: Any, n: int, name: str = "b") -> np.ndarray:
    """Return right-hand sides as float64 [n] or [n, r].

    Raises:
        DataError: another number of rows, complex, or not finite; the message has the first index.
    """
    array = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
    if array.ndim not in (1, 2) or array.shape[0] != n:
        raise DataError(
            f"{name}: expected {n} rows for a matrix of {n} x {n}, got the shape {array.shape}."
        )
    if np.iscomplexobj(array):
        at = np.argwhere(np.imag(array) != 0)
        where = tuple(at[0].tolist()) if at.size else (0,)
        raise DataError(f"{name}: complex values are not solved, the first is at {where}.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got {array.dtype}.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        at = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise DataError(f"{name}: the value at {at} is not finite.")
    return array


def checked_phi(given: Any, n: int) -> np.ndarray:
    """Return the vectors to preserve, float64 [n, q]; `"ones"` and None stand for one and none.

    Raises:
        DataError: another word, another number of rows, or not finite.
    """
    if given is None:
        return np.zeros((n, 0))
    if isinstance(given, str):
        if given != "ones":
            raise DataError(f"phi: expected 'ones', None or an array, got '{given}'.")
        return np.ones((n, 1))
    array = checked_vectors(given, n, "phi")
    return array[:, None] if array.ndim == 1 else array


def checked_coords(given: Any, n: int) -> np.ndarray | None:
    """Return coordinates, float64 [n, d], or None.

    Raises:
        DataError: another number of rows, or not finite.
    """
    if given is None:
        return None
    array = checked_vectors(given, n, "coords")
    return array[:, None] if array.ndim == 1 else array


def estimate_bytes(nnz: int, columns: int = 0, n: int = 0) -> int:
    """Return roughly what factoring takes: 60 numbers an entry, and six vectors a column."""
    return 8 * (60 * nnz + 6 * n * columns)


def check_memory(nnz: int, columns: int = 0, n: int = 0) -> None:
    """Raise `DataError` before the start of what cannot fit in memory."""
    needed, free = estimate_bytes(nnz, columns, n), available_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"the factorization and its vectors would take about {needed / 1e9:.1f} GB (n = {n:,}, "
            f"{nnz:,} entries, {columns:,} columns), but {free / 1e9:.1f} GB are free; solve fewer "
            "columns at once or use a machine with more memory."
        )
