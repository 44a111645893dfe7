"""What a factorization reports of each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelStats:
    """One level of a factorization.

    Attributes:
        level: 0 at the leaves.
        eliminated: clusters that were eliminated whole.
        eliminated_size: their mean number of unknowns.
        clusters: clusters that stayed, or were compressed.
        mean_size: their mean number of unknowns before compression.
        max_size: the largest of them.
        mean_rank: mean number of unknowns that were kept.
        max_rank: the largest of them.
        seconds: wall time.
        bytes: memory of what the level stores.
    """

    level: int
    eliminated: int
    eliminated_size: float
    clusters: int
    mean_size: float
    max_size: int
    mean_rank: float
    max_rank: int
    seconds: float
    bytes: int = 0

    @classmethod
    def of(
        cls,
        level: int,
        eliminated: Sequence[int] | np.ndarray,
        sizes: Sequence[int] | np.ndarray,
        ranks: Sequence[int] | np.ndarray,
        seconds: float,
        num_bytes: int = 0,
    ) -> LevelStats:
        """Summarise the sizes of a level's clusters."""

        def mean(values: Sequence[int] | np.ndarray) -> float:
            return float(np.mean(values)) if len(values) else 0.0

        return cls(
            level=level,
            eliminated=len(eliminated),
            eliminated_size=mean(eliminated),
            clusters=len(sizes),
            mean_size=mean(sizes),
            max_size=int(max(sizes, default=0)),
            mean_rank=mean(ranks),
            max_rank=int(max(ranks, default=0)),
            seconds=seconds,
            bytes=num_bytes,
        )

    @property
    def fullness(self) -> float:
        """Kept unknowns over all unknowns of the clusters; 1 where nothing is compressed."""
        return self.mean_rank / self.mean_size if self.mean_size else 0.0
