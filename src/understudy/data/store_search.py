"""Nearest neighbours in a vector column: exact by streaming, approximate by a Lance index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.data.knowledge import from_bfloat16
from understudy.data.store_commit import card_of
from understudy.data.store_lance import Handle, one_line
from understudy.data.store_names import check_columns, logical, physical
from understudy.data.store_read import check_filter, filter_error, stream, to_numpy, where

METRICS = ("cosine", "dot", "l2")
INDEX_KINDS = ("IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_HNSW_SQ", "IVF_HNSW_PQ")


def _vectors(handle: Handle, column: str) -> tuple[str, int, bool]:
    """Return (column, size, whether it holds bfloat16 bits) of a vector column."""
    (column,) = check_columns([column], handle.columns, str(handle.path))
    kind = handle.schema.field(physical(column)).type
    if not pa.types.is_fixed_size_list(kind):
        raise DataError(f"column '{column}' of {kind} holds no vectors to search.")
    card = card_of(handle, column)
    bits = card is not None and card.config.get("dtype") == "bfloat16"
    if not pa.types.is_floating(kind.value_type) and not bits:
        raise DataError(f"column '{column}' of {kind} holds no vectors to search.")
    return column, kind.list_size, bits


def _queries(query: Any, size: int, column: str) -> np.ndarray:
    vectors = np.atleast_2d(np.asarray(query, np.float32))
    if vectors.ndim != 2 or vectors.shape[1] != size:
        raise DataError(
            f"query of shape {list(np.shape(query))}: column '{column}' holds vectors of {size} "
            "numbers, so [Q, size] is expected."
        )
    if not np.isfinite(vectors).all():
        raise DataError("the query holds NaN or infinity.")
    return vectors


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norm, np.finfo(np.float32).tiny)


def _similarity(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return float32 [Q, B], larger is nearer."""
    if metric == "cosine":
        return queries @ _unit(vectors).T  # the queries have unit length already
    if metric == "dot":
        return queries @ vectors.T
    # |q - v|^2 = |q|^2 - 2 q.v + |v|^2, in float64: the terms nearly cancel for close vectors
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    squared = (q**2).sum(1)[:, None] - 2 * (q @ v.T) + (v**2).sum(1)
    return -np.sqrt(np.maximum(squared, 0)).astype(np.float32)


def search(
    handle: Handle, column: str, query: Any, k: int, metric: str, filter: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact nearest rows; see `Store.search`."""
    check_choice(metric, METRICS, "metric")
    column, size, bits = _vectors(handle, column)
    queries = _queries(query, size, column)
    if k < 1:
        raise DataError(f"k must be at least 1, got {k}.")
    if metric == "cosine":
        queries = _unit(queries)
    allowed = None
    if filter is not None:
        allowed = np.zeros(handle.num_rows, bool)
        allowed[where(handle, filter)] = True
    best = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    first = 0
    for values in stream(handle, column):
        valid = np.ones(len(values), bool)
        if values.null_count:
            valid = values.is_valid().to_numpy(zero_copy_only=False)
        if allowed is not None:
            valid &= allowed[first : first + len(values)]
        numbers = first + np.flatnonzero(valid)
        first += len(values)
        if not len(numbers):
            continue
        stored = to_numpy(values if valid.all() else values.filter(pa.array(valid)))
        vectors = from_bfloat16(stored) if bits else stored.astype(np.float32)
        scores = np.concatenate([best, _similarity(queries, vectors, metric)], axis=1)
        found = np.concatenate([rows, np.broadcast_to(numbers, (len(queries), len(numbers)))], 1)
        # stable: of equal scores the lower row number wins, whatever the batches are
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
    return rows, -best if metric == "l2" else best


def index_metric(handle: Handle, name: str) -> str:
    """Return the metric of the vector index of this name: `cosine`, `dot` or `l2`."""
    return handle.dataset.index_statistics(name)["indices"][0]["metric_type"].lower()


def indexes(handle: Handle) -> dict[str, dict[str, Any]]:
    """Return {column: {name, kind}} of the indexes there are."""
    return {
        logical(field): {"name": index.name, "kind": index.index_type}
        for index in handle.dataset.describe_indices()
        for field in index.field_names
    }


def drop_index(handle: Handle, columns: Sequence[str]) -> None:
    """Drop the indexes of columns that are about to change."""
    handle.refresh()
    for column, index in indexes(handle).items():
        if column in columns:
            handle.dataset.drop_index(index["name"])
    handle.refresh()


def index_vectors(handle: Handle, column: str, metric: str, kind: str, **options: Any) -> None:
    """Build an index; see `Store.index_vectors`."""
    handle.check_writable()
    check_choice(metric, METRICS, "metric")
    check_choice(kind, INDEX_KINDS, "index kind")
    column, _, bits = _vectors(handle, column)
    if bits:
        raise DataError(
            f"column '{column}' holds bfloat16 bits, which Lance cannot index; store float16 or "
            "search exactly."
        )
    handle.refresh()
    try:
        dataset = handle.dataset.create_index(
            physical(column), kind, name=f"vectors:{physical(column)}", metric=metric,
            replace=True, **options,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise DataError(f"column '{column}': no {kind} index ({one_line(error)}).") from None
    handle.adopt(dataset)


def search_index(
    handle: Handle,
    column: str,
    query: Any,
    k: int,
    filter: str | None,
    nprobes: int,
    refine: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return approximately nearest rows by the column's index; see `Store.search_index`."""
    column, size, _ = _vectors(handle, column)
    queries = _queries(query, size, column)
    index = indexes(handle).get(column)
    if index is None:
        raise DataError(f"column '{column}' has no index; build one with Store.index_vectors.")
    metric = index_metric(handle, index["name"])
    rows = np.full((len(queries), k), -1, np.int64)
    worst = np.inf if metric == "l2" else -np.inf
    scores = np.full((len(queries), k), worst, np.float32)
    condition = None if filter is None else check_filter(handle, filter)
    for i, vector in enumerate(queries):
        nearest = {"column": physical(column), "q": vector, "k": k, "nprobes": nprobes}
        if refine is not None:
            nearest["refine_factor"] = refine
        try:
            found = handle.dataset.scanner(
                columns=["_distance"], nearest=nearest, filter=condition,
                prefilter=condition is not None, with_row_address=True,
            ).to_table()  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise filter_error(handle, filter, error) from None
        count = found.num_rows
        rows[i, :count] = handle.rows_of(found.column("_rowaddr").to_numpy())
        distance = found.column("_distance").to_numpy()
        # Lance returns 1 - cosine, 1 - dot and the squared distance
        scores[i, :count] = np.sqrt(distance) if metric == "l2" else 1 - distance
    return rows, scores
