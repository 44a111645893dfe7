"""The scans as they are: 1,797 digits of 8 x 8 pixels, split by digit into training and test.

The small stand-in for a labelled gallery: an old model learns some of the digits, a new one all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.data.scenes import pack, scans
from understudy.data.scenes.words import DIGIT_WORDS

TRAIN = 1078
"""Three fifths; 719 scans are left for the test."""


def tables(*, train: int = TRAIN, seed: int = 0) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store: `split` is train or test.

    Args:
        train: scans for training, nearly as many of each digit; the others are the test.
        seed: another seed is another split.

    Raises:
        ConfigError: no scan is left for one of the two.
    """
    if not 0 < train < scans.NUM_SCANS:
        raise ConfigError(
            f"scans: 'train' must lie in 1 to {scans.NUM_SCANS - 1}, got {train}; both parts need "
            "scans."
        )
    parts = scans.stratified({"train": train, "test": -1}, seed, "raw scans")
    every = scans.load()
    for split, rows in parts.items():
        labels = every.labels[rows]
        yield pack.SceneTable(
            columns={
                "id": pa.array([f"scan/{row:04d}" for row in rows], pa.string()),
                "image": pack.pngs(scans.to_rgb(every.images[rows])),
                "text": pa.array([f"the handwritten digit {DIGIT_WORDS[d]}" for d in labels]),
                "label": pa.array(labels, pa.int64()),
                "split": pack.constant(split, len(rows)),
                "source": pack.constant("scenes:scans", len(rows)),
            }
        )


def meta() -> dict[str, Any]:
    """Return what a store of these pictures says about itself."""
    return {"classes": list(DIGIT_WORDS)}
