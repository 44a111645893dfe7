"""SciPy's parts, imported where they are used."""

from __future__ import annotations

from typing import Any

from understudy.core.lazy import require


def sparse() -> Any:
    """Return `scipy.sparse`."""
    return require("scipy.sparse", "solve", "graphs")


def linalg() -> Any:
    """Return `scipy.sparse.linalg`."""
    return require("scipy.sparse.linalg", "solve", "graphs")


def csgraph() -> Any:
    """Return `scipy.sparse.csgraph`."""
    return require("scipy.sparse.csgraph", "solve", "graphs")


def is_sparse(values: Any) -> bool:
    """Say whether `values` is a SciPy sparse matrix or array."""
    return hasattr(values, "tocsr") and hasattr(values, "nnz")
