"""Nearest neighbours in a gallery under update, exactly or through Lance's indexes.

    from understudy.update.gallery import Gallery
    from understudy.update.search import search
    gallery = Gallery.open(store, new="embed.new", mapped="embed.new.from.old")
    hits = search(gallery, vectors, 10, space=space_of(store, "embed.new"))

A gallery mixes a model's own vectors with vectors mapped to that model: a union of two columns
with one target. `search_index` asks both columns, each about the rows that are served from it, and
ranks what they answer by exact scores. Queries of any other space are refused.
"""

from __future__ import annotations

import numpy as np

from understudy.core.errors import DataError
from understudy.data.spaces import Space, SpaceError, check_comparable
from understudy.data.store import Store
from understudy.update.gallery import ABSENT, ENCODED, MAPPED, Gallery
from understudy.update.search_scores import (
    Hits,
    Kernel,
    Ranking,
    candidates,
    check_queries,
    squared_norms,
)

__all__ = [
    "Hits",
    "build_indexes",
    "check_query_space",
    "filtered_rows",
    "index_recall",
    "search",
    "search_index",
]

_FLAT_ROWS = 100_000
_OVERSAMPLE = 8  # beyond this, rows that were encoded since are left out by a condition instead


def check_query_space(query: Space | str, gallery: Space, where: str) -> None:
    """Refuse queries of another space than the gallery is searched from.

    Args:
        query: the queries' space, or its id where no more is known of it.
        gallery: the gallery's space.
        where: what is searched, for the message.

    Raises:
        SpaceError: the message names both ids and how to get from one to the other.
    """
    if isinstance(query, Space):
        check_comparable(query, gallery, where)
    elif query != gallery.searched_from:
        raise SpaceError(
            f"{where}: queries are in space {query}, but the gallery is searched from space "
            f"{gallery.searched_from} ({gallery.model}, {gallery.dim} numbers). Encode queries "
            "with that model, or train a map between the two ('understudy update fit') and apply "
            "it ('understudy update apply')."
        )


def filtered_rows(store: Store, filter: str | None) -> np.ndarray | None:
    """Return the rows int64 that meet a condition, ascending; None without a condition."""
    return None if filter is None else store.where(filter)


def search(
    gallery: Gallery,
    queries: object,
    k: int = 10,
    *,
    space: Space | str,
    metric: str = "cosine",
    filter: str | None = None,
) -> Hits:
    """Return the k nearest rows of each query, exactly, by streaming the gallery.

    Args:
        gallery: what is searched; rows without a vector are passed over.
        queries: `[Q, D]` or `[D]`.
        k: neighbours a query.
        space: the space that the queries are in, or its id.
        metric: `cosine`, `dot` (larger is nearer) or `l2` (Euclidean distance).
        filter: SQL condition on the store's columns that a neighbour must meet.

    Raises:
        SpaceError: the queries are of another space than the gallery is searched from.
        DataError: a query of another width, or with NaN or infinity.
    """
    where = f"gallery of {gallery.store.path}"
    check_query_space(space, gallery.space, where)
    kernel = Kernel(check_queries(queries, gallery.dim, where), metric)
    ranking = Ranking(kernel, k)
    _rank(gallery, ranking, filtered_rows(gallery.pinned, filter))
    return ranking.hits()


def _rank(gallery: Gallery, ranking: Ranking, rows: np.ndarray | None) -> None:
    """Rank rows of a gallery (all, for None) by streaming them."""
    kernel = ranking.kernel
    for part in gallery.stream(rows):
        squared = squared_norms(part.vectors)
        keys = kernel.keys(part.vectors, squared)
        slack = kernel.slack(float(squared.max()), gallery.dim)
        for query in range(len(kernel)):
            best = candidates(keys[query], ranking.k, float(slack[query]))
            ranking.offer(query, part.rows[best], part.vectors[best], part.encoded[best])


