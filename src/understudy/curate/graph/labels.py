"""Labels of a few rows become labels of many, with margins and entropies to filter by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.hashing import hash_bytes
from understudy.curate.graph.nodes import read_labels
from understudy.curate.graph.write import graph_card, write_solved
from understudy.data.knowledge import embedding_config, embedding_type
from understudy.solve.graph import (
    Graph,
    LabelResult,
    SolverConfig,
    harmonic_labels,
    spread_labels,
)
from understudy.solve.graph.labels import encoded

if TYPE_CHECKING:
    from understudy.data.store import Store

METHODS = ("spread", "harmonic")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig:
    """How labels are extended.

    Attributes:
        method: `spread` (label spreading) or `harmonic` (harmonic functions, labels are kept).
        labels: column of labels; null, -1 and empty text are none.
        where: use labels of rows that meet this condition only.
        alpha: of spreading.
        class_mass: of harmonic functions.
        out: column to write; `<out>.margin` and `<out>.entropy` are written too.
        scores: also write `<out>.scores`, float32 [classes].
    """

    method: str = "spread"
    labels: str
    where: str = ""
    alpha: float = 0.99
    class_mass: bool = False
    out: str = ""
    scores: bool = False

    def __post_init__(self) -> None:
        check_choice(self.method, METHODS, "graph labels: method")

    @property
    def column(self) -> str:
        """The column that is written."""
        return self.out or f"label.{self.method}"


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """What is read and written.

    Attributes:
        config: how.
        codes: int64 [n], -1 for none.
        classes: sorted labels.
        facts: nodes, labels and classes.
    """

    config: LabelConfig
    codes: np.ndarray
    classes: np.ndarray
    facts: dict[str, Any]


def plan_labels(store: Store, graph: Graph, config: LabelConfig) -> LabelPlan:
    """Read labels and say what would be written; see `write_labels`.

    Raises:
        DataError: no such column, no labels, or of the wrong kind.
    """
    assert graph.rows is not None
    codes, classes = encoded(read_labels(store, config.labels, graph.rows, config.where), graph.n)
    reached = graph.touched(codes >= 0)
    return LabelPlan(
        config=config,
        codes=codes,
        classes=classes,
        facts={
            "writes": config.column,
            "nodes": graph.n,
            "edges": graph.num_edges,
            "labelled": int((codes >= 0).sum()),
            "classes": len(classes),
            "not_reached": int((~reached).sum()),
            "memory_bytes": 8 * 8 * graph.n * len(classes) + 24 * graph.weights.nnz,
        },
    )


def write_labels(
    store: Store,
    graph: Graph,
    plan: LabelPlan,
    *,
    solver: SolverConfig | None = None,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Write labels, margins and entropies of all nodes; return rows written now and facts.

    Rows that no label reached get -1 (empty text), margin 0 and entropy 1.

    Raises:
        ConfigError: alpha is out of range.
        CardError: the columns hold something else.
    """
    assert graph.rows is not None
    config, solver = plan.config, solver or SolverConfig()
    text = plan.classes.dtype.kind in "UO"
    out = config.column
    types: dict[str, pa.DataType] = {
        out: pa.string() if text else pa.int64(),
        f"{out}.margin": pa.float32(),
        f"{out}.entropy": pa.float32(),
    }
    extra: dict[str, Any] = {}
    if config.scores:
        types[f"{out}.scores"] = embedding_type([len(plan.classes)], "float32")
        extra = {f"{out}.scores": embedding_config([len(plan.classes)], "float32")}
    shared = _shared(plan, solver)
    cards = [
        graph_card(c, _WRITERS[config.method], graph, {**shared, **extra.get(c, {}), "of": c})
        for c in types
    ]

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        result = _solve(graph, plan, solver)
        named = np.full(graph.n, "" if text else -1, object if text else np.int64)
        named[result.reached] = plan.classes[result.labels[result.reached]]
        values = {out: named, f"{out}.margin": result.margin, f"{out}.entropy": result.entropy}
        if config.scores:
            values[f"{out}.scores"] = result.scores
        return values, {"solve": result.report}

    return write_solved(store, cards, types, graph.rows, compute, overwrite=overwrite)


_WRITERS = {"spread": "label spreading", "harmonic": "harmonic functions"}


def _shared(plan: LabelPlan, solver: SolverConfig) -> dict[str, Any]:
    config = plan.config
    own = (
        {"alpha": config.alpha} if config.method == "spread" else {"class_mass": config.class_mass}
    )
    return {
        "labels": config.labels,
        "where": config.where,
        "labels_hash": hash_bytes(plan.codes.tobytes()),
        "classes": plan.classes.tolist(),
        "rtol": solver.rtol,
        **own,
    }


def _solve(graph: Graph, plan: LabelPlan, solver: SolverConfig) -> LabelResult:
    config = plan.config
    find: Callable[..., LabelResult]
    if config.method == "spread":
        find, own = spread_labels, {"alpha": config.alpha}
    else:
        find, own = harmonic_labels, {"class_mass": config.class_mass}
    return find(graph, plan.codes, num_classes=len(plan.classes), solver=solver, **own)
