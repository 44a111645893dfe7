"""Backfilling curves: how good retrieval is when a part of the gallery has been encoded again.

M(beta) is a ranking metric on a gallery whose first floor(beta n) items of an order hold the new
model's vectors n_i and whose others hold mapped ones z_i; queries are the new model's. Distances to
z and to n are computed once for each pair of blocks and serve every fraction of every order.

References:
    arXiv 2303.04766, sec. 4 (curves; their mean over beta as the metric of backfilling).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import DataError
from understudy.evaluate.ranking import Labels, check_own, label_numbers, summary
from understudy.evaluate.ranking_blocks import BLOCK, QUERY_BLOCK, Rankings, rank_queries
from understudy.evaluate.ranking_groups import cmc_gap, smallest_group
from understudy.evaluate.ranking_vectors import Grid, Vectors, squared_distances
from understudy.update.curve_points import Curve, auc, curve_of, cutoffs

Orders = Mapping[str, np.ndarray | Sequence[np.ndarray]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """The curves of several orders over one gallery.

    Attributes:
        fractions: of the grid, cutoff / n, from 0 to 1.
        cutoffs: items encoded at each point: floor(i n / (points - 1)).
        orders: name -> curve.
        queries: queries that have something relevant.
        excluded: queries that have nothing.
        metric: l2 or cosine.
        minority: the group that the gap is about; None without groups.
    """

    fractions: list[float]
    cutoffs: list[int]
    orders: dict[str, Curve]
    queries: int
    excluded: int
    metric: str
    minority: Any = None


def backfill_curves(
    mapped: Vectors,
    encoded: Vectors,
    labels: Labels,
    orders: Orders,
    *,
    points: int = 11,
    queries: Vectors | None = None,
    query_labels: Labels | None = None,
    own: Labels | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    minority: Any = None,
    metric: str = "l2",
    ks: Sequence[int] = (1, 5),
    block: int = BLOCK,
    query_block: int = QUERY_BLOCK,
    device: str = "cpu",
) -> Curves:
    """Return the curves of backfilling a gallery in one or several orders.

    Args:
        mapped: z [n, D].
        encoded: n [n, D], the new model's vectors of the same items.
        labels: class of each item.
        orders: name -> positions int64 in order of encoding; items that no order names hold their
            new vectors from the start. A list of orders under one name (random permutations) gives
            one curve, their mean.
        points: of the grid, ends included.
        queries: [Q, D] of the new model; the gallery's own items when absent, each left out of its
            own ranking.
        query_labels: [Q]; needed with `queries`.
        own: [Q] gallery row of each query of `queries` to leave out, -1 for none.
        groups: group of each query, for a fairness curve.
        minority: the group it is about; the smallest when absent.
        metric: l2 or cosine.
        ks: of CMC.
        block: gallery rows taken at once.
        query_block: queries taken at once, at most.
        device: `cpu` or `cuda`.

    Raises:
        DataError: shapes or lengths differ, orders are none or of different items, nothing is
            relevant.
    """
    if mapped.shape != encoded.shape:
        raise DataError(
            f"curve: mapped {list(mapped.shape)} and encoded {list(encoded.shape)} differ."
        )
    if queries is None:
        queries, query_labels, own = encoded, labels, np.arange(mapped.shape[0])
    elif query_labels is None:
        raise DataError("curve: queries of their own need query_labels.")
    lists = {name: _several(order) for name, order in orders.items()}
    ranks, size = _ranks([(n, o) for n, several in lists.items() for o in several], mapped.shape[0])
    tables = _Mixes(mapped, encoded, queries, metric, ranks, cutoffs(size, points), device)
    found = rank_queries(
        tables,
        *_numbers(queries, mapped, query_labels, labels, own, device),
        variants=tables.count,
        block=block,
        query_block=query_block,
    )
    if groups is not None and minority is None:
        minority = smallest_group(groups, found.relevant > 0)
    facts = summary(found, ks)
    return Curves(
        fractions=[i / (points - 1) for i in range(points)],
        cutoffs=cutoffs(size, points),
        orders=_order_curves(found, lists, tables, ks, groups, minority),
        queries=int(facts["queries"]),
        excluded=int(facts["excluded"]),
        metric=metric,
        minority=minority,
    )


def _numbers(
    queries: Vectors,
    gallery: Vectors,
    query_labels: Labels,
    labels: Labels,
    own: Labels | None,
    device: str,
) -> list[Tensor]:
    """Return class numbers of queries and items, and the row that each query leaves out."""
    found = label_numbers(query_labels, labels)
    for numbers, vectors, what in zip(found, (queries, gallery), ("query ", ""), strict=True):
        if len(numbers) != vectors.shape[0]:
            raise DataError(f"curve: {len(numbers)} {what}labels for {vectors.shape[0]} vectors.")
    rows = check_own(own, len(found[0]), len(found[1]))
    return [part.to(device) for part in (*found, rows)]


def _several(order: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    return [order] if isinstance(order, np.ndarray) else list(order)


def _ranks(orders: Sequence[tuple[str, np.ndarray]], count: int) -> tuple[Tensor, int]:
    """Return int64 [O, count] rank of each item in each order (-1: in none), and their length."""
    if not orders:
        raise DataError("curve: name at least one order.")
    ranks = np.full((len(orders), count), -1, np.int64)
    members: np.ndarray | None = None
    for i, (name, order) in enumerate(orders):
        order = np.asarray(order)
        if order.ndim != 1 or not np.issubdtype(order.dtype, np.integer) or not len(order):
            raise DataError(f"curve: order '{name}' is not a list of positions.")
        here = np.sort(order)
        if here[0] < 0 or here[-1] >= count or (np.diff(here) == 0).any():
            raise DataError(
                f"curve: order '{name}' is not a permutation: a position lies outside of {count} "
                "items or appears twice."
            )
        if members is not None and not np.array_equal(members, here):
            raise DataError(f"curve: order '{name}' names other items than '{orders[0][0]}'.")
        members = here
        ranks[i, order] = np.arange(len(order))
    return torch.from_numpy(ranks), len(orders[0][1])


class _Mixes:
    """Distances to every mixed gallery: none encoded, all encoded, then each order's inner points.

    The ends do not depend on the order, so they are counted once.
    """

    def __init__(
        self,
        mapped: Vectors,
        encoded: Vectors,
        queries: Vectors,
        metric: str,
        ranks: Tensor,
        grid_cutoffs: Sequence[int],
        device: str,
    ) -> None:
        self.mapped, self.encoded, self.queries, self.device = mapped, encoded, queries, device
        self.grid = Grid(queries, metric)
        self.grid.check_width(mapped, "gallery")
        self.ranks, self.inner = ranks.to(device), list(grid_cutoffs[1:-1])
        self.count = 2 + len(ranks) * len(self.inner)
        self._kept: tuple[Any, Any] = (None, None)

    def variants(self, order: int) -> list[int]:
        """Return the numbers of the variants of an order, point by point."""
        start = 2 + order * len(self.inner)
        return [0, *range(start, start + len(self.inner)), 1]

    def _distances(self, q: slice, g: slice) -> tuple[Tensor, Tensor]:
        if self._kept[0] != (q, g):  # a gallery of one block is measured once
            left = self.grid.read(self.queries, q, "queries").to(self.device)
            pair = tuple(
                squared_distances(left, self.grid.read(part, g, what).to(self.device))
                for part, what in ((self.mapped, "mapped"), (self.encoded, "encoded"))
            )
            self._kept = ((q, g), pair)
        return self._kept[1]

    def __call__(self, q: slice, g: slice) -> Any:
        z, n = self._distances(q, g)
        ranks = self.ranks[:, g]
        yield torch.where(ranks[0] < 0, n, z)
        yield n
        for rank in ranks:
            for cutoff in self.inner:
                yield torch.where(rank < cutoff, n, z)


def _order_curves(
    found: Rankings,
    lists: Mapping[str, Sequence[np.ndarray]],
    tables: _Mixes,
    ks: Sequence[int],
    groups: Sequence[Any] | np.ndarray | None,
    minority: Any,
) -> dict[str, Curve]:
    """Return name -> curve, the mean where there are several orders of a name."""
    points = len(tables.inner) + 1
    fractions = [i / points for i in range(points + 1)]
    curves, first = {}, 0
    for name, several in lists.items():
        numbers = range(first, first + len(several))
        each = [_points(found, tables.variants(i), ks, groups, minority) for i in numbers]
        curves[name] = _mean_curve(each, fractions)
        first += len(several)
    return curves


def _points(
    found: Rankings,
    variants: Sequence[int],
    ks: Sequence[int],
    groups: Sequence[Any] | np.ndarray | None,
    minority: Any,
) -> dict[str, list[float]]:
    """Return metric -> value at each point of one order; `gap` among them if there are groups."""
    names = [*(f"cmc_{k}" for k in ks), "map"]
    rows = [summary(found, ks, v) for v in variants]
    out = {name: [row[name] for row in rows] for name in names}
    if groups is not None:
        out["gap"] = [cmc_gap(found, groups, minority, variant=v) for v in variants]
    return out


def _mean_curve(each: Sequence[Mapping[str, list[float]]], fractions: Sequence[float]) -> Curve:

    mean = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
    gap = [float(x) for x in mean.pop("gap", [])]
    return dataclasses.replace(
        curve_of(mean, fractions),
        gap=gap,
        gap_auc=auc(gap) if gap else None,
        permutations=len(each),
        each={name: [auc(one[name]) for one in each] for name in mean},
    )
