"""How documents become training sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.curate.tokens.decompose import Edges
from understudy.data.tokens import check_log2

Packing = Literal["concat", "packed", "buckets"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """What decides the sequences and their order.

    Attributes:
        kind: `concat`: documents in random order laid end to end and cut. `packed`: best-fit
            packing. `buckets`: each document on its own cut into powers of two.
        context: input tokens of a row; not used by buckets.
        overlap: 1 lets a row of `concat` begin with the last target of the one before.
        min_log2: exponent of the shortest bucket; shorter rests are dropped.
        max_log2: exponent of the longest bucket.
        edges: `spent` or `shared`: whether the last target of a piece is the first input of the
            next one.
        randomize: draw the pieces of over-long documents; otherwise take the longest bucket.
        limit: longest context that the model reads; 0 for no check.
        seed: of the draws and of the shuffle.
        memory: bytes of tokens that a process may hold; units and cells follow from it.
    """

    kind: Packing
    context: int = 2048
    overlap: int = 0
    min_log2: int = 8
    max_log2: int = 13
    edges: Edges = "spent"
    randomize: bool = True
    limit: int = 0
    seed: int = 0
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        check_choice(self.kind, ("concat", "packed", "buckets"), "PackConfig.kind")
        check_choice(self.edges, ("spent", "shared"), "PackConfig.edges")
        check_log2(self.min_log2, self.max_log2, self.limit or None)
        if self.context < 1:
            raise ConfigError(f"PackConfig.context: expected at least 1, got {self.context}.")
        if self.kind != "buckets" and self.limit and self.context > self.limit:
            raise ConfigError(
                f"PackConfig.context: {self.context:,} tokens, and the model reads {self.limit:,}."
            )
        if self.overlap not in (0, 1):
            raise ConfigError(f"PackConfig.overlap: expected 0 or 1, got {self.overlap}.")
        if self.memory < 1:
            raise ConfigError(f"PackConfig.memory: expected bytes above 0, got {self.memory}.")
