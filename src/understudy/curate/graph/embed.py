"""Spectral coordinates of a store's rows as a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.curate.graph.write import graph_card, write_solved
from understudy.data.knowledge import embedding_config, embedding_type
from understudy.solve.graph import Graph, SolverConfig, spectral_embedding

if TYPE_CHECKING:
    from understudy.data.store import Store


def write_embedding(
    store: Store,
    graph: Graph,
    k: int,
    *,
    out: str = "",
    method: str = "auto",
    seed: int = 0,
    solver: SolverConfig | None = None,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Write the k slowest coordinates of each node, float32; return rows written now and facts.

    Args:
        store: open at its newest version.
        graph: of its rows.
        k: coordinates.
        out: column to write; `spectral.<column>` by default.
        method: eigensolver, see `spectral_embedding`.
        seed: of its start.
        solver: method of the inner systems.
        overwrite: replace a column of another writer.

    Raises:
        ConfigError: k is too large for the graph.
        CardError: the column holds something else.
    """
    assert graph.rows is not None
    out = out or f"spectral.{graph.facts['column']}"
    config = {**embedding_config([k], "float32"), "eigensolver": method, "seed": seed}
    card = graph_card(out, "spectral embedding", graph, config)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = spectral_embedding(graph, k, method=method, seed=seed, solver=solver)
        facts = {
            "eigenvalues": found.values.tolist(),
            "residuals": found.residuals.tolist(),
            "components": found.components,
            "solve": found.report,
        }
        return {out: found.vectors}, facts

    types = {out: embedding_type([k], "float32")}
    return write_solved(store, [card], types, graph.rows, compute, overwrite=overwrite)
