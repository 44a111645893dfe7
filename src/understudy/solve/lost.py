"""A pivot that could not be factored."""

from __future__ import annotations


class PivotLostError(Exception):
    """A diagonal block could not be factored.

    Attributes:
        level: 0 at the leaves.
        cluster: number of the cluster in its level.
        compressed: whether something had been dropped before.
    """

    def __init__(self, level: int, cluster: int, compressed: bool) -> None:
        super().__init__(f"level {level}, cluster {cluster}")
        self.level, self.cluster, self.compressed = level, cluster, compressed
