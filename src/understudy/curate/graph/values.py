"""Numbers of rows made smooth over a graph, propagated by PageRank, or ranked from seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.curate.graph.nodes import card_config, numeric_width, read_vectors, source_of
from understudy.curate.graph.stage import ColumnStage
from understudy.curate.graph.write import graph_card, write_solved
from understudy.data.knowledge import embedding_config, embedding_type
from understudy.solve.graph import Graph, SolverConfig, personalised_pagerank
from understudy.solve.graph.pagerank import NORMALISE, propagate
from understudy.solve.graph.smoothing import Smoother

if TYPE_CHECKING:
    from understudy.data.store import Store

METHODS = ("smooth", "pagerank")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueConfig:
    """How a column of numbers is changed over a graph.

    Attributes:
        method: `smooth`, (C + g L) Z = C T, or `pagerank`, Z = a (I - (1-a) P)^-1 H.
        column: numbers to change.
        strength: g of smoothing; larger is smoother.
        confidence: column of confidences c of smoothing (numbers >= 0); empty is 1 for all,
            `degree` the degrees. Rows that lack numbers count as confidence 0 and get numbers.
        teleport: a of PageRank.
        normalise: P of PageRank: `row` or `symmetric`.
        out: column to write; by default `<method>.<column>`.
    """

    method: str = "smooth"
    column: str
    strength: float = 1.0
    confidence: str = ""
    teleport: float = 0.1
    normalise: str = "row"
    out: str = ""

    def __post_init__(self) -> None:
        check_choice(self.method, METHODS, "graph values: method")
        check_choice(self.normalise, NORMALISE, "graph values: normalise")
        if not (np.isfinite(self.strength) and self.strength >= 0):
            raise ConfigError(f"smooth: strength: expected a number >= 0, got {self.strength}.")
        if not 0 < self.teleport <= 1:
            raise ConfigError(
                f"pagerank: teleport: expected a number in (0, 1], got {self.teleport}."
            )

    @property
    def written(self) -> str:
        """The column that is written."""
        return self.out or f"{self.method}.{self.column}"


@dataclass(frozen=True, kw_only=True)
class ValuePlan:
    """What is read and written.

    Attributes:
        config: how.
        present: bool [n], nodes that have numbers.
        confidence: float64 [n] or `"degree"`, of smoothing.
        rows: int64, rows that are written.
        width: numbers a row.
        facts: nodes, edges, right-hand sides, memory.
    """

    config: ValueConfig
    present: np.ndarray
    confidence: Any
    rows: np.ndarray
    width: int
    facts: dict[str, Any]


def plan_values(store: Store, graph: Graph, config: ValueConfig) -> ValuePlan:
    """Check that a column fits and say what would be written; see `write_values`.

    Raises:
        DataError: no such column, no numbers, or (PageRank) rows that lack them.
    """
    assert graph.rows is not None
    width = numeric_width(store, config.column)
    present = store.filled(config.column)[graph.rows]
    if config.method == "pagerank" and not present.all():
        row = int(graph.rows[np.argmin(present)])
        raise DataError(
            f"column '{config.column}' of {store.path} is empty in {int((~present).sum())} rows of "
            f"the graph (row {row} is the first); PageRank needs all. 'understudy graph smooth' "
            "fills them in from their neighbours."
        )
    confidence: Any = None
    reached = np.ones(graph.n, bool)
    if config.method == "smooth":
        confidence = _confidence(store, graph, config, present)
        reached = graph.touched(confidence > 0) if config.strength > 0 else confidence > 0
    return ValuePlan(
        config=config,
        present=present,
        confidence=confidence,
        rows=graph.rows[reached],
        width=width,
        facts={
            "writes": config.written,
            "nodes": graph.n,
            "edges": graph.num_edges,
            "right_hand_sides": width,
            "filled_in": int((reached & ~present).sum()),
            "not_reached": int((~reached).sum()),
            "memory_bytes": 8 * graph.n * width + 8 * 8 * graph.n * 64 + 24 * graph.weights.nnz,
            "bytes_written": 4 * int(reached.sum()) * width,
        },
    )


def _confidence(store: Store, graph: Graph, config: ValueConfig, present: np.ndarray) -> np.ndarray:
    assert graph.rows is not None
    if config.confidence == "degree":
        values = np.where(graph.degrees > 0, graph.degrees, 1.0)
    elif config.confidence:
        if numeric_width(store, config.confidence) != 1:
            raise DataError(f"column '{config.confidence}': a confidence is one number a row.")
        known = store.filled(config.confidence)[graph.rows]
        values = np.zeros(graph.n)
        values[known] = read_vectors(store, config.confidence, graph.rows[known])[:, 0]
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if bad.size:
            raise DataError(
                f"column '{config.confidence}' of {store.path}: row {graph.rows[bad[0]]} has the "
                f"confidence {values[bad[0]]:g}; expected a number >= 0."
            )
    else:
        values = np.ones(graph.n)
    return np.where(present, values, 0.0)


def write_values(
    store: Store,
    graph: Graph,
    plan: ValuePlan,
    *,
    work: Path,
    solver: SolverConfig | None = None,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Solve and write a column, float32 of the shape it had; return rows written now and facts.

    Args:
        store: open at its newest version.
        graph: of its rows.
        plan: from `plan_values`.
        work: folder for finished blocks of columns; gone when the column is there.
        solver: method and accuracy.
        overwrite: replace a column of another writer.

    Raises:
        CardError: the column holds something else.
        DataError: numbers that are not finite.
    """
    assert graph.rows is not None
    nodes = graph.rows
    solver, config = solver or SolverConfig(), plan.config
    out = config.written
    card = graph_card(out, _WRITERS[config.method], graph, _card_config(store, plan, solver))
    types = {out: embedding_type([plan.width], "float32")}
    key = hash_data([card.identity(), graph.identity()])[:16]
    stage = ColumnStage(work / key, graph.n, plan.width, solver.block)
    places = np.searchsorted(nodes, plan.rows)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        values = np.zeros((graph.n, plan.width), np.float32)
        known = nodes[plan.present]
        values[plan.present] = read_vectors(store, config.column, known)
        trusted = plan.confidence > 0 if config.method == "smooth" else plan.present
        _check_finite(store, config.column, nodes, values, trusted)
        report: dict[str, Any] = {}
        solve = _solver(graph, plan, values, solver, report)
        return {out: stage.fill(solve, out)[places]}, {"solve": report}

    written, facts = write_solved(store, [card], types, plan.rows, compute, overwrite=overwrite)
    stage.drop()
    return written, facts


