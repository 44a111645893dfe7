"""Linear systems with known difficulty: for benchmarks, for the recipe's claim, for tests.

Grids have `side` unknowns a dimension inside the unit square or cube, Dirichlet values around
them, and coordinates in units of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import require
from understudy.core.seeds import rng


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A system to solve.

    Attributes:
        name: what it is.
        matrix: SciPy CSR, [n, n].
        coords: float64 [n, d], or None.
        phi: float64 [n, q], its near-null vectors.
        symmetric: whether the matrix is symmetric positive definite.
    """

    name: str
    matrix: Any
    coords: np.ndarray | None
    phi: np.ndarray
    symmetric: bool = True

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.matrix.shape[0]


def grid_coords(side: int, dims: int) -> np.ndarray:
    """Return the coordinates of a grid, float64 [side ** dims, dims]."""
    places = np.unravel_index(np.arange(side**dims), (side,) * dims)
    return np.stack(places, axis=1).astype(np.float64)


def poisson(side: int, dims: int = 2) -> Problem:
    """Return the 5-point (7-point) Laplacian, without the factor 1 / h^2."""
    return _grid(f"poisson {dims}d", np.ones((side,) * dims), np.ones(dims))


def anisotropic(side: int, weak: float) -> Problem:
    """Return the 5-point Laplacian with the weight `weak` along the second axis."""
    return _grid(f"anisotropic {weak:g}", np.ones((side, side)), np.array([1.0, weak]))


def contrast_media(side: int, contrast: float, seed: int, length: float = 1 / 32) -> Problem:
    """Return `-div(a grad u)` in finite volumes, with a two-valued random coefficient.

    `a` is `contrast ** 0.5` where a smoothed random field is positive and `contrast ** -0.5`
    elsewhere; faces take the harmonic mean.

    Args:
        side: unknowns a dimension.
        contrast: largest over smallest value of `a`.
        seed: of the field.
        length: standard deviation of the smoothing, as a share of the side.
    """
    ndimage: Any = require("scipy.ndimage", "solve", "random media")
    noise = rng("media", seed).standard_normal((side, side))
    field = ndimage.gaussian_filter(noise, length * side, mode="wrap")
    values = np.where(field > 0, np.sqrt(contrast), 1 / np.sqrt(contrast))
    return _grid(f"contrast {contrast:g}", values, np.ones(2))


def _grid(name: str, values: np.ndarray, weights: np.ndarray) -> Problem:
    """Return a finite-volume matrix with cell values and a weight an axis."""
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    n, dims = values.size, values.ndim
    index = np.arange(n).reshape(values.shape)
    diagonal = np.zeros(values.shape)
    rows, columns, data = [], [], []
    for axis in range(dims):
        low, high = [slice(None)] * dims, [slice(None)] * dims
        low[axis], high[axis] = slice(0, -1), slice(1, None)
        a, b = values[tuple(low)], values[tuple(high)]
        face = weights[axis] * 2 * a * b / (a + b)
        i, j = index[tuple(low)].ravel(), index[tuple(high)].ravel()
        rows += [i, j]
        columns += [j, i]
        data += [-face.ravel(), -face.ravel()]
        diagonal[tuple(low)] += face
        diagonal[tuple(high)] += face
        for end in (0, -1):
            border: list[Any] = [slice(None)] * dims
            border[axis] = end
            diagonal[tuple(border)] += weights[axis] * values[tuple(border)]
    rows.append(index.ravel())
    columns.append(index.ravel())
    data.append(diagonal.ravel())
    places = (np.concatenate(rows), np.concatenate(columns))
    matrix = sparse.csr_array((np.concatenate(data), places), shape=(n, n))
    coords = grid_coords(values.shape[0], dims)
    return Problem(name=name, matrix=matrix, coords=coords, phi=np.ones((n, 1)))


def convection(side: int, wind: float) -> Problem:
    """Return `-laplace(u) + wind (1, 1/2) . grad(u)` with upwind differences: unsymmetric.

    Args:
        side: unknowns a dimension.
        wind: speed times the side of the domain over the diffusion (Peclet number).
    """
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    h = 1 / (side + 1)
    one = sparse.diags_array([np.ones(side), -np.ones(side - 1)], offsets=[0, -1])
    eye = sparse.eye_array(side)
    flow = sparse.kron(one, eye) + 0.5 * sparse.kron(eye, one)
    base = poisson(side)
    matrix = sparse.csr_array(base.matrix + wind * h * flow)
    return Problem(name=f"convection {wind:g}", matrix=matrix, coords=base.coords, phi=base.phi,
                   symmetric=False)  # fmt: skip


def elasticity(side: int) -> Problem:
    """Return plane elasticity on a grid of bilinear elements, with its three rigid-body modes."""
    gallery: Any = require("pyamg.gallery", "solve", "the elasticity problem")
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    matrix, modes = gallery.linear_elasticity((side, side), format="bsr")
    points = np.repeat(grid_coords(side, 2), 2, axis=0)
    return Problem(name="elasticity", matrix=sparse.csr_array(matrix), coords=points, phi=modes)


def laplacian(affinity: Any, tau: float = 0.0) -> Any:
    """Return `L + tau D` of a symmetric affinity, CSR [n, n]."""
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    degrees = np.asarray(affinity.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array((1 + tau) * degrees) - affinity)


def swiss_roll(n: int, seed: int = 0) -> np.ndarray:
    """Return points of a rolled-up sheet, float64 [n, 3]."""
    draw = rng("swiss-roll", seed)
    turn = 1.5 * np.pi * (1 + 2 * draw.random(n))
    return np.stack([turn * np.cos(turn), 21 * draw.random(n), turn * np.sin(turn)], axis=1)
