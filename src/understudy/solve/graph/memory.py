"""What a graph of neighbours takes, known before it is built."""

from __future__ import annotations

from understudy.core.errors import DataError
from understudy.core.memory import available_bytes

LARGEST = 2**31 - 1
"""Entries that 32-bit indices can count, which the solvers use."""


def estimate_graph_bytes(
    n: int, k: int, *, feature_bytes: int = 0, block_bytes: int = 0, approximate: bool = False
) -> int:
    """Return an upper estimate of the memory that building a graph takes.

    Args:
        n: nodes.
        k: neighbours of each.
        feature_bytes: of the features; centring or normalising them takes as much again.
        block_bytes: working memory of the exact search.
        approximate: whether neighbour descent finds them (its heaps and candidates).
    """
    neighbours = n * k * (4 + 8)
    # directed entries as triples, their transpose, and the union of both
    matrix = 2 * n * k * (8 + 8 + 8) + 2 * n * k * (8 + 4)
    descent = n * (k * (4 + 4 + 1) + 4 * min(k, 15) * 4) if approximate else 0
    return 2 * feature_bytes + block_bytes + neighbours + matrix + descent


def check_graph_memory(n: int, k: int, needed: int) -> None:
    """Raise `DataError` before the start of a graph that fits no memory or no index.

    Args:
        n: nodes.
        k: neighbours of each.
        needed: bytes, as `estimate_graph_bytes` gives them.
    """
    if 2 * n * k > LARGEST:
        raise DataError(
            f"a graph of n = {n:,} nodes with k = {k} neighbours may have {2 * n * k:,} entries, "
            f"more than 32-bit indices count ({LARGEST:,}); lower k to {LARGEST // (2 * n)}, or "
            "take fewer nodes."
        )
    free = available_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"a graph of n = {n:,} nodes with k = {k} neighbours takes about {needed / 1e9:.1f} GB "
            f"to build, but {free / 1e9:.1f} GB are free; lower k, take fewer nodes, or use a "
            "machine with more memory."
        )
