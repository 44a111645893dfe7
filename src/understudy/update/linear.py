"""Maps in closed form: least squares, and orthogonal Procrustes.

Both need only sums over pairs, so they stream. They are baselines, and right where the new space is
a linear image of the old one.

References:
    Procrustes: Schoenemann 1966: with the singular value decomposition O^T N = U S V^T, the
    orthogonal Q that minimises ||O Q - N|| is U V^T.
"""

from __future__ import annotations

import numpy as np
import torch

from understudy.core import progress
from understudy.core.errors import DataError
from understudy.models.embedding.linear import LinearConfig, LinearTransform
from understudy.update.pairs import Pairs

CUTOFF = 1e-12
"""Directions of less than this share of the largest variance are taken for constant."""


class Moments:
    """Sums over pairs (x, y) that linear maps are solved from, in float64.

    Args:
        width: of x.
        out: of y.
    """

    def __init__(self, width: int, out: int) -> None:
        self.count = 0
        self.x, self.y = np.zeros(width), np.zeros(out)
        self.xx, self.xy = np.zeros((width, width)), np.zeros((width, out))
        self.yy = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add pairs [B, width] and [B, out]."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += float((y**2).sum())

    def least_squares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight [out, width] and bias [out] of least squared error.

        Where x does not vary, the weight is zero: the smallest of all solutions.
        """
        mean_x, mean_y = self.x / self.count, self.y / self.count
        cross = self.xy - self.count * np.outer(mean_x, mean_y)
        values, vectors = np.linalg.eigh(self.xx - self.count * np.outer(mean_x, mean_x))
        keep = values > CUTOFF * max(values.max(initial=0.0), 0.0)
        inverse = np.where(keep, 1 / np.where(keep, values, 1), 0)
        weight = (vectors * inverse) @ (vectors.T @ cross)
        return weight.T, mean_y - mean_x @ weight

    def orthogonal(self, centre: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return weight [out, width] with orthonormal rows or columns, and bias [out].

        Args:
            centre: turn around the means instead of the origin.
        """
        cross, bias = self.xy, np.zeros(len(self.y))
        if centre:
            cross = cross - np.outer(self.x, self.y) / self.count
        left, _, right = np.linalg.svd(cross, full_matrices=False)
        weight = left @ right
        if centre:
            bias = (self.y - self.x @ weight) / self.count
        return weight.T, bias


def fit_linear(
    pairs: Pairs, kind: str = "least-squares", items: np.ndarray | None = None
) -> LinearTransform:
    """Solve for a linear map, reading the pairs once.

    Args:
        pairs: where vectors are; side information is appended to the old vectors.
        kind: `least-squares` (with a bias) or `orthogonal` (without).
        items: those to learn from; all when None.

    Raises:
        ConfigError: an orthogonal map with side information.
        DataError: fewer than two pairs.
    """
    config = LinearConfig(
        old_dim=pairs.old.dim,
        new_dim=pairs.new.dim,
        side_dim=pairs.side.dim if pairs.side is not None else 0,
        kind=kind,
    )
    items = np.arange(len(pairs)) if items is None else items
    if len(items) < 2:
        raise DataError(f"{pairs.source}: {len(items)} pairs; a linear map needs two or more.")
    moments = Moments(config.old_dim + config.side_dim, config.new_dim)
    with progress.bar(f"solve {kind}", len(items), "pairs") as bar:
        for some, vectors in pairs.parts(items):
            x = vectors["old"]
            if "side" in vectors:
                x = np.concatenate([x, vectors["side"]], axis=1)
            moments.add(x, vectors["new"])
            bar.advance(len(some))
    solve = moments.least_squares if kind == "least-squares" else moments.orthogonal
    weight, bias = solve()
    module = LinearTransform(config)
    with torch.no_grad():
        module.linear.weight.copy_(torch.from_numpy(weight))
        module.linear.bias.copy_(torch.from_numpy(bias))
    return module.eval()
