"""Connected components of pairs, by vectorised union-find."""

from __future__ import annotations

import numpy as np


def components(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest member of the component of every node that has an edge.

    Roots are hooked onto smaller roots and paths are halved until nothing changes, so the work is
    O(edges log nodes) in the worst case and a few passes in practice.

    Args:
        left: one end of each edge, int64 [E].
        right: the other end, int64 [E].

    Returns:
        The nodes in ascending order, int64 [N], and each one's smallest member, int64 [N].
    """
    nodes, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    a, b = places[: len(left)], places[len(left) :]
    parent = np.arange(len(nodes))
    while True:
        roots_a, roots_b = parent[a], parent[b]
        apart = roots_a != roots_b
        if not apart.any():
            return nodes, nodes[parent]
        a, b = roots_a[apart], roots_b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                break
            parent = above
