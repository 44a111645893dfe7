"""Remedies for pivots that truncation made indefinite: a smaller eps, compensation, spand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.lazy import require
from understudy.solve.lost import PivotLostError
from understudy.solve.operations import Stage
from understudy.solve.options import FactorConfig
from understudy.solve.partition import Tree, make_tree
from understudy.solve.separators import find_separators
from understudy.solve.stats import LevelStats

Factors = tuple[list[Stage], list[LevelStats]]


def factor_with_ladder(
    matrix: Any, phi: np.ndarray, coords: np.ndarray | None, config: FactorConfig
) -> tuple[FactorConfig, list[Stage], list[LevelStats], list[str]]:
    """Factor; if truncation costs a pivot, try again more carefully.

    Returns:
        the settings that worked, stages, statistics, and notes about remedies.

    Raises:
        DataError: `A` itself is not positive definite (or singular), or truncation cost a pivot
            and the settings say `raise`.
    """
    graph = symmetric_pattern(matrix) if config.pivot == "lu" else matrix
    tree = make_tree(graph, config.leaf, coords)
    rungs = [config]
    if config.method == "hsolve":
        rungs += [
            replace(config, eps=config.eps / 10),
            replace(config, compensate=True),
            replace(config, method="spand", compensate=False),
        ]
    names = ["", "eps / 10", "compensation", "method='spand'"]
    notes: list[str] = []
    for rung, name in zip(rungs, names, strict=False):
        try:
            stages, stats = factor_once(matrix, graph, tree, phi, rung)
        except PivotLostError as lost:
            if not lost.compressed or rung.driver == "spand":
                raise DataError(_not_spd(lost, rung)) from None
            where = f"level {lost.level} cluster {lost.cluster}"
            if config.on_indefinite == "raise":
                raise DataError(
                    f"truncation at eps = {rung.eps:g} made a pivot indefinite at {where}; use a "
                    "smaller eps, compensate=True, method='spand' or on_indefinite='ladder'."
                ) from None
            notes.append(f"truncation made a pivot indefinite at {where}, eps = {rung.eps:g}.")
            continue
        if name:
            notes = [f"{notes[0]} Factored with {name}: eps = {rung.eps:g}."]
        return rung, stages, stats, notes
    raise AssertionError("the last rung cannot lose a pivot by truncation")


def _not_spd(lost: PivotLostError, config: FactorConfig) -> str:
    where = f"level {lost.level} cluster {lost.cluster}"
    if config.pivot != "chol":
        if lost.compressed:
            return (
                f"a pivot became singular at {where}, after compression; use a smaller eps than "
                f"{config.eps:g}."
            )
        return f"a pivot is singular at {where} before any compression: use another leaf size."
    advice = f'for a symmetric indefinite A use method="{config.driver}_ldl" + GMRES.'
    if lost.compressed:
        return (
            f"Cholesky failed at {where}; spand keeps every matrix positive definite that is, so A "
            f"itself is not SPD to rounding; {advice}"
        )
    return f"Cholesky failed at {where} before any compression: A itself is not SPD; {advice}"


def factor_once(
    matrix: Any, graph: Any, tree: Tree, phi: np.ndarray, config: FactorConfig
) -> Factors:
    """Factor with one setting.

    Raises:
        PivotLostError: a pivot could not be factored.
    """
    compiled = config.engine == "compiled" and config.pivot == "chol"
    if compiled:
        require("numba", "solve", "the solver")
    if config.driver == "spand":
        cuts = find_separators(graph, tree)
        if compiled:
            from understudy.solve.nested import nested

            return nested(matrix, cuts, phi, config)
        from understudy.solve.reference_nested import nested_reference

        return nested_reference(matrix, cuts, phi, config)
    if compiled:
        from understudy.solve.near import near

        return near(matrix, tree, phi, config)
    from understudy.solve.reference_near import near_reference

    return near_reference(matrix, tree, phi, config)


def symmetric_pattern(matrix: Any) -> Any:
    """Return a matrix whose pattern is that of `A` and its transpose together."""
    sparse: Any = require("scipy.sparse", "solve", "the solver")
    both = sparse.csr_array(abs(matrix) + abs(matrix.T))
    both.sort_indices()
    both.indices, both.indptr = both.indices.astype(np.int32), both.indptr.astype(np.int32)
    return both
