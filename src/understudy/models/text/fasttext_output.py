"""From the outputs of a fastText model to the probabilities that fastText reports.

fastText takes logarithms of p + 1e-5 and reports their exponential, so that a probability comes out
as p + 1e-5, and with a hierarchical softmax as the product of (p + 1e-5) along a path. Thresholds
that were published refer to these numbers; they are reproduced here.

References:
    fastText 0.9.2, src/loss.cc (std_log, buildTree, dfs, computeOutput).
"""

from __future__ import annotations

import numpy as np

LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
"""Numbers of the losses in a model file."""

_LOG_SHIFT = 1e-5
_SIGMOID_LIMIT = 8.0
_SIGMOID_STEPS = 512


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Return float32 [N, L] from float64 [N, L]."""
    shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return (p + _LOG_SHIFT).astype(np.float32)


def table_sigmoid(outputs: np.ndarray) -> np.ndarray:
    """Return float32 [N, L]: the sigmoid from fastText's table of 512 steps over [-8, 8]."""
    x = np.asarray(outputs, np.float32)
    grid = np.arange(_SIGMOID_STEPS + 1, dtype=np.float32)
    grid = grid * np.float32(2 * _SIGMOID_LIMIT) / np.float32(_SIGMOID_STEPS)
    table = (1.0 / (1.0 + np.exp(-(grid - np.float32(_SIGMOID_LIMIT))))).astype(np.float32)
    limit = np.float32(_SIGMOID_LIMIT)
    place = (np.clip(x, -limit, limit) + limit) * np.float32(_SIGMOID_STEPS) / limit / 2
    p = table[place.astype(np.int64)]
    p = np.where(x < -limit, np.float32(0), np.where(x > limit, np.float32(1), p))
    return (p + _LOG_SHIFT).astype(np.float32)


def huffman_paths(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the paths of a Huffman tree over labels.

    Args:
        counts: int64 [L], in the order of the labels (decreasing, as a dictionary has them).

    Returns:
        (left, right), float64 [L, L - 1] each: 1 where the path from the root to a label goes left
        or right at an inner node.
    """
    num = len(counts)
    size = 2 * num - 1
    weight = [int(c) for c in counts] + [10**15] * (num - 1)
    parent, is_right = [-1] * size, [False] * size
    leaf, node = num - 1, num
    for i in range(num, size):
        children = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[node]:
                children.append(leaf)
                leaf -= 1
            else:
                children.append(node)
                node += 1
        weight[i] = weight[children[0]] + weight[children[1]]
        parent[children[0]] = parent[children[1]] = i
        is_right[children[1]] = True
    left, right = np.zeros((num, num - 1)), np.zeros((num, num - 1))
    for label in range(num):
        j = label
        while parent[j] != -1:
            (right if is_right[j] else left)[label, parent[j] - num] = 1
            j = parent[j]
    return left, right


def hierarchical(outputs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return float32 [N, L] from the outputs of the inner nodes, float64 [N, L - 1]."""
    f = (1.0 / (1.0 + np.exp(-outputs))).astype(np.float32).astype(np.float64)
    logs = np.log(1.0 - f + _LOG_SHIFT) @ left.T + np.log(f + _LOG_SHIFT) @ right.T
    return np.exp(logs).astype(np.float32)
