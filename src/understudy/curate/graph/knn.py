"""Neighbours of a store's rows as columns, and the graph that follows from them as a file.

Finding neighbours is what takes long, so it is a job: exact neighbours are kept unit by unit, and a
run that was killed goes on. Weights take seconds and are made anew from the columns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core import progress
from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.core.provenance import versions
from understudy.curate.graph.nodes import node_rows, numeric_width, read_vectors, source_of
from understudy.data.card import Card
from understudy.data.knowledge import fixed_list
from understudy.solve.graph import ExactSearch, Graph, KnnConfig, Neighbours, graph_of
from understudy.solve.graph.build import check_size, measured_recall
from understudy.solve.graph.features import checked_features

if TYPE_CHECKING:
    from understudy.data.store import Store

UNIT_ROWS = 1024
SEARCH = ("k", "metric", "seed")
"""Settings that decide the neighbours; the others decide weights only."""


@dataclass(frozen=True, kw_only=True)
class KnnPlan:
    """What is read, searched and written.

    Attributes:
        column: vectors.
        neighbours: column of row numbers; distances are in `<neighbours>.distance`.
        rows: int64 [n] rows that are nodes.
        search: `exact` or `approximate`.
        config: how the graph is built.
        facts: what identifies the graph: store, column, its source, configuration.
        cost: nodes, numbers a vector, floating point operations, bytes.
    """

    column: str
    neighbours: str
    rows: np.ndarray
    search: str
    config: KnnConfig
    facts: dict[str, Any]
    cost: dict[str, Any]


def plan_knn(
    store: Store, column: str, config: KnnConfig, *, where: str = "", neighbours: str = ""
) -> KnnPlan:
    """Say what making a graph would do and take; see `write_knn`.

    Raises:
        ConfigError: k is not below the number of rows.
        DataError: no such column, no numbers, too few rows, or too little memory.
    """
    width = numeric_width(store, column)
    rows = node_rows(store, column, where)
    n = len(rows)
    needed = check_size(np.broadcast_to(np.float32(0), (n, width)), config)
    search = config.chosen(n, width)
    flops = 2 * n * n * width if search == "exact" else 0
    return KnnPlan(
        column=column,
        neighbours=neighbours or f"knn.{column}",
        rows=rows,
        search=search,
        config=config,
        facts={
            "store": store.uid,
            "column": column,
            "source": source_of(store, column),
            "config": to_dict(config),
            "search": search,
        },
        cost={
            "nodes": n,
            "width": width,
            "search": search,
            "flops": flops,
            "memory_bytes": needed + 4 * n * width,
            "bytes_written": 8 * n * config.k + 12 * 2 * n * config.k,
        },
    )


def write_knn(store: Store, plan: KnnPlan, out: Path, *, overwrite: bool = False) -> Graph:
    """Write neighbours as columns and the graph as a file; return the graph.

    Args:
        store: open at its newest version.
        plan: from `plan_knn`.
        out: file of the graph.
        overwrite: replace neighbours and a file of other settings.

    Raises:
        CardError: the columns hold other neighbours.
        DataError: vectors that are not finite, or the file is another graph's.
    """
    if out.exists() and not overwrite:
        _check_same(out, plan)
    _write_columns(store, plan, overwrite)
    store.refresh()
    found = read_neighbours(store, plan.neighbours, plan.rows)
    facts = dict(plan.facts)
    card = store.card(plan.neighbours)
    if "recall" in card.facts:
        facts["recall"] = card.facts["recall"]
    graph = graph_of(
        found,
        kernel=plan.config.kernel,
        sigma=plan.config.sigma,
        self_loops=plan.config.self_loops,
        rows=plan.rows,
        facts=facts,
    )
    graph.save(out)
    return graph


def read_neighbours(store: Store, column: str, rows: np.ndarray) -> Neighbours:
    """Return stored neighbours, numbered by their place in `rows`."""
    stored = store.array(column, rows)
    distances = store.array(f"{column}.distance", rows).astype(np.float64)
    places = np.searchsorted(rows, stored).astype(np.int32)
    return Neighbours(indices=places, distances=distances)


def _check_same(out: Path, plan: KnnPlan) -> None:
    found = Graph.load(out).facts
    same = all(found.get(name) == value for name, value in plan.facts.items())
    if not same:
        raise DataError(
            f"{out}: there is a graph of other vectors or settings; name another file (--graph), "
            "or replace it (--overwrite)."
        )


def _cards(plan: KnnPlan) -> list[Card]:
    settings = to_dict(plan.config)
    config = {
        "input": plan.column,
        "source": plan.facts["source"],
        "search": plan.search,
        "rows": hash_bytes(plan.rows.tobytes()),
        **{name: settings[name] for name in SEARCH},
    }
    return [
        Card(
            column=column,
            writer=f"{plan.search} nearest neighbours",
            config={**config, "of": what},
            versions=versions("scipy", "numba"),
            seed=plan.config.seed,
            created_by="graph knn",
        )
        for column, what in (
            (plan.neighbours, "row numbers"),
            (f"{plan.neighbours}.distance", "distances"),
        )
    ]


def _write_columns(store: Store, plan: KnnPlan, overwrite: bool) -> None:
    k = plan.config.k
    rows_name, distance_name = plan.neighbours, f"{plan.neighbours}.distance"
    types: dict[str, pa.DataType] = {
        rows_name: pa.list_(pa.int32(), k),
        distance_name: pa.list_(pa.float32(), k),
    }
    job = store.job(_cards(plan), types, rows=plan.rows, unit_rows=UNIT_ROWS, overwrite=overwrite)
    with job:
        todo = job.todo()
        if not todo:
            return
        points = checked_features(read_vectors(store, plan.column, plan.rows), plan.config.metric)
        source = _Source(points, plan)
        label = f"neighbours of {plan.column}"
        with progress.bar(label, job.num_wanted, "rows", job.num_done) as bar:
            for unit in todo:
                start = time.perf_counter()
                rows = job.rows(unit)
                found = source.find(np.searchsorted(plan.rows, rows))
                job.write(
                    unit,
                    {
                        rows_name: fixed_list(plan.rows[found.indices].astype(np.int32)),
                        distance_name: fixed_list(found.distances.astype(np.float32)),
                    },
                    seconds=time.perf_counter() - start,
                    facts=source.facts,
                )
                bar.advance(len(rows))


class _Source:
    """Finds neighbours of some nodes: exactly when asked, or of all at once before."""

    def __init__(self, points: np.ndarray, plan: KnnPlan) -> None:
        self.k, self.facts = plan.config.k, {}
        self._all: Neighbours | None = None
        self._search: ExactSearch | None = None
        if plan.search == "exact":
            self._search = ExactSearch(points, plan.config.block_mb << 20)
            return
        from understudy.solve.graph.descent import descend

        self._all = descend(points, self.k, seed=plan.config.seed)
        self.facts = {"recall": measured_recall(points, self._all, plan.config.seed)}

    def find(self, places: np.ndarray) -> Neighbours:
        if self._search is not None:
            return self._search.neighbours(self.k, places)
        assert self._all is not None
        return Neighbours(indices=self._all.indices[places], distances=self._all.distances[places])
