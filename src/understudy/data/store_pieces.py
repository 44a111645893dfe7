"""The staged units of a commit, laid out as the fragments need them."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.data import store_rows
from understudy.data.store_lance import Fragment
from understudy.data.store_staging import Staging, UnitFile

_GAP_ROWS = 4096  # rows of nulls handed over at a time
_CACHED_UNITS = 4


class Piece(NamedTuple):
    """A staged unit with the rows of it that a commit takes."""

    unit: UnitFile
    take: np.ndarray  # bool [stop - start]
    seconds: float
    facts: dict[str, Any]  # for every card
    column_facts: dict[str, dict[str, Any]]  # for the card of one column


class Pieces:
    """The staged units of a commit, cut so that no row comes from two of them."""

    def __init__(self, staging: Staging, committed: np.ndarray) -> None:
        self._staging = staging
        self._cache: OrderedDict[str, pa.Table] = OrderedDict()
        self.pieces: list[Piece] = []
        taken = committed.copy()
        for unit, header in staging.sound_units():
            if unit.stop > len(taken):
                continue  # of rows that this version does not have
            rows = store_rows.decode(header["rows"], unit.stop - unit.start)
            new = rows & ~taken[unit.start : unit.stop]
            if new.any():
                taken[unit.start : unit.stop] |= new
                known = (header["seconds"], header["facts"], header.get("column_facts", {}))
                self.pieces.append(Piece(unit, new, *known))
        self.new = taken & ~committed

    def _table(self, unit: UnitFile) -> pa.Table:
        table = self._cache.pop(unit.name, None)
        if table is None:
            table = self._staging.load(unit)[1].combine_chunks()
            while len(self._cache) >= _CACHED_UNITS:
                self._cache.popitem(last=False)
        self._cache[unit.name] = table
        return table

    def within(self, start: int, stop: int) -> list[Piece]:
        """Return the pieces that touch rows [start, stop)."""
        return [p for p in self.pieces if p.unit.start < stop and p.unit.stop > start]

    def dense(self, fragment: Fragment, columns: list[str]) -> Iterator[pa.Table]:
        """Yield every row of a fragment in order, null where nothing is staged."""
        first, last = fragment.start_row, fragment.start_row + fragment.num_rows
        pieces = self.within(first, last)
        edges = {first, last}
        for piece in pieces:
            edges |= {max(first, piece.unit.start), min(last, piece.unit.stop)}
        cuts = sorted(edges)
        for a, b in itertools.pairwise(cuts):
            here = [p for p in pieces if p.unit.start < b and p.unit.stop > a]
            if here:
                yield self._segment(a, b, here, columns)
                continue
            for start in range(a, b, _GAP_ROWS):
                yield self._nulls(min(b, start + _GAP_ROWS) - start, columns)

    def _segment(self, a: int, b: int, pieces: list[Piece], columns: list[str]) -> pa.Table:
        tables, index = [], np.full(b - a, -1, np.int64)
        offset = 0
        for piece in pieces:
            part = slice(a - piece.unit.start, b - piece.unit.start)
            table = self._table(piece.unit).select(columns).slice(part.start, b - a)
            take = piece.take[part]
            if take.all():
                return table
            index[take] = offset + np.flatnonzero(take)
            tables.append(table)
            offset += b - a
        chosen = pa.array(index, mask=index < 0)
        return pa.concat_tables(tables).combine_chunks().take(chosen)

    def _nulls(self, count: int, columns: list[str]) -> pa.Table:
        schema = self._table(self.pieces[0].unit).schema
        return pa.table([pa.nulls(count, schema.field(c).type) for c in columns], names=columns)

    def sparse(self, fragment: Fragment, columns: list[str]) -> Iterator[pa.Table]:
        """Yield only the staged rows of a fragment, with `_rowid`."""
        first, last = fragment.start_row, fragment.start_row + fragment.num_rows
        for piece in self.within(first, last):
            rows = piece.unit.start + np.flatnonzero(piece.take)
            rows = rows[(rows >= first) & (rows < last)]
            if len(rows):
                table = self._table(piece.unit).select(columns).take(rows - piece.unit.start)
                address = (np.uint64(fragment.fragment_id) << np.uint64(32)) + (
                    rows - first
                ).astype(np.uint64)
                yield table.append_column("_rowid", pa.array(address))
