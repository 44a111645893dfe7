"""Column jobs: fill knowledge columns unit by unit, exactly once, whatever interrupts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.errors import CardError, DataError
from understudy.core.hashing import hash_data
from understudy.data import store_rows
from understudy.data.card import Card
from understudy.data.store_commit import Plan, card_of, commit_plan, payload_columns
from understudy.data.store_lance import UID_KEY, Handle
from understudy.data.store_names import check_name, physical
from understudy.data.store_read import Rows, row_numbers
from understudy.data.store_staging import Files, Staging, UnitFile

UNIT_ROWS = 512


class Unit(NamedTuple):
    """A run of rows [start, stop) to compute and write in one go."""

    start: int
    stop: int


class Job:
    """Fills one or more knowledge columns; made by `Store.job`.

    Each finished unit is a file of its own beside the data, so whatever stops the job (an error, a
    full disk, `kill -9`) costs the unit in work and no more: the same job opened again goes on.
    `commit` makes what is finished visible, columns and cards together in one version.

    Example:
        ```python
        with store.job([card], {card.column: embedding_type([512])}) as job:
            for unit in job.todo():
                images = store.take(range(unit.start, unit.stop), ["image"])
                job.write(unit, {card.column: encode_embeddings(teacher(images))})
        ```
    """

    def __init__(
        self,
        handle: Handle,
        files: Files,
        cards: Sequence[Card],
        types: Mapping[str, pa.DataType],
        *,
        rows: Rows | None = None,
        unit_rows: int = UNIT_ROWS,
        overwrite: bool = False,
        resume: bool = True,
    ) -> None:
        handle.check_writable()
        handle.refresh()
        if not cards:
            raise CardError("a job needs a card for each column it fills.")
        self.cards = {check_name(card.column): card for card in cards}
        self.columns = list(self.cards)
        if len(self.cards) < len(cards):
            raise CardError("a job was given two cards for one column.")
        if set(types) != set(self.columns):
            raise DataError(
                f"a job needs one Arrow type for each of its columns: cards are for "
                f"{', '.join(self.columns)}, types for {', '.join(types)}."
            )
        if unit_rows < 1:
            raise DataError(f"unit_rows must be at least 1, got {unit_rows}.")
        self.types = {column: types[column] for column in self.columns}
        self.unit_rows = unit_rows
        self._handle = handle
        self._wanted = np.ones(handle.num_rows, bool)
        if rows is not None:
            self._wanted[:] = False
            self._wanted[row_numbers(rows, handle.num_rows, "rows of a job")] = True
        self._plan = Plan(self.cards, self.types, handle.metadata.get(UID_KEY, ""), overwrite)
        self._check_columns(overwrite)
        identities = {c: [card.identity(), str(types[c])] for c, card in self.cards.items()}
        self._staging = Staging(files, hash_data([self._plan.uid, identities])[:24])
        self._facts = {
            "uid": self._plan.uid,
            "columns": {c: card.writer for c, card in self.cards.items()},
            "identities": {c: card.identity() for c, card in self.cards.items()},
        }
        self._done = self._staged_or_committed() if resume else self._committed()

    def _check_columns(self, overwrite: bool) -> None:
        payload = payload_columns(self._handle)
        for column, card in self.cards.items():
            if column in payload:
                raise CardError(
                    f"column '{column}' came with the rows and has no card; a job cannot write to "
                    "it, so give the new column another name."
                )
            found = card_of(self._handle, column)
            if found is None:
                continue
            if not overwrite:
                found.check_same_writer(card)
            kind = self._handle.schema.field(physical(column)).type
            same = found.identity() == card.identity()
            if same and kind != self.types[column]:
                raise CardError(
                    f"column '{column}' holds {kind}, the job would write {self.types[column]} "
                    "with the same card; put what decides the type into the card's config."
                )

    def _staged_or_committed(self) -> np.ndarray:
        done = self._committed()
        for unit, header in self._staging.sound_units():
            if unit.stop <= len(done):
                part = store_rows.decode(header["rows"], unit.stop - unit.start)
                done[unit.start : unit.stop] |= part
        return done

    def _committed(self) -> np.ndarray:
        masks = [self._plan.filled(self._handle, column) for column in self.columns]
        return np.logical_and.reduce(masks)

    @property
    def key(self) -> str:
        """Hash of what identifies the job: the store, columns, cards and types."""
        return self._staging.key

    def finished(self) -> set[tuple[int, int]]:
        """Return (first row, row after the last) of the units that any process keeps finished.

        A look at names only: one of them may prove damaged when it is committed.
        """
        return {(unit.start, unit.stop) for unit in self._staging.units()}

    @property
    def num_done(self) -> int:
        """Rows of this job that are finished, committed or staged."""
        return int((self._done & self._wanted).sum())

    @property
    def num_wanted(self) -> int:
        """Rows that this job is to fill."""
        return int(self._wanted.sum())

    def todo(self) -> list[Unit]:
        """Return the units that are not finished, in row order.

        A unit starts and ends at an unfinished row and spans at most `unit_rows` rows; those of
        them that are finished or not asked for are not among `rows(unit)`.
        """
        open_rows = np.flatnonzero(self._wanted & ~self._done)
        units = []
        at = 0
        while at < len(open_rows):
            start = int(open_rows[at])
            after = int(np.searchsorted(open_rows, start + self.unit_rows))
            units.append(Unit(start, int(open_rows[after - 1]) + 1))
            at = after
        return units

    def rows(self, unit: Unit) -> np.ndarray:
        """Return the row numbers int64 of a unit that are to be computed."""
        need = self._wanted[unit.start : unit.stop] & ~self._done[unit.start : unit.stop]
        return unit.start + np.flatnonzero(need)

    def write(
        self,
        unit: Unit,
        columns: Mapping[str, pa.Array | pa.ChunkedArray],
        *,
        seconds: float = 0.0,
        facts: Mapping[str, Any] | None = None,
        column_facts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Keep a finished unit. It is on disk, whole, when this returns; it is not visible yet.

        Args:
            unit: one of `todo()`.
            columns: one array for each column of the job, with a value for each row of the unit or
                for each of `rows(unit)`. Values for rows that were not asked for are left out.
            seconds: wall time spent on the unit, shared equally among the columns' cards.
            facts: plain data to merge into all cards' `facts` when the unit is committed.
            column_facts: plain data to merge into the `facts` of one column's card, by column.

        Raises:
            DataError: a column is missing, of another type or length, or null in a row that was
                asked for; or the unit could not be written (finished units are kept).
        """
        if set(columns) != set(self.columns):
            raise DataError(
                f"rows {unit.start}-{unit.stop - 1}: expected values for "
                f"{', '.join(self.columns)}, got {', '.join(columns) or 'none'}."
            )
        if not 0 <= unit.start < unit.stop <= len(self._wanted):
            raise DataError(
                f"unit {unit.start}-{unit.stop} lies outside of {len(self._wanted)} rows."
            )
        wanted = self._wanted[unit.start : unit.stop]
        need = wanted & ~self._done[unit.start : unit.stop]
        if not need.any():
            return
        arrays = [self._fit(column, columns[column], unit, need) for column in self.columns]
        table = pa.table(arrays, names=self.columns)
        header = {
            "rows": store_rows.encode(need),
            "seconds": float(seconds),
            "facts": dict(facts or {}),
            "column_facts": {c: dict(f) for c, f in (column_facts or {}).items()},
        }
        self._staging.describe(self._facts)
        self._staging.save(UnitFile.of(unit.start, unit.stop - unit.start), header, table)
        self._done[unit.start : unit.stop] |= need

    def _fit(
        self, column: str, values: pa.Array | pa.ChunkedArray, unit: Unit, need: np.ndarray
    ) -> pa.Array:
        where = f"column '{column}', rows {unit.start}-{unit.stop - 1}"
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
            if isinstance(values, pa.ChunkedArray):  # what pyarrow returns for no chunks
                values = pa.array([], values.type)
        if not isinstance(values, pa.Array):
            raise DataError(f"{where}: expected an Arrow array, got {type(values).__name__}.")
        if values.type != self.types[column]:
            raise DataError(f"{where}: expected {self.types[column]}, got {values.type}.")
        offsets = np.flatnonzero(need)
        if len(values) == len(need):
            place = offsets
        elif len(values) == len(offsets):
            place = np.arange(len(offsets))
        else:
            raise DataError(
                f"{where}: expected {len(need)} values (or {len(offsets)}, one for each open row), "
                f"got {len(values)}."
            )
        if values.null_count:
            valid = values.is_valid().to_numpy(zero_copy_only=False)[place]
            if not valid.all():
                row = unit.start + int(offsets[np.argmin(valid)])
                raise DataError(
                    f"{where}: no value for row {row}, which is to be filled; leave rows that have "
                    "none out of the job's rows."
                )
        if len(offsets) == len(need) == len(values):
            return values
        index = np.zeros(len(need), np.int64)
        index[offsets] = place
        return values.take(pa.array(index, mask=~need))

    def commit(self) -> None:
        """Make all finished units visible in one version, columns and cards together.

        May be called between units; does nothing when there is nothing new. Killed in the middle,
        it has either happened or not, and the same job goes on from there.

        Raises:
            DataError: a staged unit was damaged meanwhile (run again), or the disk is full.
        """
        commit_plan(self._handle, self._staging, self._plan)
        filled = self._committed()
        for unit, header in self._staging.sound_units():
            if unit.stop <= len(filled):
                part = store_rows.decode(header["rows"], unit.stop - unit.start)
                if filled[unit.start : unit.stop][part].all():
                    self._staging.drop(unit)
        self._staging.tidy()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.commit()
