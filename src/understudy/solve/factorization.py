"""Approximate factorizations of sparse matrices, to solve with or to precondition by."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import atomic_path
from understudy.core.lazy import require
from understudy.solve.checks import (
    check_memory,
    check_symmetric,
    checked_coords,
    checked_matrix,
    checked_phi,
    checked_vectors,
)
from understudy.solve.ladder import factor_with_ladder
from understudy.solve.null_space import check_regular, find_components
from understudy.solve.operations import Stage, apply_plain
from understudy.solve.options import FactorConfig
from understudy.solve.stats import LevelStats
from understudy.solve.sweeps import sweep

FORMAT = 1
FULL = 0.7
"""Ranks above this share of the sizes, on three levels or all, are no hierarchy."""


@dataclass(frozen=True, kw_only=True)
class Factorization:
    """An approximate factorization `M` of a matrix `A`.

    Attributes:
        n: number of unknowns.
        nnz: entries of `A`.
        config: the settings that it was made with, after the ladder.
        stages: its steps, leaves first.
        stats: what each level did.
        notes: what a user should know: remedies that ran, ranks that are full.
    """

    n: int
    nnz: int
    config: FactorConfig
    stages: tuple[Stage, ...]
    stats: tuple[LevelStats, ...]
    notes: tuple[str, ...] = ()

    @property
    def spd(self) -> bool:
        """Whether `M` is symmetric positive definite, as CG needs it."""
        return self.config.pivot == "chol"

    @property
    def floats(self) -> int:
        """How many numbers are stored."""
        return sum(stage.floats for stage in self.stages)

    @property
    def floats_per_nnz(self) -> float:
        """Stored numbers over the entries of `A`."""
        return self.floats / self.nnz

    @property
    def bytes(self) -> int:
        """Memory of the factors with their indices."""
        return sum(stage.bytes for stage in self.stages)

    def solve(self, b: Any) -> np.ndarray:
        """Return `M^-1 b`.

        Args:
            b: [n] or [n, r]; many columns at once cost far less than as many single solves.

        Raises:
            DataError: another number of rows, or values that are not finite.
        """
        return self._sweep(checked_vectors(b, self.n))

    def apply(self, x: Any) -> np.ndarray:
        """Return `M x` for x [n] or [n, r]; for inspection, slower than `solve`."""
        return apply_plain(self.stages, checked_vectors(x, self.n, "x"))

    def _sweep(self, b: np.ndarray) -> np.ndarray:
        return sweep(self.stages, b, self.config.threads)

    def as_linear_operator(self) -> Any:
        """Return `M^-1` as a SciPy `LinearOperator`, the preconditioner of its Krylov solvers."""
        linalg: Any = require("scipy.sparse.linalg", "solve", "the solver")

        def adjoint(v: np.ndarray) -> np.ndarray:
            if self.config.pivot == "lu":
                raise DataError("the transpose of an unsymmetric factorization is not there.")
            return self._sweep(v)

        return linalg.LinearOperator(
            (self.n, self.n),
            matvec=lambda v: self._sweep(np.asarray(v, np.float64).ravel()),
            matmat=self._sweep,
            rmatvec=lambda v: adjoint(np.asarray(v, np.float64).ravel()),
            rmatmat=adjoint,
            dtype=np.float64,
        )

    def summary(self) -> dict[str, Any]:
        """Return settings, sizes, notes and levels as plain data."""
        return {
            "n": self.n,
            "nnz": self.nnz,
            "config": asdict(self.config),
            "floats_per_nnz": self.floats_per_nnz,
            "bytes": self.bytes,
            "notes": list(self.notes),
            "levels": [asdict(level) for level in self.stats],
        }

    def save(self, path: str | Path) -> Path:
        """Write the factorization as an `.npz` file without pickles and return its path."""
        ordered = [i for i, stage in enumerate(self.stages) if stage.ordered]
        facts = {"format": FORMAT, "stages": len(self.stages), "ordered": ordered}
        facts.update(self.summary())
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        arrays = {
            f"{i}.{field.name}": getattr(stage, field.name)
            for i, stage in enumerate(self.stages)
            for field in fields(Stage)
            if field.name != "ordered"
        }
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, facts=text, **arrays)
        return Path(path)


def load(path: str | Path) -> Factorization:
    """Read a factorization that `Factorization.save` wrote.

    Raises:
        DataError: no such file, not a factorization, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(bytes(file["facts"]))
            if facts["format"] != FORMAT:
                raise DataError(
                    f"{path}: factorization of format {facts['format']}, expected {FORMAT}."
                )
            names = [field.name for field in fields(Stage) if field.name != "ordered"]
            stages = tuple(
                Stage(
                    **{name: file[f"{i}.{name}"] for name in names}, ordered=i in facts["ordered"]
                )
                for i in range(facts["stages"])
            )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, OSError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not a saved factorization ({error})") from None
    return Factorization(
        n=facts["n"],
        nnz=facts["nnz"],
        config=FactorConfig(**facts["config"]),
        stages=stages,
        stats=tuple(LevelStats(**level) for level in facts["levels"]),
        notes=tuple(facts["notes"]),
    )


