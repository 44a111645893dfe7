"""Items with their old and new vectors in memory: what an update is tried out on.

test = sample_of_file("test.npz")                     # ids, old, new, side, labels
mapped, u = h.transform(test.old, test.side)
cross_metrics(test.new, mapped, test.labels)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import atomic_path
from understudy.data.spaces import Space
from understudy.update.pairs import ArrayVectors, Pairs

if TYPE_CHECKING:
    from understudy.data.store_reader import Reader

PARTS = ("old", "new", "side")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Items of one split.

    Attributes:
        ids: [N] strings.
        vectors: float32 [N, d] by part: `old`, `new` and, if there is any, `side`.
        spaces: space of each part.
        labels: int64 [N] classes.
        num_classes: of all splits.
        name: what it is, for messages.
    """

    ids: np.ndarray
    vectors: Mapping[str, np.ndarray]
    spaces: Mapping[str, Space]
    labels: np.ndarray
    num_classes: int
    name: str = "sample"

    def __post_init__(self) -> None:
        sizes = {part: len(values) for part, values in self.vectors.items()}
        sizes |= {"ids": len(self.ids), "labels": len(self.labels)}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{part} {size}" for part, size in sizes.items())
            raise DataError(f"{self.name}: parts of different lengths ({told}).")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def old(self) -> np.ndarray:
        """Old vectors float32 [N, d_o]."""
        return self.vectors["old"]

    @property
    def new(self) -> np.ndarray:
        """New vectors float32 [N, d_n]."""
        return self.vectors["new"]

    @property
    def side(self) -> np.ndarray | None:
        """Side information float32 [N, d_s], if there is any."""
        return self.vectors.get("side")

    def with_side(self, values: np.ndarray | None, origin: str = "") -> Sample:
        """Return the sample with other side information, or none.

        Args:
            values: float32 [N, d_s]; None takes it away.
            origin: what it is; part of its space.
        """
        vectors = {part: self.vectors[part] for part in ("old", "new")}
        spaces = {part: self.spaces[part] for part in ("old", "new")}
        if values is not None:
            vectors["side"] = np.asarray(values, np.float32)
            spaces["side"] = Space(model=origin, fingerprint=origin, dim=values.shape[1])
        return replace(self, vectors=vectors, spaces=spaces)

    def pairs(self, *, side: bool = False) -> Pairs:
        """Return the pairs of the sample to learn a map from.

        Args:
            side: give side information to the map.

        Raises:
            DataError: it has none.
        """
        if side and self.side is None:
            raise DataError(f"{self.name}: no side information to learn a map with.")
        use = PARTS if side else PARTS[:2]
        arrays = {part: ArrayVectors(self.vectors[part]) for part in use}
        return Pairs(
            old=arrays["old"],
            new=arrays["new"],
            side=arrays.get("side"),
            labels=self.labels,
            count=len(self),
            names=lambda items: [str(name) for name in self.ids[items]],
            spaces={part: self.spaces[part] for part in use},
            num_classes=self.num_classes,
            source=self.name,
        )

    def save(self, path: str | Path) -> Path:
        """Write ids, vectors and labels as a file of pairs (`.npz`) and return its path."""
        spaces = {part: space.to_dict() for part, space in self.spaces.items()}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = {"ids": np.asarray(self.ids, str), "labels": self.labels}
            arrays |= {**self.vectors, "spaces": np.array(json.dumps(spaces))}
            np.savez(file, **arrays)
        return Path(path)


def sample_of_file(path: str | Path, num_classes: int = 0) -> Sample:
    """Read a file of pairs with labels: `.npz` or `.parquet` with `old`, `new` and maybe `side`.

    Args:
        path: the file.
        num_classes: of all splits; 0 takes one more than the largest label.

    Raises:
        DataError: no such file, no ids, no labels, or labels below 0.
    """
    from understudy.update.pair_files import pairs_of_file

    pairs = pairs_of_file(path)
    if pairs.labels is None:
        raise DataError(f"{path}: no labels; retrieval is scored by them ('labels' or 'label').")
    if len(pairs) and int(pairs.labels.min()) < 0:
        raise DataError(
            f"{path}: label {int(pairs.labels.min())} of item "
            f"'{pairs.name(int(pairs.labels.argmin()))}'; labels are numbers from 0 on."
        )
    items = np.arange(len(pairs))
    return Sample(
        ids=np.asarray(pairs.names(items), object),
        vectors={part: values.take(items) for part, values in pairs.fields.items()},
        spaces=pairs.spaces,
        labels=pairs.labels,
        num_classes=max(num_classes, int(pairs.labels.max(initial=0)) + 1),
        name=str(path),
    )


def cross_metrics(
    queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, metric: str = "l2"
) -> dict[str, float]:
    """Score items against a gallery of the same items, each left out of its own ranking.

    Args:
        queries: [N, D] one model's vectors.
        gallery: [N, D] the same items, by whichever model or map.
        labels: [N].
        metric: l2 or cosine.
    """
    from understudy.evaluate.ranking import ranking_metrics

    own = np.arange(len(labels))
    return ranking_metrics(queries, gallery, labels, labels, own=own, metric=metric)


def class_numbers(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return labels of any kind as int64 class numbers, and the classes' names by number.

    Raises:
        DataError: a label is missing.
    """
    missing = [i for i, v in enumerate(values.tolist()) if v is None or v != v or v == ""]
    if missing:
        raise DataError(
            f"labels: item {missing[0]} has none; {len(missing)} of {len(values)} have none. Leave "
            "these rows out by a filter."
        )
    names, numbers = np.unique(values, return_inverse=True)
    return numbers.astype(np.int64), [str(name) for name in names]


def column_values(store: Reader, column: str, rows: np.ndarray) -> np.ndarray:
    """Return a column of numbers or strings as an array [N].

    Raises:
        DataError: no such column.
    """
    if not store.has(column):
        raise DataError(
            f"{store.path}: no column '{column}'; it has {', '.join(sorted(store.columns))}."
        )
    return np.asarray(store.take(rows, [column])[column].to_pylist())
