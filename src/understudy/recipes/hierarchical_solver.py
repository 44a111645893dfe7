r"""Hierarchical solver: block elimination on a tree of clusters that stays exact where it matters.

"Sparse Hierarchical Solvers with Guaranteed Convergence" (2017, arXiv 1611.03189). Compressing
fill-in makes elimination linear in time and memory, and an approximate inverse of it; vectors
added to every low-rank basis make that inverse exact on (piecewise) constant vectors, where errors
would be multiplied most, so that iterations hardly grow with the size of the problem.

    understudy run hierarchical-solver --matrix A.mtx --right b.npy
    understudy verify hierarchical-solver
    understudy plan hierarchical-solver --scale paper

The algorithm, as `run` goes through it:

1. a tree of clusters, by METIS or coordinates;
2. from the leaves to the root: eliminate what is inside, scale the rest to the identity, keep of
   every cluster the preserved vectors and what its neighbours see above eps, merge;
3. conjugate gradients with the result, GMRES where the matrix asks for it;
4. the same with the other solvers, side by side: iterations, seconds, stored numbers.

The paper's theorems and tables could not be read; the bound in the documentation is this
project's own derivation for one level. `understudy solve` solves without the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError, UnderstudyError
from understudy.core.files import write_json
from understudy.recipes.hierarchical_solver_claim import CLAIM
from understudy.recipes.hierarchical_solver_plan import plan as PLAN

__all__ = ["CLAIM", "PLAN", "Config", "run"]

METHODS = ("direct", "rs", "sa", "jacobi", "spand", "hsolve", "spand_ldl", "hsolve_ldl",
           "spand_lu", "hsolve_lu")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Say what is solved and by what.

    Attributes:
        matrix: Matrix Market file or SciPy's `.npz`.
        right: right-hand sides, `.npy` of shape [n] or [n, r]; None draws one at random.
        out: folder of the solution and of `result.json`.
        methods: solvers to compare; the first that converges gives the solution.
        eps: what the factorizations may drop.
        phi: near-null vectors, `.npy` of shape [n] or [n, q]; None means ones.
        coords: coordinates of the unknowns, `.npy` of shape [n, d]; None cuts by METIS.
        without: also run the factorizations without preserved vectors.
        rtol: relative residual.
        seed: of the random right-hand side.
    """

    matrix: Path
    right: Path | None = None
    out: Path = Path("runs/hierarchical-solver")
    methods: tuple[str, ...] = ("spand", "hsolve", "rs", "sa", "direct")
    eps: float = 0.1
    phi: Path | None = None
    coords: Path | None = None
    without: bool = True
    rtol: float = 1e-10
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigError("hierarchical-solver: methods: name at least one.")
        for name in self.methods:
            check_choice(name, METHODS, "hierarchical-solver: methods")


def run(config: Config) -> Path:
    """Solve by every method and compare.

    A method that cannot solve the matrix is listed with its message.

    Returns:
        the folder, with `x.npy` and `result.json`.

    Raises:
        DataError: a file is missing or wrong, or no method solves.
    """
    from understudy.core.errors import DataError
    from understudy.core.seeds import rng
    from understudy.solve.files import read_array, read_matrix, write_array

    matrix = read_matrix(config.matrix)
    n = matrix.shape[0]
    right = rng("right", config.seed).standard_normal(n)
    if config.right is not None:
        right = read_array(config.right)
    shared: dict[str, Any] = {"rtol": config.rtol}
    shared["coords"] = None if config.coords is None else read_array(config.coords)
    phi: Any = "ones" if config.phi is None else read_array(config.phi)
    rows: dict[str, dict[str, Any]] = {}
    solution: np.ndarray | None = None
    for name in config.methods:
        ours = name[:5] in ("spand", "hsolv")
        for kept in (phi, None) if ours and config.without else (phi,):
            label = name if kept is not None else f"{name}, nothing preserved"
            try:
                found = _solve(matrix, right, name, kept, config, shared)
            except UnderstudyError as error:
                rows[label] = {"error": str(error)}
                continue
            rows[label] = found.report()
            if solution is None and found.converged:
                solution = found.x
    write_json(
        config.out / "result.json",
        {"recipe": "hierarchical-solver", "config": to_dict(config), "n": n, "solvers": rows},
    )
    if solution is None:
        first = next(iter(rows.values()))
        raise DataError(f"{config.matrix}: no method solved it ({first.get('error', 'residual')}).")
    write_array(config.out / "x.npy", solution)
    return config.out


def _solve(
    matrix: Any, right: np.ndarray, name: str, phi: Any, config: Config, shared: dict[str, Any]
) -> Any:
    from understudy.solve import solve

    own = {"eps": config.eps} if name[:5] in ("spand", "hsolv") else {}
    return solve(matrix, right, method=name, phi=phi, **own, **shared)