def factorize(
    A: Any,
    eps: float = 0.1,
    phi: Any = "ones",
    coords: Any = None,
    method: str = "spand",
    leaf: int = 32,
    on_indefinite: str = "ladder",
    **more: Any,
) -> Factorization:
    """Factor a sparse matrix approximately, on a tree of clusters.

    Args:
        A: SciPy sparse or dense, [n, n], with a symmetric pattern; duplicate entries are summed.
        eps: what compression may drop; 0 factors exactly.
        phi: vectors that the factorization treats exactly: `"ones"`, None, or an array [n] or
            [n, q] of near-null vectors (rigid-body modes, `1 / d` after a diagonal scaling `d`).
        coords: [n, d], to cut the tree by; METIS cuts without.
        method: `spand` (nested dissection, stays positive definite) or `hsolve` (near and far
            blocks); with `_ldl` for symmetric indefinite matrices, with `_lu` for unsymmetric ones.
        leaf: unknowns in a leaf.
        on_indefinite: `ladder` of remedies or `raise`, if truncation costs a pivot.
        **more: other fields of `FactorConfig`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the matrix is not square, not finite, not symmetric or singular, does not fit in
            memory, or is not positive definite where the method needs it.
    """
    config = FactorConfig(eps=eps, method=method, leaf=leaf, on_indefinite=on_indefinite, **more)
    matrix = checked_matrix(A)
    n = matrix.shape[0]
    if config.pivot != "lu":
        check_symmetric(matrix, method)
    check_regular(find_components(matrix))
    check_memory(matrix.nnz, 1, n)
    vectors, points = checked_phi(phi, n), checked_coords(coords, n)
    used, stages, stats, notes = factor_with_ladder(matrix, vectors, points, config)
    notes += _judge_phi(vectors) + (judge_ranks(stats) if used.eps > 0 else [])
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return Factorization(
        n=n,
        nnz=int(matrix.nnz),
        config=used,
        stages=tuple(stages),
        stats=tuple(stats),
        notes=tuple(notes),
    )


def _judge_phi(phi: np.ndarray) -> list[str]:
    """Return a note if vectors to preserve depend on each other; their columns were dropped."""
    if phi.shape[1] == 0:
        return []
    norms = np.linalg.norm(phi, axis=0)
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        return [f"phi: column {zero[0]} is zero and was dropped."]
    sizes = np.abs(np.diag(np.linalg.qr(phi / norms)[1]))
    dependent = np.flatnonzero(sizes < 1e-10)
    if dependent.size:
        return [f"phi: column {dependent[0]} depends on those before it and was dropped."]
    return []


def judge_ranks(stats: Sequence[LevelStats]) -> list[str]:
    """Return a note if compression hardly compresses."""
    tried = [level for level in stats if level.clusters > 3 and level.mean_size >= 10]
    full = [level.fullness for level in tried if level.fullness > FULL]
    if len(tried) > 1 and len(full) >= min(3, len(tried)) and len(full) > len(tried) / 2:
        mean = float(np.mean(full))
        return [f"no low-rank structure (mean k/m = {mean:.1f}); AMG or direct is better."]
    return []


def without_warnings(*args: Any, **more: Any) -> Factorization:
    """Call `factorize`; its notes are in the result and are not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return factorize(*args, **more)
