"""Columns that are computed at once and written in units."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.knowledge import fixed_list

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.solve.graph import Graph

UNIT_ROWS = 8192


def graph_card(column: str, writer: str, graph: Graph, config: Mapping[str, Any]) -> Card:
    """Return the card of a column that was solved on a graph; its fingerprint is the graph's."""
    return Card(
        column=column,
        writer=writer,
        fingerprint=graph.fingerprint,
        config={"graph_of": graph.facts.get("column", ""), **config},
        versions=versions("scipy", "numba"),
        created_by="graph",
    )


def write_solved(
    store: Store,
    cards: Sequence[Card],
    types: Mapping[str, pa.DataType],
    rows: np.ndarray,
    compute: Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]],
    *,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Fill columns of rows with what `compute` returns; return rows written now and facts.

    The job is opened first, so that another writer's column is refused before anything is solved,
    and what was written already is not solved again.

    Args:
        store: open at its newest version.
        cards: one for each column.
        types: Arrow type of each column.
        rows: int64 [n] rows to fill, increasing.
        compute: returns values of all rows by column, [n] or [n, width], and facts for the cards.
        overwrite: replace columns of another writer.
    """
    job = store.job(cards, types, rows=rows, unit_rows=UNIT_ROWS, overwrite=overwrite)
    written, facts = 0, {}
    with job:
        todo = job.todo()
        if todo:
            start = time.perf_counter()
            values, found = compute()
            facts = dict(found)
            share = (time.perf_counter() - start) / len(todo)
            for unit in todo:
                chosen = job.rows(unit)
                places = np.searchsorted(rows, chosen)
                arrays = {c: arrow(values[c], places, types[c]) for c in types}
                job.write(unit, arrays, seconds=share, facts=facts)
                written += len(chosen)
    store.refresh()
    return written, facts


def arrow(values: np.ndarray, places: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return some values as an Arrow array of a type."""
    part = values[places]
    if pa.types.is_fixed_size_list(kind):
        return fixed_list(np.asarray(part, kind.value_type.to_pandas_dtype()))
    return pa.array(part.tolist() if part.dtype == object else part, kind)
