"""Which method suits a matrix, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.lazy import installed
from understudy.core.memory import available_bytes
from understudy.solve.checks import is_symmetric
from understudy.solve.partition import make_tree
from understudy.solve.separators import separator_depths

SMALL = 20_000
"""Below this many unknowns sparse LU needs no second thought."""
FLAT = 4.0
"""A graph is like a plane if a cut in two takes at most so many times sqrt(n) unknowns."""
DIRECT_LIMIT = 100_000
"""Above this many unknowns LU costs more than the others, in the plane too (measured)."""
MANY_FLAT, MANY_DEEP = 4, 100
"""From so many right-hand sides on, what solves them together wins over multigrid (measured), in
the plane and where separators are larger."""
SHARE = 0.5
"""LU may take this share of the free memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A method and the reason for it."""

    method: str
    reason: str


def choose(matrix: Any, columns: int) -> Choice:
    """Choose a method for a matrix [n, n] and a number of right-hand sides."""
    n = matrix.shape[0]
    if n < SMALL:
        return Choice(method="direct", reason=f"n = {n:,} is below {SMALL:,}: sparse LU")
    symmetric = is_symmetric(matrix)
    cut = top_separator(matrix)
    fill = predicted_fill(n, cut)
    flat = cut <= FLAT * np.sqrt(n)
    free = available_bytes()
    fits = free is None or 8 * fill <= SHARE * free
    size = f"a cut takes {cut:,} of {n:,} unknowns"
    spd_like = symmetric and bool((matrix.diagonal() > 0).all())
    if flat and fits and (n <= DIRECT_LIMIT or not spd_like):
        return Choice(
            method="direct",
            reason=f"like a plane ({size}): LU of about {fill / 1e6:,.0f} M numbers fits",
        )
    if not symmetric:
        return Choice(method="spand_lu", reason=f"unsymmetric, {size}: LU would fill too much")
    if not spd_like:
        return Choice(
            method="spand_ldl", reason=f"symmetric, but a diagonal entry is not positive; {size}"
        )
    if columns >= (MANY_FLAT if flat else MANY_DEEP):
        return Choice(
            method="spand",
            reason=f"{columns} right-hand sides share a factorization and its sweeps; {size}",
        )
    if is_m_matrix(matrix) and installed("pyamg"):
        return Choice(
            method="rs",
            reason=f"no positive entry off the diagonal (M-matrix), {size}: classical multigrid",
        )
    return Choice(
        method="spand",
        reason=f"symmetric with positive entries off the diagonal, {size}: multigrid is not sure",
    )


def is_m_matrix(matrix: Any) -> bool:
    """Say whether no entry off the diagonal is positive and no row sums below zero."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    off = matrix.data[rows != matrix.indices]
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.abs(matrix.data).max(initial=0.0)
    return bool((off <= 1e-12 * scale).all() and (sums >= -1e-8 * scale).all())


def is_flat(matrix: Any, coords: np.ndarray | None = None) -> bool:
    """Say whether a cut in two halves takes so few unknowns as in the plane."""
    return top_separator(matrix, coords) <= FLAT * np.sqrt(matrix.shape[0])


def top_separator(matrix: Any, coords: np.ndarray | None = None) -> int:
    """Return how many unknowns cut the graph in two halves."""
    from understudy.solve.ladder import symmetric_pattern

    graph = symmetric_pattern(matrix)
    tree = make_tree(graph, max(1, -(-graph.shape[0] // 2)), coords)
    return int((separator_depths(graph, tree) == 0).sum())


def predicted_fill(n: int, cut: int) -> float:
    """Return about how many numbers the factors of LU take.

    With cuts of `c n^(1/2)` they are 31/4 c^2 n log2 n for the regular plane (George 1973, c = 1);
    with larger cuts the last front dominates, about 4 cut^2 over all levels.
    """
    flat = 2 * n * np.log2(max(n, 2)) * max(1.0, cut / np.sqrt(n))
    return float(max(flat, 8.0 * cut * cut))
