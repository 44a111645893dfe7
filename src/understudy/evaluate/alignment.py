"""How well two frozen encoders would align, before anything is trained.

Both measures compare the geometry of paired features and need no labels: linear centred kernel
alignment (arXiv 1905.00414, eq. 4; the debiased form by the unbiased HSIC of Song et al. 2012, as
in arXiv 2010.15327), and the overlap of nearest neighbours (arXiv 2405.07987). A pair that scores
high aligns better later (arXiv 2409.19425).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from understudy.core.errors import ConfigError, DataError

ENOUGH_PAIRS = 2000
"""Pairs from which the plain estimate settles for usual widths."""


def _paired(x: ArrayLike, y: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise DataError(
            f"alignment: expected paired features [n, d1] and [n, d2], got {list(a.shape)} and "
            f"{list(b.shape)}."
        )
    if len(a) < least:
        raise DataError(f"alignment: {len(a)} pairs are too few; give at least {least}.")
    for name, values in (("first", a), ("second", b)):
        bad = ~np.isfinite(values).all(1)
        if bad.any():
            raise DataError(
                f"alignment: row {int(bad.argmax())} of the {name} features holds NaN or infinity."
            )
    return a, b


def linear_cka(x: ArrayLike, y: ArrayLike, *, debiased: bool | None = False) -> float:
    """Return linear CKA of paired features: 1 for equal geometry, about 0 for unrelated ones.

    Plain: with centred X and Y, ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F). It grows with d / n even
    for noise; the debiased form does not, and may be slightly negative.

    Args:
        x: [n, d1] features of one encoder.
        y: [n, d2] features of the other, row by row of the same pairs.
        debiased: use the unbiased HSIC; None uses it for n < 5 max(d1, d2).

    Raises:
        DataError: shapes that do not pair, NaN, fewer than 4 pairs, or features that do not vary.
    """
    a, b = _paired(x, y, 4)
    if debiased is None:
        debiased = len(a) < 5 * max(a.shape[1], b.shape[1])
    a, b = a - a.mean(0), b - b.mean(0)
    if debiased:
        found = [_hsic(p, q) for p, q in ((a, b), (a, a), (b, b))]
    else:
        found = [float(np.square(q.T @ p).sum()) for p, q in ((a, b), (a, a), (b, b))]
    if not (found[1] > 0 and found[2] > 0):
        raise DataError("alignment: the features of one encoder do not vary over these pairs.")
    return found[0] / math.sqrt(found[1] * found[2])


def _hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased HSIC of linear kernels, without the n x n matrices.

    With zero diagonals K and L: (tr KL + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)) / (n (n-3)).
    """
    n = len(a)
    diagonal_a, diagonal_b = np.square(a).sum(1), np.square(b).sum(1)
    rows_a, rows_b = a @ a.sum(0) - diagonal_a, b @ b.sum(0) - diagonal_b
    trace = np.square(a.T @ b).sum() - diagonal_a @ diagonal_b
    both = rows_a.sum() * rows_b.sum() / ((n - 1) * (n - 2))
    return float((trace + both - 2 * (rows_a @ rows_b) / (n - 2)) / (n * (n - 3)))


def mutual_knn(x: ArrayLike, y: ArrayLike, k: int = 10, *, chunk: int = 2048) -> float:
    """Return the mean share of k nearest neighbours (cosine) that the two spaces agree on.

    Args:
        x: [n, d1] features.
        y: [n, d2] features of the same pairs.
        k: neighbours, the sample itself not counted.
        chunk: rows at a time.

    Raises:
        ConfigError: k is not between 1 and n - 1.
    """
    a, b = _paired(x, y, 2)
    if not 1 <= k < len(a):
        raise ConfigError(f"mutual_knn: k must be between 1 and {len(a) - 1}, got {k}.")
    a, b = (_unit(values, name) for values, name in ((a, "first"), (b, "second")))
    shared = 0
    for start in range(0, len(a), chunk):
        near = [_neighbours(values, start, min(start + chunk, len(a)), k) for values in (a, b)]
        shared += sum(len(np.intersect1d(p, q)) for p, q in zip(*near, strict=True))
    return shared / (len(a) * k)


def _unit(values: np.ndarray, name: str) -> np.ndarray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if (norms == 0).any():
        raise DataError(
            f"alignment: row {int((norms == 0).argmax())} of the {name} features has length 0."
        )
    return values / norms


def _neighbours(values: np.ndarray, start: int, stop: int, k: int) -> np.ndarray:
    scores = values[start:stop] @ values.T
    scores[np.arange(stop - start), np.arange(start, stop)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRank:
    """One row of the table: how well two encoders' geometries agree.

    Attributes:
        image: the first side's encoder.
        text: the second side's encoder.
        cka: linear CKA, plain or debiased.
        debiased: which of them.
        mutual_knn: share of common neighbours.
        pairs: how many pairs it was measured on.
    """

    image: str
    text: str
    cka: float
    debiased: bool
    mutual_knn: float
    pairs: int


def rank_pairs(
    images: Mapping[str, ArrayLike],
    texts: Mapping[str, ArrayLike],
    *,
    k: int = 10,
    debiased: bool | None = None,
) -> list[PairRank]:
    """Compare every encoder of one side with every one of the other, best CKA first.

    Args:
        images: features [n, d] by encoder.
        texts: features [n, d] by encoder, of the same n pairs.
        k: neighbours for the overlap; lowered to n - 1 where there are fewer.
        debiased: see `linear_cka`; None decides for the whole table, so that rows compare.

    Raises:
        DataError: features that do not pair; the encoders are named.
    """
    sides = [np.asarray(v) for v in (*images.values(), *texts.values())]
    if not images or not texts:
        raise DataError("rank_pairs: give at least one encoder of each side.")
    if debiased is None:
        debiased = any(len(v) < 5 * v.shape[-1] for v in sides)
    rows = []
    for first, x in images.items():
        for second, y in texts.items():
            try:
                found = PairRank(
                    image=first,
                    text=second,
                    cka=linear_cka(x, y, debiased=debiased),
                    debiased=debiased,
                    mutual_knn=mutual_knn(x, y, min(k, len(np.asarray(x)) - 1)),
                    pairs=len(np.asarray(x)),
                )
            except DataError as error:
                raise DataError(f"encoders '{first}' and '{second}': {error}") from None
            rows.append(found)
    return sorted(rows, key=lambda r: (-r.cka, r.image, r.text))


def rank_table(rows: Sequence[PairRank]) -> str:
    """Return the table as text."""
    header = ("image encoder", "text encoder", "CKA", "mutual kNN", "pairs")
    cells = [header] + [
        (r.image, r.text, f"{r.cka:.4f}", f"{r.mutual_knn:.4f}", f"{r.pairs:,}") for r in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    if rows:
        kind = "debiased (few pairs for these widths)" if rows[0].debiased else "plain"
        lines.append(f"CKA is {kind}.")
        if rows[0].pairs < ENOUGH_PAIRS:
            lines.append(f"Fewer than {ENOUGH_PAIRS:,} pairs: take close rows as equal.")
    return "\n".join(lines)
