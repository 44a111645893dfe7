"""Graphs of k nearest neighbours from features: what `understudy graph knn` builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.solve.graph.affinity import KERNELS, check_sigma, graph_of
from understudy.solve.graph.features import METRICS, checked_features, feature_bytes
from understudy.solve.graph.graph import Graph
from understudy.solve.graph.memory import check_graph_memory, estimate_graph_bytes
from understudy.solve.graph.neighbours import ExactSearch, Neighbours
from understudy.solve.graph.scipy_parts import is_sparse

SEARCHES = ("auto", "exact", "approximate")
EXACT_WORK = 5e11
"""`auto` searches dense points exactly up to this n^2 (d + 16): about a minute on one core."""
SAMPLE = 200
"""Nodes on which an approximate search is judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnnConfig:
    """How a graph of neighbours is built.

    Attributes:
        k: neighbours of each node, itself not counted.
        metric: `euclidean` or `cosine` (the Euclidean distance of rows scaled to length one).
        search: `exact` (a block at a time; time n^2 d), `approximate` (neighbour descent, dense
            features; how many of the neighbours it found is measured), or `auto` by size.
        kernel: `rbf`, exp(-d^2 / sigma^2), or `connectivity`, 1 for each edge.
        sigma: width of `rbf`: a number, `median` (of the distances to the k-th neighbour) or
            `local` (a width for each node).
        self_loops: `drop` (label spreading is defined without) or `add` an entry of 1 to each node.
        seed: of the approximate search.
        block_mb: working memory of the exact search, MiB.
    """

    k: int = 10
    metric: str = "euclidean"
    search: str = "auto"
    kernel: str = "rbf"
    sigma: str | float = "median"
    self_loops: str = "drop"
    seed: int = 0
    block_mb: int = 32

    def __post_init__(self) -> None:
        check_choice(self.metric, METRICS, "graph: metric")
        check_choice(self.search, SEARCHES, "graph: search")
        check_choice(self.kernel, KERNELS, "graph: kernel")
        check_choice(self.self_loops, ("drop", "add"), "graph: self_loops")
        check_sigma(self.sigma)
        for name in ("k", "block_mb"):
            if getattr(self, name) < 1:
                got = getattr(self, name)
                raise ConfigError(f"graph: {name}: expected at least 1, got {got}.")

    def chosen(self, n: int, width: int, sparse: bool = False) -> str:
        """Return `exact` or `approximate` for n points of `width` numbers.

        Raises:
            ConfigError: `approximate` was asked of sparse features.
        """
        if self.search == "approximate" and sparse:
            raise ConfigError(
                "graph: search: sparse features are searched exactly; ask for 'exact', or reduce "
                "them to a dense width first."
            )
        if self.search != "auto":
            return self.search
        small = float(n) * n * (width + 16) <= EXACT_WORK
        return "exact" if sparse or small else "approximate"


def check_size(points: Any, config: KnnConfig) -> int:
    """Return the estimated bytes of a graph after checking k and memory.

    Raises:
        ConfigError: k is not below the number of points.
        DataError: the graph would not fit in memory.
    """
    n = int(points.shape[0])
    if config.k > n - 1:
        raise ConfigError(
            f"graph: k: expected 1 to {n - 1} neighbours among {n} points, got {config.k}."
        )
    approximate = config.chosen(n, points.shape[1], is_sparse(points)) == "approximate"
    needed = estimate_graph_bytes(
        n,
        config.k,
        feature_bytes=feature_bytes(points),
        block_bytes=0 if approximate else config.block_mb << 20,
        approximate=approximate,
    )
    check_graph_memory(n, config.k, needed)
    return needed


def find_neighbours(points: Any, config: KnnConfig) -> Neighbours:
    """Return the k nearest other points of each of `checked_features`' points."""
    check_size(points, config)
    if config.chosen(points.shape[0], points.shape[1], is_sparse(points)) == "approximate":
        from understudy.solve.graph.descent import descend

        return descend(np.asarray(points), config.k, seed=config.seed)
    return ExactSearch(points, config.block_mb << 20).neighbours(config.k)


def measured_recall(points: Any, found: Neighbours, seed: int = 0) -> float:
    """Return which share of the true neighbours of `SAMPLE` nodes was found, by exact search."""
    n, k = found.indices.shape
    rows = np.sort(rng("recall", seed).choice(n, min(SAMPLE, n), replace=False))
    exact = ExactSearch(points).neighbours(k, rows)
    # of equals any will do, so distances are compared
    return float((found.distances[rows] <= exact.distances[:, -1:] * (1 + 1e-5)).mean())


def build_graph(features: Any, config: KnnConfig | None = None) -> Graph:
    """Return the graph of the k nearest neighbours of features.

    Args:
        features: [n, d], dense or SciPy sparse.
        config: see `KnnConfig`.

    Raises:
        ConfigError: k is not below n.
        DataError: NaN, a zero row for `cosine`, or not enough memory; known before the start.
    """
    config = config or KnnConfig()
    points = checked_features(features, config.metric)
    found = find_neighbours(points, config)
    search = config.chosen(points.shape[0], points.shape[1], is_sparse(points))
    facts: dict[str, Any] = {"config": to_dict(config), "search": search}
    if search == "approximate":
        facts["recall"] = measured_recall(points, found, config.seed)
    return graph_of(
        found,
        kernel=config.kernel,
        sigma=config.sigma,
        self_loops=config.self_loops,
        facts=facts,
    )
