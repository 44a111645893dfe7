"""Distances that do not depend on how vectors were cut into blocks.

A matrix product's last bits depend on the shapes that it is given, and last bits decide ties. So
vectors are first rounded to whole multiples of one step, 2^-22 of the longest query or finer (about
what float32 keeps of a number). In float64 every product and sum of such multiples is then a
whole number below 2^53, exact in any order: equal vectors have distance 0, and equal distances stay
equal, whatever the block size, thread count or device.
Distances that differ by less than the step may change places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import DataError

METRICS = ("l2", "cosine")
_BITS = 23  # of the longest query; leaves room for gallery vectors ten times as long
_PASS = 8192


class Vectors(Protocol):
    """An array [N, D], a memory map, or anything that gives slices of rows as arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""
        ...

    def __getitem__(self, part: slice, /) -> Any:
        """Return rows [start, stop) as an array of numbers."""
        ...


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


class Grid:
    """Reads vectors as whole multiples of a step that the queries decide.

    Args:
        queries: [Q, D].
        metric: `l2` compares vectors as they are, `cosine` those of unit length (p = 2).

    Raises:
        DataError: no queries, a value that is not finite, or (cosine) a vector of zeros; rows are
            named.
    """

    def __init__(self, queries: Vectors, metric: str = "l2") -> None:
        check_choice(metric, METRICS, "ranking: metric")
        self.metric = metric
        self.dim = self._dim(queries, "queries")
        longest = 1.0
        if metric == "l2":
            norms = [
                self._read(queries, part, "queries").norm(dim=1).amax()
                for part in blocks(queries.shape[0], _PASS)
            ]
            longest = float(torch.stack(norms).amax())
        _, exponent = math.frexp(longest)  # longest < 2^exponent
        self.step = 2.0 ** (exponent - _BITS) if longest else 1.0

    @staticmethod
    def _dim(vectors: Vectors, what: str) -> int:
        if len(vectors.shape) != 2 or 0 in vectors.shape:
            raise DataError(f"{what}: expected [rows, dim], none empty; got {list(vectors.shape)}.")
        return int(vectors.shape[1])

    def check_width(self, vectors: Vectors, what: str) -> None:
        """Refuse vectors of another width than the queries'."""
        dim = self._dim(vectors, what)
        if dim != self.dim:
            raise DataError(f"{what}: {dim} numbers a vector, the queries have {self.dim}.")

    def _read(self, vectors: Vectors, part: slice, what: str) -> Float[Tensor, "rows dim"]:
        found = vectors[part]
        out = found if isinstance(found, Tensor) else torch.from_numpy(np.array(found, copy=True))
        out = out.double()
        bad = ~torch.isfinite(out).all(1)
        if bool(bad.any()):
            row = part.start + int(bad.int().argmax())
            raise DataError(f"{what}: row {row} holds NaN or infinity.")
        if self.metric == "cosine":
            norm = out.norm(dim=1, keepdim=True)
            if bool((norm == 0).any()):
                row = part.start + int((norm == 0).int().argmax())
                raise DataError(f"{what}: row {row} is all zeros and has no direction.")
            out = out / norm
        return out

    def read(self, vectors: Vectors, part: slice, what: str) -> Float[Tensor, "rows dim"]:
        """Return rows as float64 whole numbers of steps.

        Args:
            vectors: [N, D].
            part: which rows.
            what: they are, for messages.
        """
        return (self._read(vectors, part, what) / self.step).round_()


def squared_distances(
    queries: Float[Tensor, "q dim"], items: Float[Tensor, "g dim"]
) -> Float[Tensor, "q g"]:
    """Return squared Euclidean distances of what `Grid.read` gave: float64 whole numbers, exact.

    Between unit vectors the squared distance is 2 - 2 cos, so its order is that of cosine distance.
    """
    own = queries.square().sum(1, keepdim=True)
    theirs = items.square().sum(1)
    return torch.addmm(theirs, queries, items.T, alpha=-2.0).add_(own)
