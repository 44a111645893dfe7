"""Small dense factorizations, compiled: no library calls, which would cost more than the work.

Matrices are row by row. A Cholesky factor is kept as its upper form `U` with `U^T U = A`, whose
rows are the packed columns of the lower factor; only the upper triangle of `A` is read.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAST = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS = {"cache": True, "nogil": True, "fastmath": FAST, "error_model": "numpy"}

PRESERVE_DROP = 1e-12
ROUNDING = 1e-15
LIBRARY_WIDTH = 6
"""Products with wider results go to the matrix library."""


@njit(**OPTIONS)
def cholesky(a, m):
    """Replace the upper triangle of `a` [m, m] by its factor; say whether it could be done."""
    for k in range(m):
        pivot = a[k, k]
        if not pivot > 0.0:
            return False
        root = 1.0 / np.sqrt(pivot)
        for j in range(k, m):
            a[k, j] *= root
        for i in range(k + 1, m):
            factor = a[k, i]
            if factor != 0.0:
                for j in range(i, m):
                    a[i, j] -= factor * a[k, j]
    return True


@njit(**OPTIONS)
def solve_left(u, m, b, width):
    """Replace `b` [m, width] by `U^-T b`."""
    for k in range(m):
        scale = 1.0 / u[k, k]
        for j in range(width):
            b[k, j] *= scale
        for i in range(k + 1, m):
            factor = u[k, i]
            if factor != 0.0:
                for j in range(width):
                    b[i, j] -= factor * b[k, j]


@njit(**OPTIONS)
def solve_right(u, m, b, height):
    """Replace `b` [height, m] by `b U^-1`."""
    for r in range(height):
        for k in range(m):
            value = b[r, k] / u[k, k]
            b[r, k] = value
            if value != 0.0:
                for j in range(k + 1, m):
                    b[r, j] -= value * u[k, j]


@njit(**OPTIONS)
def gram(p, height, width, out):
    """Write `p^T p` of `p` [height, width] into the upper triangle of `out` [width, width]."""
    if width >= LIBRARY_WIDTH:
        np.dot(p.T, p, out)
        return
    for i in range(width):
        for j in range(i, width):
            out[i, j] = 0.0
    for r in range(height):
        for i in range(width):
            factor = p[r, i]
            if factor != 0.0:
                for j in range(i, width):
                    out[i, j] += factor * p[r, j]


@njit(**OPTIONS)
def reflect(panel, row, column, m, start, stop, vector, work):
    """Apply to columns `start` to `stop` the reflection that clears `column` below `row`.

    Leaves the reflection in `vector` [m], with entries `row` to `m`, and returns its factor `tau`.
    """
    norm2 = 0.0
    for i in range(row, m):
        vector[i] = panel[i, column]
        norm2 += vector[i] * vector[i]
    norm = np.sqrt(norm2)
    if norm == 0.0:
        return 0.0
    alpha = -norm if vector[row] > 0.0 else norm
    vector[row] -= alpha
    tau = 1.0 / (norm2 - alpha * panel[row, column])
    reflect_panel(panel, row, m, start, stop, vector, tau, work)
    return tau


@njit(**OPTIONS)
def reflect_panel(panel, row, m, start, stop, vector, tau, work):
    """Apply `I - tau v v^T` to rows `row` to `m` of columns `start` to `stop`."""
    for j in range(start, stop):
        work[j] = 0.0
    for i in range(row, m):
        factor = vector[i]
        for j in range(start, stop):
            work[j] += factor * panel[i, j]
    for i in range(row, m):
        factor = tau * vector[i]
        for j in range(start, stop):
            panel[i, j] -= factor * work[j]


@njit(**OPTIONS)
def column_norms(panel, row, m, start, stop, norms):
    """Write the squared norms of rows `row` to `m` of columns `start` to `stop`."""
    for j in range(start, stop):
        norms[j] = 0.0
    for i in range(row, m):
        for j in range(start, stop):
            norms[j] += panel[i, j] * panel[i, j]


@njit(**OPTIONS)
def choose_basis(panel, m, keep, far, total, eps, relative, vectors, taus, norms, work):
    """Rotate a panel so that its first `k` rows hold what is kept; return `k`.

    Columns 0 to `keep` are held exactly and `keep` to `far` up to `eps`, by Householder
    reflections with column pivoting; columns up to `total` are rotated along. `k` is `m` where
    nothing can be dropped; the panel is then of no use.

    Args:
        panel: [m, total]; rotated in place.
        m: rows.
        keep: end of the columns to hold exactly.
        far: end of the columns to hold up to `eps`.
        total: columns.
        eps: columns are taken while their remainder is above it.
        relative: whether `eps` is relative to the largest of the columns `keep` to `far`.
        vectors: [m, m], a reflection a row.
        taus: [m], their factors.
        norms: [total], work space.
        work: [total], work space.
    """
    column_norms(panel, 0, m, 0, far, norms)
    largest = 0.0
    for j in range(keep, far):
        largest = max(largest, norms[j])
    largest = np.sqrt(largest)
    k = 0
    first = 0.0
    while k < m and keep > 0:
        if k > 0:
            column_norms(panel, k, m, 0, keep, norms)
        best, size = 0, -1.0
        for j in range(keep):
            if norms[j] > size:
                best, size = j, norms[j]
        size = np.sqrt(size)
        if k == 0:
            first = size
        if size <= PRESERVE_DROP * first or size == 0.0:
            break
        taus[k] = reflect(panel, k, best, m, 0, total, vectors[k], work)
        k += 1
    floor = max(eps * (largest if relative else 1.0), ROUNDING * largest)
    exact = eps < 1e-6
    if k > 0 and k < m:
        column_norms(panel, k, m, keep, far, norms)
    while k < m:
        best, size = keep, -1.0
        for j in range(keep, far):
            if norms[j] > size:
                best, size = j, norms[j]
        if size <= floor * floor:
            break
        taus[k] = reflect(panel, k, best, m, keep, total, vectors[k], work)
        if exact:
            column_norms(panel, k + 1, m, keep, far, norms)
        else:
            for j in range(keep, far):
                norms[j] -= panel[k, j] * panel[k, j]
        norms[best] = 0.0
        k += 1
    return k


@njit(**OPTIONS)
def basis_columns(vectors, taus, m, k, out, work):
    """Write the first `k` columns of the product of `k` reflections into `out` [m, k]."""
    for i in range(m):
        for j in range(k):
            out[i, j] = 1.0 if i == j else 0.0
    for r in range(k - 1, -1, -1):
        reflect_panel(out, r, m, 0, k, vectors[r], taus[r], work)
