"""Pairs to learn a map from: the old and the new vector of the same items, by id.

    pairs = pairs_of_store(store, "embed.old", "embed.new", side="embed.psi", labels="label")

A store's vectors are read batch by batch where they would not fit in memory.
`understudy.update.pair_files` makes pairs of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.data.knowledge import decode_embeddings
from understudy.data.spaces import Space, space_of

if TYPE_CHECKING:
    from understudy.data.store_reader import Reader

MEMORY_BYTES = 1 << 30
"""Vectors of a store up to this size are read once; beyond it each batch when it is used."""
PART_ROWS = 8192


class Vectors(Protocol):
    """Vectors of items 0 to N - 1."""

    @property
    def dim(self) -> int:
        """Width of a vector."""
        ...

    def take(self, items: np.ndarray) -> np.ndarray:
        """Return float32 [len(items), dim]."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayVectors:
    """Vectors in memory.

    Attributes:
        values: [N, dim].
    """

    values: np.ndarray

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.values.shape[1])

    def take(self, items: np.ndarray) -> np.ndarray:
        """Return float32 [len(items), dim]."""
        return np.asarray(self.values[items], np.float32)


@dataclass(frozen=True, slots=True)
class StoreVectors:
    """Vectors in a store's column, read when they are used.

    Attributes:
        store: where.
        column: an index column.
        rows: int64 [N] row number of each item.
    """

    store: Reader
    column: str
    rows: np.ndarray

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(np.prod(self.store.card(self.column).config["shape"]))

    def take(self, items: np.ndarray) -> np.ndarray:
        """Return float32 [len(items), dim]."""
        config = self.store.card(self.column).config
        return decode_embeddings(self.store.array(self.column, self.rows[items]), config)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What a map is learned from.

    Attributes:
        old: old vectors.
        new: new vectors of the same items.
        side: side information of the same items; None for none.
        labels: int64 [N] classes; None where they are not known.
        count: N.
        names: `names(items)` returns the ids of items.
        spaces: space of `old`, `new` and, if there is any, `side`.
        columns: where each of these comes from, for the manifest.
        num_classes: of the labels, where it is known.
        source: what was read, for messages.
    """

    old: Vectors
    new: Vectors
    side: Vectors | None = None
    labels: np.ndarray | None = None
    count: int
    names: Callable[[np.ndarray], list[str]]
    spaces: dict[str, Space]
    columns: dict[str, str] = field(default_factory=dict)
    num_classes: int | None = None
    source: str = ""

    def __len__(self) -> int:
        return self.count

    @property
    def fields(self) -> dict[str, Vectors]:
        """The vectors that there are, by name."""
        found = {"old": self.old, "new": self.new}
        return found if self.side is None else {**found, "side": self.side}

    def name(self, item: int) -> str:
        """Return an item's id."""
        return self.names(np.array([item]))[0]

    def parts(
        self, items: np.ndarray, rows: int = PART_ROWS
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield (items, vectors by name), a few thousand at a time."""
        for start in range(0, len(items), rows):
            some = items[start : start + rows]
            yield some, {name: values.take(some) for name, values in self.fields.items()}

    @cached_property
    def id_hashes(self) -> np.ndarray:
        """A hash of each item's id, whatever else it is stored with: uint64 [N]."""
        found = np.empty(self.count, np.uint64)
        for start in range(0, self.count, PART_ROWS):
            items = np.arange(start, min(start + PART_ROWS, self.count))
            for i, name in zip(items.tolist(), self.names(items), strict=True):
                digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
                found[i] = int.from_bytes(digest, "little")
        return found

    def describe(self) -> dict[str, object]:
        """Return what identifies the pairs: spaces, ids, and vectors that are in memory."""
        held = {
            name: hash_bytes(np.ascontiguousarray(values.values).tobytes())
            for name, values in self.fields.items()
            if isinstance(values, ArrayVectors)
        }
        labels = None if self.labels is None else hash_bytes(self.labels.tobytes())
        return {
            "count": self.count,
            "spaces": {name: space.id for name, space in self.spaces.items()},
            "ids": hash_bytes(self.id_hashes.tobytes()),
            "vectors": held,
            "labels": labels,
        }

    @property
    def fingerprint(self) -> str:
        """Hash of `describe()`."""
        return hash_data(self.describe())


def pairs_of_store(
    store: Reader,
    old: str,
    new: str,
    *,
    side: str = "",
    labels: str = "",
    where: str = "",
    rows: np.ndarray | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Pairs:
    """Return the pairs of a store: rows in which all columns are filled.

    Args:
        store: with the index columns.
        old: column of old vectors.
        new: column of new vectors.
        side: column of side information; empty for none.
        labels: column of whole numbers; empty for none.
        where: SQL filter.
        rows: row numbers; all when None.
        memory_bytes: vectors up to this size are read at once.

    Raises:
        DataError: no such column, or no row has all of them.
        CardError: a column names no space.
    """
    names = {"old": old, "new": new, **({"side": side} if side else {})}
    spaces = {name: space_of(store, column) for name, column in names.items()}
    use = np.ones(store.num_rows, bool)
    if rows is not None:
        use[:] = False
        use[np.asarray(rows, np.int64)] = True
    if where:
        use &= np.isin(np.arange(store.num_rows), store.where(where))
    asked = int(use.sum())
    for column in (*names.values(), *([labels] if labels else [])):
        use &= store.filled(column)
    numbers = np.flatnonzero(use)
    if not len(numbers):
        filled = ", ".join(f"{c} {int(store.filled(c).sum()):,}" for c in names.values())
        raise DataError(
            f"{store.path}: none of {asked:,} rows has {' and '.join(names.values())} (filled: "
            f"{filled}); encode a sample of rows with both models ('understudy update encode')."
        )
    found: dict[str, Vectors] = {n: StoreVectors(store, c, numbers) for n, c in names.items()}
    if 4 * len(numbers) * sum(v.dim for v in found.values()) <= memory_bytes:
        everything = np.arange(len(numbers))
        found = {n: ArrayVectors(v.take(everything)) for n, v in found.items()}
    classes = store.meta.get("classes")
    return Pairs(
        old=found["old"],
        new=found["new"],
        side=found.get("side"),
        labels=whole_numbers(store.array(labels, numbers), labels) if labels else None,
        count=len(numbers),
        names=lambda items: store.take(numbers[items], ["id"])["id"].to_pylist(),
        spaces=spaces,
        columns={**names, **({"labels": labels} if labels else {})},
        num_classes=len(classes) if labels == "label" and classes else None,
        source=str(store.path),
    )


def whole_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """Return labels as int64.

    Raises:
        DataError: they are not whole numbers.
    """
    if values.dtype.kind not in "iu":
        raise DataError(f"labels '{where}': expected whole numbers, got {values.dtype}.")
    return values.astype(np.int64)
