"""Retrieval by label: CMC and mean average precision of queries against a gallery.

    >>> import numpy as np
    >>> vectors = np.eye(3)[[0, 0, 1, 1, 2]]
    >>> labels = [0, 0, 1, 1, 2]
    >>> ranking_metrics(vectors, vectors, labels, labels, own=np.arange(5))["map"]
    1.0

References:
    arXiv 2112.02805 and arXiv 2303.04766 (protocol); arXiv 2003.11942 (criterion and gain).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.ranking_blocks import (
    BLOCK,
    QUERY_BLOCK,
    Rankings,
    rank_queries,
)
from understudy.evaluate.ranking_vectors import Grid, Vectors, squared_distances

Labels = Sequence[Any] | np.ndarray | Tensor


def label_numbers(query_labels: Labels, gallery_labels: Labels) -> tuple[Tensor, Tensor]:
    """Return labels of any kind as class numbers int64, the same for equal labels.

    Whole numbers below 0, NaN and None are no label (-1): such a query has nothing relevant, such
    an item is relevant to nobody.
    """
    both = [_plain(query_labels, "query labels"), _plain(gallery_labels, "gallery labels")]
    if all(part.dtype.kind in "biu" for part in both):
        first, second = (torch.from_numpy(part.astype(np.int64)) for part in both)
        return first.clamp(min=-1), second.clamp(min=-1)
    numbers: dict[Any, int] = {}

    def number(value: Any) -> int:
        none = value is None or value != value or (isinstance(value, int | float) and value < 0)
        return -1 if none else numbers.setdefault(value, len(numbers))

    first, second = (torch.tensor([number(v) for v in part.tolist()]).long() for part in both)
    return first, second


def _plain(labels: Labels, what: str) -> np.ndarray:
    out = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if not isinstance(out, np.ndarray):
        out = np.array(list(out), dtype=None if all(isinstance(v, int) for v in out) else object)
    if out.ndim != 1:
        raise DataError(f"{what}: expected one a row, got {list(out.shape)}.")
    return out


def check_own(own: Labels | None, queries: int, gallery: int) -> Tensor:
    """Return the gallery row that each query leaves out, int64 [Q], -1 for none.

    Raises:
        DataError: another length, or a row that the gallery does not have.
    """
    if own is None:
        return torch.full((queries,), -1)
    out = torch.as_tensor(np.asarray(own)).long()
    if out.shape != (queries,):
        raise DataError(f"own: expected one row for each of {queries} queries, got {len(out)}.")
    bad = (out < -1) | (out >= gallery)
    if bool(bad.any()):
        i = int(bad.int().argmax())
        raise DataError(f"own: query {i} names row {int(out[i])}; the gallery has {gallery} rows.")
    return out


def rankings(
    queries: Vectors,
    gallery: Vectors,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    own: Labels | None = None,
    metric: str = "l2",
    block: int = BLOCK,
    query_block: int = QUERY_BLOCK,
    device: str = "cpu",
) -> Rankings:
    """Return what every query's ranking says; see `ranking_metrics` for the arguments."""
    grid = Grid(queries, metric)
    grid.check_width(gallery, "gallery")
    labels = label_numbers(query_labels, gallery_labels)
    for found, vectors, what in zip(
        labels, (queries, gallery), ("queries", "gallery"), strict=True
    ):
        if len(found) != vectors.shape[0]:
            raise DataError(f"{what}: {vectors.shape[0]} vectors, but {len(found)} labels.")
    rows = check_own(own, len(labels[0]), len(labels[1]))
    kept: dict[str, Any] = {}

    def tables(q: slice, g: slice) -> list[Tensor]:
        if kept.get("at") == (q, g):  # a gallery of one block is measured once
            return [kept["table"]]
        left = grid.read(queries, q, "queries").to(device)
        right = grid.read(gallery, g, "gallery").to(device)
        kept.update(at=(q, g), table=squared_distances(left, right))
        return [kept["table"]]

    moved = [part.to(device) for part in (*labels, rows)]
    return rank_queries(tables, *moved, block=block, query_block=query_block)


def summary(found: Rankings, ks: Sequence[int] = (1, 5), variant: int = 0) -> dict[str, float]:
    """Return `cmc_<k>`, `map`, `queries` (that count) and `excluded` of rankings.

    Raises:
        DataError: no query has anything relevant.
        ConfigError: a k below 1.
    """
    if any(k < 1 for k in ks):
        raise ConfigError(f"ranking: ks must be at least 1, got {list(ks)}.")
    counted = found.relevant > 0
    if not counted.any():
        raise DataError(
            "ranking: no query has an item of its label in the gallery (its own left out), so "
            "there is nothing to score; check the label column."
        )
    first = found.first[variant, counted]
    out: dict[str, float] = {f"cmc_{k}": float((first < k).mean()) for k in ks}
    out["map"] = float(found.precision[variant, counted].mean())
    out |= {"queries": int(counted.sum()), "excluded": int((~counted).sum())}
    return out


def ranking_metrics(
    queries: Vectors,
    gallery: Vectors,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    own: Labels | None = None,
    metric: str = "l2",
    ks: Sequence[int] = (1, 5),
    block: int = BLOCK,
    query_block: int = QUERY_BLOCK,
    device: str = "cpu",
) -> dict[str, float]:
    """Score queries against a gallery in which equal labels belong together.

    CMC top-k is the share of queries with an item of their label among the k nearest; of equally
    near items the lower row comes first. Average precision is that of scikit-learn on negative
    distances: equally near items are one threshold. Queries without any item of their label are
    left out of both and counted. Numbers do not depend on the block sizes (see
    `understudy.evaluate.ranking_vectors`); at most `query_block` x `block` distances are in memory.

    Args:
        queries: [Q, D]; arrays, memory maps, or anything with `shape` and slices of rows.
        gallery: [G, D], read twice for each block of queries.
        query_labels: [Q]; numbers or strings. Below 0 and None are no label.
        gallery_labels: [G].
        own: int64 [Q] gallery row of the query itself, to leave out; -1 for none. Absent: none is.
        metric: `l2` on vectors as they are, or `cosine`.
        ks: of CMC.
        block: gallery rows taken at once.
        query_block: queries taken at once.
        device: `cpu` or `cuda`.

    Returns:
        `cmc_1`, `cmc_5`, ..., `map` (fractions), `queries`, `excluded`.

    Raises:
        DataError: widths or lengths differ, a value is not finite, nothing is relevant.
    """
    found = rankings(
        queries,
        gallery,
        query_labels,
        gallery_labels,
        own=own,
        metric=metric,
        block=block,
        query_block=query_block,
        device=device,
    )
    return summary(found, ks)


def is_compatible(new_old: float, old_old: float) -> bool:
    """Say whether new queries on the old gallery beat old ones: the criterion of compatibility."""
    return new_old > old_old


def update_gain(new_old: float, old_old: float, new_new: float) -> float:
    """Return the share of a full re-encoding's gain that is had without it.

    (M(new, old) - M(old, old)) / (M(new, new) - M(old, old)), with M(queries, gallery).

    Raises:
        DataError: the new model is no better than the old one, so nothing can be a share.
    """
    if not new_new > old_old:
        raise DataError(
            f"update gain: the new model ({new_new:.4g}) is not better than the old one "
            f"({old_old:.4g}), so there is no gain to have a share of."
        )
    return (new_old - old_old) / (new_new - old_old)