_WRITERS = {"smooth": "graph smoothing", "pagerank": "PageRank propagation"}


def _check_finite(
    store: Store, column: str, rows: np.ndarray, values: np.ndarray, trusted: np.ndarray
) -> None:
    bad = trusted & ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"column '{column}' of {store.path}: row {rows[np.argmax(bad)]} holds NaN or infinity; "
            "write it again, or give it the confidence 0."
        )


def _solver(
    graph: Graph,
    plan: ValuePlan,
    values: np.ndarray,
    solver: SolverConfig,
    report: dict[str, Any],
) -> Callable[[slice], np.ndarray]:
    config = plan.config
    if config.method == "pagerank":

        def rank(part: slice) -> np.ndarray:
            return propagate(
                graph,
                values[:, part],
                teleport=config.teleport,
                normalise=config.normalise,
                solver=solver,
                report=report,
            )

        return rank
    smoother = Smoother(graph, strength=config.strength, confidence=plan.confidence, solver=solver)

    def smooth(part: slice) -> np.ndarray:
        found = smoother(values[:, part])
        report.update(smoother.system.report())
        return found

    return smooth


def _card_config(store: Store, plan: ValuePlan, solver: SolverConfig) -> dict[str, Any]:
    config = plan.config
    shape = card_config(store, config.column).get("shape", [plan.width])
    own: dict[str, Any] = {"teleport": config.teleport, "normalise": config.normalise}
    if config.method == "smooth":
        hashed = hash_bytes(np.ascontiguousarray(plan.confidence).tobytes())
        own = {"strength": config.strength, "confidence": config.confidence, "weights": hashed}
    return {
        **embedding_config(shape, "float32"),
        "input": config.column,
        "source": source_of(store, config.column),
        "rtol": solver.rtol,
        **own,
    }


def write_ranks(
    store: Store,
    graph: Graph,
    seeds: str,
    *,
    out: str = "pagerank.seeds",
    teleport: float = 0.1,
    solver: SolverConfig | None = None,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Write personalised PageRank from the rows that meet a condition: float64, sum 1.

    Args:
        store: open at its newest version.
        graph: of its rows.
        seeds: SQL condition, for example `"label = 3"`.
        out: column to write.
        teleport: chance of a walk to end at a step.
        solver: method and accuracy.
        overwrite: replace a column of another writer.

    Raises:
        DataError: no row of the graph is a seed.
    """
    assert graph.rows is not None
    solver = solver or SolverConfig()
    start = np.isin(graph.rows, store.where(seeds)).astype(np.float64)
    if not start.any():
        raise DataError(f'{store.path}: no row of the graph meets the condition "{seeds}".')
    config = {
        "seeds": seeds,
        "seeds_hash": hash_bytes(start.tobytes()),
        "teleport": teleport,
        "rtol": solver.rtol,
    }
    card = graph_card(out, "personalised PageRank", graph, config)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        report: dict[str, Any] = {}
        ranks = personalised_pagerank(graph, start, teleport=teleport, solver=solver, report=report)
        return {out: ranks}, {"solve": report, "num_seeds": int(start.sum())}

    return write_solved(
        store, [card], {out: pa.float64()}, graph.rows, compute, overwrite=overwrite
    )
