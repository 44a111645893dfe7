"""What the objectives refuse, in one sentence each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from understudy.core.errors import ConfigError, DataError

UNIT_TOLERANCE = 2e-2
"""How far a stored unit vector may be from length 1: bfloat16 keeps 8 bits per component."""


def fraction(value: float, name: str) -> float:
    """Return `value` if it lies in [0, 1].

    Raises:
        ConfigError: it does not, or is not a number.
    """
    wrong_kind = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong_kind or not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}: expected a number in [0, 1], got {value!r}.")
    return float(value)


def teacher_scales(scales: object, num_teachers: int, name: str = "scales") -> tuple[float, ...]:
    """Return one positive logit scale per teacher.

    A single number is accepted for a single teacher only: the best scale of one teacher is not the
    best of another (arXiv 2508.20691).

    Raises:
        ConfigError: a number for several teachers, a list of another length, or a scale that is
            not positive and finite.
    """
    if isinstance(scales, int | float) and not isinstance(scales, bool):
        if num_teachers != 1:
            raise ConfigError(
                f"{name}: got the single number {scales} for {num_teachers} teachers; give a list "
                f"of {num_teachers}, one logit scale per teacher."
            )
        scales = (scales,)
    if not isinstance(scales, Sequence) or isinstance(scales, str):
        raise ConfigError(f"{name}: expected a list of numbers, got {scales!r}.")
    if len(scales) != num_teachers:
        raise ConfigError(
            f"{name}: {len(scales)} logit scales for {num_teachers} teachers; give one per teacher."
        )
    for k, value in enumerate(scales):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise ConfigError(f"{name}[{k}]: expected a positive number, got {value!r}.")
    return tuple(float(value) for value in scales)


def needs(batch: Mapping[str, object], keys: Sequence[str], objective: str) -> None:
    """Raise `DataError` naming the first of `keys` that `batch` does not have."""
    for key in keys:
        if batch.get(key) is None:
            have = ", ".join(sorted(batch)) or "nothing"
            raise DataError(f"{objective}: the batch has no '{key}' (it has {have}).")


def row_name(index: int, rows: Tensor | None) -> str:
    """Name a place in the batch for a message: by its row in the store where that is known."""
    return f"batch position {index}" if rows is None else f"row {int(rows[index])}"


def unit_rows(features: Tensor, name: str, rows: Tensor | None = None) -> None:
    """Raise `DataError` naming the first row of `features` [B, D] whose length is not 1."""
    norms = features.float().norm(dim=-1)
    wrong = ~((norms - 1).abs() <= UNIT_TOLERANCE)
    if bool(wrong.any()):
        index = int(wrong.int().argmax())
        raise DataError(
            f"{name}: {row_name(index, rows)} has length {float(norms[index]):.4g}, expected a "
            "unit vector; normalise embeddings before they are stored."
        )


def same_teachers(images: Sequence[Tensor], texts: Sequence[Tensor], name: str) -> int:
    """Return the number of teachers.

    Raises:
        DataError: the two lists differ in length, rows or widths, or are empty.
    """
    if len(images) != len(texts) or not images:
        raise DataError(
            f"{name}: {len(images)} teachers' image embeddings and {len(texts)} teachers' text "
            "embeddings; give both of every teacher."
        )
    for k, (a, b) in enumerate(zip(images, texts, strict=True)):
        if a.shape != b.shape:
            raise DataError(
                f"{name}: teacher {k} has image embeddings {list(a.shape)} and text embeddings "
                f"{list(b.shape)}; the shapes must agree."
            )
    return len(images)
