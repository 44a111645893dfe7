"""Where the relevant items of each query rank, block by block, for many variants of one gallery.

Two passes over the gallery for each block of queries: the first collects the distances of relevant
items, the second counts how many items are at least as near as each of them. From these counts
follow average precision and the first relevant rank; no list of all items is ever sorted or kept.
A variant is another gallery of the same items (a curve has one for each backfilled fraction): all
variants are counted while one block of distances is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.evaluate.ranking_vectors import blocks

BLOCK = 4096
QUERY_BLOCK = 1024
_CELLS = 1 << 22  # relevant distances kept at a time, over all queries and variants of a block

Tables = Callable[[slice, slice], Iterable[Tensor]]
"""(query rows, gallery rows) -> one table of distances float64 [q, g] for each variant."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """What the rankings of all queries say.

    Attributes:
        precision: float64 [V, Q] average precision; NaN where nothing is relevant.
        first: int64 [V, Q] rank of the nearest relevant item, 0 = nearest of all; -1 where nothing
            is relevant. Of equally near items the one of the lower row comes first.
        relevant: int64 [Q] number of relevant items, the query's own left out.
    """

    precision: np.ndarray
    first: np.ndarray
    relevant: np.ndarray


class _Variant:
    """Counts of one variant for one block of queries."""

    def __init__(self, relevant: Int[Tensor, " q"], width: int) -> None:
        rows = len(relevant)
        self.relevant = relevant
        device = relevant.device
        # the column after the last relevant item catches everything farther than all of them
        shape, inf = (rows, width + 1), float("inf")
        self.near = torch.full(shape, inf, dtype=torch.float64, device=device)
        self.at = torch.zeros(rows, dtype=torch.int64, device=device)
        self.best = torch.full((rows, 1), float("inf"), dtype=torch.float64, device=device)
        self.best_item = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.counts = torch.zeros(rows * (width + 1), dtype=torch.int64, device=device)
        self.before = torch.zeros(rows, dtype=torch.int64, device=device)

    def collect(self, table: Float[Tensor, "q g"], same: Bool[Tensor, "q g"], start: int) -> None:
        row, column = same.nonzero(as_tuple=True)
        if not len(row):
            return
        found = same.sum(1)
        within = torch.arange(len(row), device=row.device) - (found.cumsum(0) - found)[row]
        self.near[row, self.at[row] + within] = table[row, column]
        self.at += found
        own = table.masked_fill(~same, float("inf"))
        value = own.amin(1, keepdim=True)
        place = (own == value).int().argmax(1, keepdim=True) + start
        better = value < self.best
        self.best = torch.where(better, value, self.best)
        self.best_item = torch.where(better, place, self.best_item)

    def settle(self) -> None:
        self.near = self.near.sort(1).values

    def count(self, table: Float[Tensor, "q g"], start: int) -> None:
        width = self.near.shape[1]
        place = torch.searchsorted(self.near, table)
        # rows of `near` end in infinity, so no place lies beyond the last column
        place += torch.arange(len(table), device=table.device)[:, None] * width
        self.counts += place.view(-1).bincount(minlength=len(self.counts))
        earlier = torch.arange(start, start + table.shape[1], device=table.device) < self.best_item
        ahead = (table < self.best) | ((table == self.best) & earlier)
        self.before += ahead.sum(1)

    def result(self) -> tuple[Float[Tensor, " q"], Int[Tensor, " q"]]:
        width = self.near.shape[1]
        nearer = self.counts.view(-1, width).cumsum(1)[:, :-1]  # items at most as far as each
        own = self.near[:, :-1].contiguous()
        relevant_nearer = torch.searchsorted(own, own, right=True)
        there = torch.arange(width - 1, device=own.device) < self.relevant[:, None]
        share = torch.where(there, relevant_nearer.double() / nearer.clamp(min=1), 0.0)
        # A running sum on the CPU adds from left to right, so the zeros at the end of a row, of
        # which there are more or less by the block, change nothing.
        total = torch.cat([torch.zeros(len(share), 1, dtype=torch.float64), share.cpu()], 1)
        precision = total.cumsum(1)[:, -1] / self.relevant.cpu()  # 0 / 0: nothing is relevant
        return precision, torch.where(self.relevant > 0, self.before, -1)


def rank_queries(
    tables: Tables,
    query_labels: Int[Tensor, " q"],
    gallery_labels: Int[Tensor, " g"],
    own: Int[Tensor, " q"],
    *,
    variants: int = 1,
    block: int = BLOCK,
    query_block: int = QUERY_BLOCK,
) -> Rankings:
    """Rank a gallery for every query; see the module for how.

    Args:
        tables: gives the distances of a block; called twice for each, so it must give the very same
            numbers both times.
        query_labels: int64 [Q]; below 0 is no label, and nothing is relevant.
        gallery_labels: int64 [G].
        own: int64 [Q] gallery row to leave out of each ranking, -1 for none.
        variants: how many tables `tables` gives.
        block: gallery rows taken at once.
        query_block: queries taken at once, at most.

    Raises:
        ConfigError: a block size below 1.
    """
    if block < 1 or query_block < 1:
        raise ConfigError(f"ranking: blocks must be at least 1, got {block} and {query_block}.")
    relevant = count_relevant(query_labels, gallery_labels, own)
    widest = int(relevant.max()) + 1
    size = max(1, min(query_block, _CELLS // (widest * variants)))
    precision = np.empty((variants, len(query_labels)))
    first = np.empty((variants, len(query_labels)), np.int64)
    gallery = list(blocks(len(gallery_labels), block))
    for q in blocks(len(query_labels), size):
        width = int(relevant[q].max())
        counters = [_Variant(relevant[q], width) for _ in range(variants)]
        for g in gallery:
            mine = own[q, None] == torch.arange(g.start, g.stop, device=own.device)
            labels = query_labels[q, None]
            same = (labels == gallery_labels[g]) & (labels >= 0) & ~mine
            for counter, table in zip(counters, tables(q, g), strict=True):
                counter.collect(table, same, g.start)
        for counter in counters:
            counter.settle()
        for g in gallery:
            mine = own[q, None] == torch.arange(g.start, g.stop, device=own.device)
            for counter, table in zip(counters, tables(q, g), strict=True):
                counter.count(table.masked_fill(mine, float("inf")), g.start)
        for v, counter in enumerate(counters):
            ap, rank = counter.result()
            precision[v, q], first[v, q] = ap.cpu().numpy(), rank.cpu().numpy()
    return Rankings(precision, first, relevant.cpu().numpy())


def count_relevant(
    query_labels: Int[Tensor, " q"], gallery_labels: Int[Tensor, " g"], own: Int[Tensor, " q"]
) -> Int[Tensor, " q"]:
    """Return how many items have each query's label, its own left out, int64 [Q]."""
    values, counts = gallery_labels.unique(return_counts=True)
    place = torch.searchsorted(values, query_labels).clamp(max=len(values) - 1)
    found = torch.where(values[place] == query_labels, counts[place], 0)
    found -= ((own >= 0) & (gallery_labels[own.clamp(min=0)] == query_labels)).long()
    return torch.where(query_labels >= 0, found, 0)
