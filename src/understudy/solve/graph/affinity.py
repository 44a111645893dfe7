"""From neighbours to affinities: w = exp(-d^2 / sigma^2), the larger of both directions.

References:
    Zhou et al., "Learning with local and global consistency", NeurIPS 2003 (no self loops).
    Zelnik-Manor, Perona, "Self-tuning spectral clustering", NeurIPS 2004 (a scale for each node).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.solve.graph.graph import Graph
from understudy.solve.graph.neighbours import Neighbours
from understudy.solve.graph.scipy_parts import sparse

KERNELS = ("rbf", "connectivity")
SIGMAS = ("median", "local")
LOCAL = 7
"""The neighbour whose distance is a node's own scale."""


def check_sigma(sigma: str | float) -> None:
    """Raise `ConfigError` unless `sigma` is `median`, `local` or a positive number."""
    if isinstance(sigma, str):
        check_choice(sigma, SIGMAS, "graph: sigma")
    elif not (np.isfinite(sigma) and sigma > 0):
        raise ConfigError(
            f"graph: sigma: expected a positive number, 'median' or 'local', got {sigma}."
        )


def scale_of(found: Neighbours, sigma: str | float) -> float | np.ndarray:
    """Return the kernel's width: a number, or one for each node, float64 [n].

    Args:
        found: neighbours.
        sigma: a number; `median`, the median distance to the last neighbour over nodes where it is
            not 0; or `local`, each node's distance to its 7th neighbour (the last, if k < 7).
    """
    check_sigma(sigma)
    if not isinstance(sigma, str):
        return float(sigma)
    last = found.distances[:, -1]
    positive = last[last > 0]
    median = float(np.median(positive)) if positive.size else 1.0
    if sigma == "median":
        return median
    local = found.distances[:, min(LOCAL, found.distances.shape[1]) - 1]
    return np.where(local > 0, local, median)


def graph_of(
    found: Neighbours,
    *,
    kernel: str = "rbf",
    sigma: str | float = "median",
    self_loops: str = "drop",
    rows: np.ndarray | None = None,
    facts: dict[str, Any] | None = None,
) -> Graph:
    """Return the graph of a set of nearest neighbours.

    Nodes at distance 0 of each other get no more than the largest weight between distinct ones:
    with a narrow kernel they would outweigh every other edge by orders of magnitude.

    Args:
        found: neighbours of n nodes among themselves.
        kernel: `rbf`, exp(-d^2 / sigma^2) (`local`: exp(-d_ij^2 / (sigma_i sigma_j))), or
            `connectivity`, 1 for each.
        sigma: width of `rbf`; see `scale_of`.
        self_loops: `drop` (none, as label spreading is defined) or `add` (1 for each node).
        rows: int64 [n], what each node is elsewhere.
        facts: plain data about the graph; width and cap are added.
    """
    check_choice(kernel, KERNELS, "graph: kernel")
    check_choice(self_loops, ("drop", "add"), "graph: self_loops")
    n, k = found.indices.shape
    scale = scale_of(found, sigma)
    values = _kernel(found, scale, kernel)
    same = found.distances == 0
    cap = _cap(values, same)
    values[same] = np.minimum(values[same], cap)
    source = np.repeat(np.arange(n, dtype=np.int32), k)
    pairs = (values.ravel(), (source, found.indices.ravel()))
    directed = sparse().csr_matrix(pairs, shape=(n, n))
    duplicates = np.zeros(n, bool)
    duplicates[np.repeat(np.arange(n), k)[same.ravel()]] = True
    duplicates[found.indices[same]] = True
    width = float(np.median(scale))
    return Graph.from_matrix(
        directed,
        symmetrise="max",
        self_loops=self_loops,
        duplicates=np.flatnonzero(duplicates),
        rows=rows,
        facts={**(facts or {}), "sigma_found": width, "duplicate_cap": cap},
    )


def _kernel(found: Neighbours, scale: float | np.ndarray, kernel: str) -> np.ndarray:
    if kernel == "connectivity":
        return np.ones_like(found.distances)
    if isinstance(scale, np.ndarray):
        return np.exp(-(found.distances**2) / (scale[:, None] * scale[found.indices]))
    return np.exp(-((found.distances / scale) ** 2))


def _cap(values: np.ndarray, same: np.ndarray) -> float:
    distinct = values[~same]
    return float(distinct.max()) if distinct.size and distinct.max() > 0 else 1.0


def weights_to(
    found: Neighbours, scale: float | np.ndarray, kernel: str, cap: float, n: int
) -> Any:
    """Return affinities CSR [m, n] of new points to the n nodes of a graph.

    Args:
        found: the nodes near each new point, see `ExactSearch.query`.
        scale: what `scale_of` returned for the graph.
        kernel: the graph's.
        cap: largest weight at distance 0.
        n: nodes of the graph.
    """
    m, k = found.indices.shape
    if isinstance(scale, np.ndarray):
        own = np.where(found.distances[:, -1] > 0, found.distances[:, -1], np.median(scale))
        values = np.exp(-(found.distances**2) / (own[:, None] * scale[found.indices]))
    else:
        values = _kernel(found, scale, kernel)
    if kernel == "connectivity":
        values = np.ones_like(found.distances)
    values = np.where(found.distances == 0, np.minimum(values, cap), values)
    place = (np.repeat(np.arange(m), k), found.indices.ravel())
    matrix = sparse().csr_matrix((values.ravel(), place), shape=(m, n))
    matrix.eliminate_zeros()
    return matrix
