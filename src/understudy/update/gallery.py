"""The serving view of an index under update: new vectors where there are some, else mapped ones.

Nothing is overwritten while a gallery is backfilled: a model's own vectors fill one column bit by
bit, vectors mapped to that model stand in another one, and a row is served from the first if it is
filled there. `materialise` writes the view as one column, for an index or for other tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core import progress
from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.data.card import Card
from understudy.data.knowledge import decode_embeddings, embedding_config, fixed_list
from understudy.data.spaces import Space, check_one_target, space_of
from understudy.data.store import Store

ABSENT, MAPPED, ENCODED = 0, 1, 2
"""What a row of a gallery has: nothing, a mapped vector, the new model's own."""

_BYTES = 8 << 20


def flag_column(column: str) -> str:
    """Return the column that says which rows of a mixed column hold a model's own vectors."""
    return f"{column}.encoded"


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a gallery.

    Attributes:
        rows: int64 [N] row numbers.
        vectors: float32 [N, dim].
        encoded: bool [N]; a model's own vectors, else mapped ones.
    """

    rows: np.ndarray
    vectors: np.ndarray
    encoded: np.ndarray


class Gallery:
    """The rows of one store version, each with the best vector that there is of it.

    Make one with `Gallery.open`. It does not move with the store: open it again to see what was
    written since.

    Attributes:
        store: where the columns are.
        new: column of the new model's own vectors; None if there is none yet.
        mapped: column of vectors mapped to that model; None if there is none.
        mixed: a materialised column that holds both, instead of the two; else None.
        space: space of the view.
        version: number of the store's version.
    """

    def __init__(
        self, store: Store, new: str | None, mapped: str | None, mixed: str | None, space: Space
    ) -> None:
        self.store, self.new, self.mapped, self.mixed = store, new, mapped, mixed
        self.space, self.version = space, store.version
        self._pinned = store.pinned()  # the store may move on under a writer in this process
        self._states = self._read_states()

    @classmethod
    def open(cls, store: Store, *, new: str | None = None, mapped: str | None = None) -> Gallery:
        """Open the view of a column, or of two.

        Args:
            store: where the columns are.
            new: column of the new model's own vectors, or a mixed column by itself.
            mapped: column of vectors mapped to that model.

        Raises:
            DataError: no such column, or none is given; a mixed column has no flag column.
            SpaceError: the two columns are not searched from one space.
            CardError: a column names no space.
        """
        names = [name for name in (new, mapped) if name is not None]
        if not names:
            raise DataError("gallery: name the new model's column, the mapped column, or both.")
        spaces = {name: space_of(store, name) for name in names}
        check_one_target(spaces.values(), f"gallery of {store.path}")
        first = spaces[names[0]]
        if first.kind == "mixed":
            if len(names) > 1:
                raise DataError(
                    f"gallery: '{names[0]}' holds mapped vectors already; give it alone."
                )
            if not store.has(flag_column(names[0])):
                raise DataError(
                    f"gallery: column '{names[0]}' of {store.path} mixes vectors of two origins "
                    f"and has no flag column '{flag_column(names[0])}': write it again with "
                    "Gallery.materialise."
                )
            return cls(store, None, None, names[0], first)
        if new is not None and spaces[new].kind != "encoded":
            raise DataError(
                f"gallery: column '{new}' holds mapped vectors, not a model's own; give it as "
                "'mapped'."
            )
        if mapped is not None and spaces[mapped].kind != "mapped":
            raise DataError(
                f"gallery: column '{mapped}' holds a model's own vectors, not mapped ones; give it "
                "as 'new'."
            )
        widths = {spaces[name].dim for name in names}
        if len(widths) > 1:
            raise DataError(f"gallery: widths {sorted(widths)} of {' and '.join(names)} differ.")
        return cls(store, new, mapped, None, cls._space(spaces, new, mapped))

    @staticmethod
    def _space(spaces: dict[str, Space], new: str | None, mapped: str | None) -> Space:
        if new is None or mapped is None:
            return next(iter(spaces.values()))
        one, other = spaces[new], spaces[mapped]
        return Space(
            model=one.model,
            fingerprint=hash_data([one.fingerprint, other.fingerprint]),
            preprocess=one.preprocess,
            dtype=one.dtype,
            normalised=one.normalised and other.normalised,
            dim=one.dim,
            kind="mixed",
            target=one.id,
            lineage=(other.id,),
        )

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.space.dim

    @property
    def pinned(self) -> Store:
        """The store at this gallery's version, which does not move."""
        return self._pinned

    @property
    def num_rows(self) -> int:
        """Rows of the store, with vectors or without."""
        return len(self._states)

    def states(self) -> np.ndarray:
        """Return uint8 [num_rows]: `ABSENT`, `MAPPED` or `ENCODED`; not to be written to."""
        return self._states

    def counts(self) -> dict[str, int]:
        """Return how many rows are absent, mapped and encoded."""
        found = np.bincount(self._states, minlength=3)
        return {"absent": int(found[0]), "mapped": int(found[1]), "encoded": int(found[2])}

    def _read_states(self) -> np.ndarray:
        states = np.zeros(self._pinned.num_rows, np.uint8)
        if self.mapped is not None:
            states[self._pinned.filled(self.mapped)] = MAPPED
        if self.new is not None:
            states[self._pinned.filled(self.new)] = ENCODED
        if self.mixed is not None:
            filled = np.flatnonzero(self._pinned.filled(self.mixed))
            flags = self._pinned.array(flag_column(self.mixed), filled)
            states[filled] = np.where(flags.astype(bool), ENCODED, MAPPED)
        states.setflags(write=False)
        return states

    def column_of(self, state: int) -> str | None:
        """Return the column that rows of a state are read from."""
        if self.mixed is not None:
            return self.mixed
        return self.new if state == ENCODED else self.mapped

    def take(self, rows: np.ndarray) -> Part:
        """Return rows by number, in the order asked for.

        Raises:
            DataError: a row has no vector.
        """
        rows = np.asarray(rows, np.int64)
        states = self._states[rows]
        if not states.all():
            row = int(rows[np.argmin(states)])
            raise DataError(
                f"row {row} of {self.store.path} has no vector in this gallery: encode it, or "
                "apply the map to it."
            )
        vectors = np.empty((len(rows), self.dim), np.float32)
        for state in (MAPPED, ENCODED):
            place = np.flatnonzero(states == state)
            column = self.column_of(state)
            if len(place) and column is not None:
                config = self._pinned.card(column).config
                stored = self._pinned.array(column, rows[place])
                vectors[place] = decode_embeddings(stored, config)
        return Part(rows, vectors, states == ENCODED)

    def stream(self, rows: np.ndarray | None = None, *, batch_rows: int = 0) -> Iterator[Part]:
        """Yield the rows that have a vector, in order, a few megabytes at a time.

        Args:
            rows: row numbers to go through, absent ones left out; all when None.
            batch_rows: rows at a time; chosen by their width when 0.
        """
        numbers = np.arange(self.num_rows) if rows is None else np.asarray(rows, np.int64)
        numbers = numbers[self._states[numbers] != ABSENT]
        size = batch_rows or max(64, _BYTES // (4 * self.dim))
        for start in range(0, len(numbers), size):
            yield self.take(numbers[start : start + size])

    def materialise(self, column: str, *, overwrite: bool = False, label: str = "gallery") -> None:
        """Write the view as one mixed column and its flag column, in one version.

        Written under a name of its own it can be indexed, exported and read by tools that know of
        one column only. Killed, it goes on when it is called again.

        Args:
            column: name of the column, such as `embed.serving`.
            overwrite: replace what another gallery, or this one at an earlier state, wrote there.
            label: name of the progress bar.

        Raises:
            CardError: the column is there already, with another content.
        """
        if self.mixed is not None:
            raise DataError(f"gallery: column '{self.mixed}' is materialised already.")
        state = hash_bytes(self.space.id.encode(), self._states.tobytes())
        config = {**embedding_config([self.dim], "float32"), "space": self.space.to_dict()}
        cards = [
            Card(column=name, writer="gallery", fingerprint=state, config={**config, "part": part})
            for name, part in ((column, "vectors"), (flag_column(column), "encoded"))
        ]
        types = {column: pa.list_(pa.float32(), self.dim), flag_column(column): pa.uint8()}
        rows = np.flatnonzero(self._states != ABSENT)
        unit_rows = max(512, _BYTES // (4 * self.dim))
        with self.store.job(
            cards, types, rows=rows, unit_rows=unit_rows, overwrite=overwrite
        ) as job:
            with progress.bar(label, total=job.num_wanted, done=job.num_done, unit="rows") as bar:
                for unit in job.todo():
                    part = self.take(job.rows(unit))
                    values: dict[str, Any] = {
                        column: fixed_list(part.vectors),
                        flag_column(column): pa.array(part.encoded.astype(np.uint8)),
                    }
                    job.write(unit, values)
                    bar.advance(len(part.rows))
