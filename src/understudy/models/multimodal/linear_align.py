"""Alignment in closed form: ridge regression, orthogonal Procrustes, canonical correlations.

Lower bounds and independent checks of what heads learn by gradients. Each returns matrices that
map both sides into one space, and `to_aligner` makes an ordinary aligner of them.

References:
    Procrustes: Schoenemann 1966. CCA: Hotelling 1936, regularised as in Vinod 1976.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from understudy.core.errors import DataError
from understudy.models.multimodal.aligner import Aligner
from understudy.models.multimodal.aligner_config import AlignerConfig, Modality
from understudy.models.multimodal.heads import HeadConfig


@dataclass(frozen=True, slots=True)
class LinearMaps:
    """Affine maps of two sides into one space: `x @ first + first_bias`, and so for `second`.

    Attributes:
        first: [d1, k].
        second: [d2, k].
        first_bias: [k].
        second_bias: [k].
        strengths: [k] what each dimension is worth: singular values or correlations; empty for
            ridge.
    """

    first: np.ndarray
    second: np.ndarray
    first_bias: np.ndarray
    second_bias: np.ndarray
    strengths: np.ndarray

    def project(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return both sides in the shared space, not normalised."""
        return (
            np.asarray(x, np.float64) @ self.first + self.first_bias,
            np.asarray(y, np.float64) @ self.second + self.second_bias,
        )


def _pairs(x: ArrayLike, y: ArrayLike, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < least:
        raise DataError(
            f"linear alignment: expected paired features [n, d1] and [n, d2], got {list(a.shape)} "
            f"and {list(b.shape)}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("linear alignment: the features hold NaN or infinity.")
    return a, b


def ridge(x: ArrayLike, y: ArrayLike, l2: float = 1e-3, *, centre: bool = True) -> LinearMaps:
    """Map the first side onto the second: min ||XW + b - Y||^2 / n + l2 ||W||^2.

    Args:
        x: [n, d1].
        y: [n, d2]; stays as it is.
        l2: weight of the penalty.
        centre: fit a bias.
    """
    a, b = _pairs(x, y)
    mean_a, mean_b = (
        (a.mean(0), b.mean(0)) if centre else (np.zeros(a.shape[1]), np.zeros(b.shape[1]))
    )
    n = len(a)
    # As a least-squares problem with l2 n ||W||^2 below the data: stable for any condition.
    top = np.vstack([a - mean_a, np.sqrt(l2 * n) * np.eye(a.shape[1])])
    right = np.vstack([b - mean_b, np.zeros((a.shape[1], b.shape[1]))])
    weights = np.linalg.lstsq(top, right, rcond=None)[0]
    width = b.shape[1]
    return LinearMaps(
        weights, np.eye(width), mean_b - mean_a @ weights, np.zeros(width), np.empty(0)
    )


def procrustes(x: ArrayLike, y: ArrayLike, *, centre: bool = True) -> LinearMaps:
    """Rotate the first side onto the second: min ||X R - Y|| with R^T R = 1.

    Sides of different widths meet in the smaller one's subspace: R is then semi-orthogonal.

    Args:
        x: [n, d1].
        y: [n, d2].
        centre: subtract the means first.
    """
    a, b = _pairs(x, y)
    mean_a, mean_b = (
        (a.mean(0), b.mean(0)) if centre else (np.zeros(a.shape[1]), np.zeros(b.shape[1]))
    )
    left, values, right = np.linalg.svd((a - mean_a).T @ (b - mean_b), full_matrices=False)
    return LinearMaps(left, right.T, -mean_a @ left, -mean_b @ right.T, values)


def cca(x: ArrayLike, y: ArrayLike, dim: int, l2: float = 1e-3) -> LinearMaps:
    """Return the `dim` pairs of directions with the largest correlations.

    Args:
        x: [n, d1].
        y: [n, d2].
        dim: directions kept.
        l2: added to both covariances, as a share of their mean variance.

    Raises:
        DataError: more directions than either side has.
    """
    a, b = _pairs(x, y)
    if dim > min(a.shape[1], b.shape[1]):
        raise DataError(
            f"cca: {dim} directions of sides with {a.shape[1]} and {b.shape[1]} numbers."
        )
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    white_a, white_b = _whitening(a, l2), _whitening(b, l2)
    left, values, right = np.linalg.svd(white_a.T @ (a.T @ b / len(a)) @ white_b)
    first, second = white_a @ left[:, :dim], white_b @ right[:dim].T
    return LinearMaps(first, second, -mean_a @ first, -mean_b @ second, values[:dim])


def _whitening(values: np.ndarray, l2: float) -> np.ndarray:
    covariance = values.T @ values / len(values)
    covariance += l2 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    roots, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(roots.clip(min=1e-12 * max(roots.max(), 1e-300)))


def to_aligner(
    maps: LinearMaps, first: Modality, second: Modality, name: str = "linear"
) -> Aligner:
    """Return an aligner whose linear heads are these maps.

    Args:
        maps: from `ridge`, `procrustes` or `cca`.
        first: the first side's encoder; its head is replaced.
        second: the second side's.
        name: for people.
    """
    from dataclasses import replace

    head = HeadConfig(kind="linear")
    sides = (replace(first, head=head), replace(second, head=head))
    aligner = Aligner(AlignerConfig(dim=maps.first.shape[1], modalities=sides, name=name), seed=0)
    pairs = ((first, maps.first, maps.first_bias), (second, maps.second, maps.second_bias))
    with torch.no_grad():
        for side, weight, bias in pairs:
            layer = aligner.heads[side.name]
            layer.weight.copy_(torch.from_numpy(weight.T))  # type: ignore[operator]
            layer.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    return aligner.eval()
