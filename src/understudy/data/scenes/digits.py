"""Digit classification: 300 pictures for a student, 600 more for its teachers, 897 for the test.

The small stand-in for ImageNet: the teacher-only pictures play the web-scale data that a student
never sees. Three fixed divisions serve as three "datasets".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.data.scenes import pack, scans
from understudy.data.scenes.words import DIGIT_WORDS

PARTS = {"student": 300, "teacher": 600, "test": -1}
NUM_DIVISIONS = 3


class Pictures(NamedTuple):
    """Labelled pictures.

    Attributes:
        images: uint8 [N, size, size, 3].
        labels: int64 [N], the digit.
        rows: int64 [N], row of the scan they were made of.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


class Division(NamedTuple):
    """The three disjoint parts of one division of the scans."""

    student: Pictures
    teacher: Pictures
    test: Pictures

    def teacher_training(self) -> Pictures:
        """Return the 900 pictures that teachers are trained on: student's and teacher-only."""
        both = zip(self.student, self.teacher, strict=True)
        return Pictures(*(np.concatenate(pair) for pair in both))


def pictures(rows: np.ndarray, size: int = 32) -> Pictures:
    """Return the scans of the given rows enlarged to `size` pixels, white ink on black."""
    all_scans = scans.load()
    images = scans.to_rgb(scans.enlarge(all_scans.images[rows], size))
    return Pictures(images, all_scans.labels[rows], np.asarray(rows, np.int64))


def classification_set(division: int = 0, size: int = 32) -> Division:
    """Return one of the three fixed divisions into 300 student, 600 teacher and 897 test pictures.

    Args:
        division: 0, 1 or 2.
        size: side of the pictures in pixels.

    Raises:
        ConfigError: there is no such division, or the size is below 8.
    """
    if not 0 <= division < NUM_DIVISIONS:
        raise ConfigError(f"digits: 'division' must be 0, 1 or 2, got {division}.")
    if size < 8:
        raise ConfigError(f"digits: 'size' must be at least 8 pixels, got {size}.")
    shared = scans.stratified(PARTS, division, "digits division")
    return Division(**{name: pictures(rows, size) for name, rows in shared.items()})


def tables(*, division: int = 0, size: int = 32) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store: `split` is student, teacher or test; see `classification_set`."""
    for split, part in classification_set(division, size)._asdict().items():
        count = len(part.labels)
        words = [f"the handwritten digit {DIGIT_WORDS[d]}" for d in part.labels]
        yield pack.SceneTable(
            columns={
                "id": pa.array([f"digits/{row:04d}" for row in part.rows], pa.string()),
                "image": pack.pngs(part.images),
                "text": pa.array(words, pa.string()),
                "label": pa.array(part.labels, pa.int64()),
                "split": pack.constant(split, count),
                "source": pack.constant("scenes:digits", count),
                "scan": pa.array(part.rows, pa.int64()),
            }
        )


def meta() -> dict[str, Any]:
    """Return what a store of these pictures says about itself."""
    return {"classes": list(DIGIT_WORDS)}