def build_indexes(
    gallery: Gallery, *, metric: str = "cosine", kind: str = "", **options: int
) -> list[str]:
    """Build Lance's index on each column of a gallery that has none.

    Filling more rows of a column drops its index, so during a backfill build one on the mapped
    column only, or none on the column that is being filled until it is whole.

    Args:
        gallery: whose columns; its store must not be pinned.
        metric: `cosine`, `dot` or `l2`.
        kind: see `Store.index_vectors`; empty keeps whole vectors (IVF_FLAT) up to 100,000 rows and
            a sixteenth of their bytes (IVF_PQ) beyond.
        **options: passed to Lance; by default as many partitions as the root of the rows, and a
            byte for four numbers.

    Returns:
        The columns that got an index.
    """
    there, built = gallery.store.indexes(), []
    for column, state in _parts(gallery):
        rows = np.count_nonzero(gallery.states() == state if state else gallery.states())
        if not rows or column in there:
            continue
        chosen = kind or ("IVF_FLAT" if rows <= _FLAT_ROWS else "IVF_PQ")
        wanted = {"num_partitions": max(1, round(rows**0.5)), **options}
        if chosen.endswith("PQ"):
            group = next(n for n in (4, 2, 1) if gallery.dim % n == 0)
            wanted.setdefault("num_sub_vectors", gallery.dim // group)
        gallery.store.index_vectors(column, metric=metric, kind=chosen, **wanted)
        built.append(column)
    return built


def search_index(
    gallery: Gallery,
    queries: object,
    k: int = 10,
    *,
    space: Space | str,
    filter: str | None = None,
    nprobes: int = 20,
    refine: int = 4,
) -> Hits:
    """Return what `search` does, approximately, through the columns' indexes.

    The mapped column is asked about rows that are not encoded yet, the model's own column about
    the rest; a column without an index (one that is just being filled) is searched exactly. What
    both answer is scored again with the stored vectors, so that scores can be compared.

    Args:
        gallery: what is searched.
        queries: `[Q, D]` or `[D]`.
        k: neighbours a query.
        space: the space that the queries are in, or its id.
        filter: SQL condition on the store's columns that a neighbour must meet.
        nprobes: partitions of an index to look into.
        refine: candidates that are scored again, in multiples of k.

    Raises:
        SpaceError: the queries are of another space than the gallery is searched from.
        DataError: no column has an index, or their metrics differ; or bad queries.
    """
    where = f"gallery of {gallery.store.path}"
    check_query_space(space, gallery.space, where)
    vectors = check_queries(queries, gallery.dim, where)
    metric = _metric(gallery, where)
    kernel = Kernel(vectors, metric)
    ranking = Ranking(kernel, k)
    for column, state in _parts(gallery):
        found = _candidate_rows(gallery, column, state, kernel, vectors, k, filter, nprobes, refine)
        for query, rows in enumerate(found):
            part = gallery.take(rows)
            ranking.offer(query, part.rows, part.vectors, part.encoded)
    return ranking.hits()


def _parts(gallery: Gallery) -> list[tuple[str, int]]:
    """Return (column, state of the rows that are served from it); state 0 stands for any."""
    if gallery.mixed is not None:
        return [(gallery.mixed, ABSENT)]
    columns = ((gallery.column_of(state), state) for state in (MAPPED, ENCODED))
    return [(column, state) for column, state in columns if column is not None]


def _metric(gallery: Gallery, where: str) -> str:
    there = gallery.pinned.indexes()
    metrics = {there[column] for column, _ in _parts(gallery) if column in there}
    if len(metrics) == 1:
        return metrics.pop()
    if metrics:
        raise DataError(
            f"{where}: the indexes of its columns use {' and '.join(sorted(metrics))}; build both "
            "with one metric (build_indexes)."
        )
    raise DataError(
        f"{where}: no column has an index (filling rows drops it); build one with build_indexes, "
        "or search exactly."
    )


def _candidate_rows(
    gallery: Gallery,
    column: str,
    state: int,
    kernel: Kernel,
    queries: np.ndarray,
    k: int,
    filter: str | None,
    nprobes: int,
    refine: int,
) -> list[np.ndarray]:
    """Return for each query rows int64 [M] of one state, among which are its nearest."""
    store, states = gallery.pinned, gallery.states()
    served = states == state if state else states != ABSENT
    if not served.any():
        return [np.empty(0, np.int64)] * len(queries)
    if column not in store.indexes():
        allowed = filtered_rows(store, filter)
        rows = np.flatnonzero(served)
        ranking = Ranking(kernel, k)
        _rank(gallery, ranking, rows if allowed is None else np.intersect1d(rows, allowed))
        return [found[found >= 0] for found in ranking.hits().rows]
    # the index knows rows that are served from another column by now: ask for more, drop those
    crowd = 1 + np.count_nonzero(store.filled(column) & ~served) / np.count_nonzero(served)
    wanted = int(np.ceil(k * refine * min(crowd, _OVERSAMPLE)))
    found, _ = store.search_index(column, queries, wanted, filter=filter, nprobes=nprobes)
    kept = [rows[(rows >= 0) & served[rows]] for rows in found]
    short = [len(rows) < k and found[i, -1] >= 0 for i, rows in enumerate(kept)]
    if any(short) and gallery.new is not None:
        still = f"`{gallery.new}` IS NULL"
        condition = still if filter is None else f"({filter}) AND {still}"
        again, _ = store.search_index(
            column, queries[short], k * refine, filter=condition, nprobes=nprobes
        )
        for i, rows in zip(np.flatnonzero(short), again, strict=True):
            kept[i] = rows[rows >= 0]
    return kept


def index_recall(
    gallery: Gallery,
    queries: np.ndarray,
    k: int = 10,
    *,
    space: Space | str,
    nprobes: int = 20,
    refine: int = 4,
) -> float:
    """Return the share of the exact k nearest rows that search through the indexes finds.

    Args:
        gallery: what is searched.
        queries: `[Q, D]`.
        k: neighbours a query.
        space: the space that the queries are in, or its id.
        nprobes: see `search_index`.
        refine: see `search_index`.
    """
    found = search_index(gallery, queries, k, space=space, nprobes=nprobes, refine=refine)
    metric = _metric(gallery, f"gallery of {gallery.store.path}")
    exact = search(gallery, queries, k, space=space, metric=metric)
    pairs = zip(found.rows, exact.rows, strict=True)
    hits = sum(np.isin(true[true >= 0], got).sum() for got, true in pairs)
    return float(hits / max(int((exact.rows >= 0).sum()), 1))
