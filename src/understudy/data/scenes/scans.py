"""The real material: 1,797 handwritten digits (8x8 scans) and how they are shared out.

They ship inside scikit-learn (the test part of the UCI "Optical Recognition of Handwritten Digits"
set), so nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.lazy import require
from understudy.core.seeds import rng

SPLITS = ("train", "teacher", "test")
"""Who may see a scan: students, teachers, or nobody before the test."""

SHARES = (0.4, 0.4, 0.2)
NUM_SCANS = 1797


class Scans(NamedTuple):
    """All scans: `images` float32 [1797, 8, 8] of ink in [0, 1] and `labels` int64 [1797]."""

    images: np.ndarray
    labels: np.ndarray


@cache
def load() -> Scans:
    """Return all scans, in the order of the set; the arrays are read-only.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    datasets = require("sklearn.datasets", "scenes", "the built-in digits")
    bunch = datasets.load_digits()
    images = (bunch.images / 16.0).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    images.setflags(write=False)
    labels.setflags(write=False)
    return Scans(images, labels)


def stratified(parts: dict[str, int], seed: int, topic: str) -> dict[str, np.ndarray]:
    """Share the scans out so that every part has (nearly) as many of each digit.

    Parts but the last are balanced to within one scan; the last bears what the digits differ by.

    Args:
        parts: how many scans each part gets; the last one gets what is left when its number is -1.
        seed: another seed is another sharing.
        topic: what the parts are for; two topics share out independently.

    Returns:
        Row numbers int64 of each part, disjoint, sorted.

    Raises:
        ConfigError: more scans are asked for than there are.
    """
    labels = load().labels
    asked = sum(count for count in parts.values() if count > 0)
    if asked > len(labels):
        raise ConfigError(f"{topic}: {asked} scans are asked for, there are {len(labels)}.")
    draw = rng("scenes", topic, seed)
    order = draw.permutation(len(labels))
    # Deal by digit: the k-th scan of every digit comes before the (k+1)-th of any.
    rank = np.empty(len(labels), np.int64)
    for digit in range(10):
        mine = order[labels[order] == digit]
        rank[mine] = np.arange(len(mine))
    order = order[np.argsort(rank[order], kind="stable")]
    out, start = {}, 0
    for name, count in parts.items():
        stop = len(order) if count < 0 else start + count
        out[name] = np.sort(order[start:stop])
        start = stop
    return out


@cache
def _shared(seed: int) -> dict[str, np.ndarray]:
    train, teacher = (round(NUM_SCANS * share) for share in SHARES[:2])
    return stratified({"train": train, "teacher": teacher, "test": -1}, seed, "scan split")


def split_rows(split: str, seed: int = 0) -> np.ndarray:
    """Return the row numbers of the scans that `split` may use; the splits are disjoint.

    Raises:
        ConfigError: the split is not train, teacher or test.
    """
    check_choice(split, SPLITS, "scene split")
    return _shared(seed)[split]


@cache
def _cubic(size: int, to: int) -> np.ndarray:
    """Return the matrix `[to, size]` of Catmull-Rom interpolation with replicated borders."""
    centre = (np.arange(to) + 0.5) * size / to - 0.5
    first = np.floor(centre).astype(np.int64) - 1
    matrix = np.zeros((to, size))
    for tap in range(4):
        d = np.abs(centre - (first + tap))
        inner = 1.5 * d**3 - 2.5 * d**2 + 1
        outer = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        weight = np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))
        np.add.at(matrix, (np.arange(to), np.clip(first + tap, 0, size - 1)), weight)
    return matrix.astype(np.float32)


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Return `[N, size, size]` of `[N, h, w]` by Catmull-Rom interpolation, clipped to [0, 1]."""
    rows, columns = _cubic(images.shape[1], size), _cubic(images.shape[2], size)
    return np.clip(np.einsum("ah,nhw,bw->nab", rows, images, columns, optimize=True), 0, 1)


def to_rgb(ink: np.ndarray) -> np.ndarray:
    """Return `uint8 [N, h, w, 3]` of ink `[N, h, w]` in [0, 1], white on black."""
    gray = np.round(ink * 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)
