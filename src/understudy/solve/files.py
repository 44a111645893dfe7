"""Matrices and arrays from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import atomic_path
from understudy.core.lazy import require


def read_matrix(path: str | Path) -> Any:
    """Read a Matrix Market file (`.mtx`, `.mtx.gz`) or SciPy's `.npz`.

    Raises:
        DataError: no such file, or not a matrix; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        if path.name.endswith((".mtx", ".mtx.gz", ".mtx.bz2")):
            return require("scipy.io", "solve", "reading Matrix Market").mmread(path)
        if path.suffix == ".npz":
            return require("scipy.sparse", "solve", "reading matrices").load_npz(path)
    except (ValueError, OSError, KeyError, EOFError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: not a matrix ({error})") from None
    raise DataError(f"{path}: expected .mtx, .mtx.gz or .npz.")


def read_array(path: str | Path) -> np.ndarray:
    """Read a `.npy` file.

    Raises:
        DataError: no such file, or not an array; the message names it.
    """
    if not Path(path).exists():
        raise DataError(f"{path}: no such file")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not an array in .npy form ({error})") from None


def write_array(path: str | Path, x: np.ndarray) -> Path:
    """Write a `.npy` file, whole or not at all, and return its path."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, x)
    return Path(path)
