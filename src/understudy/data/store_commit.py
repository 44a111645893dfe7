"""From staged units to a new version: columns, cards and row sets in one commit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data import store_rows
from understudy.data.card import Card
from understudy.data.store_lance import (
    CARD_KEY,
    ROWS_KEY,
    UID_KEY,
    Change,
    Fragment,
    Handle,
    one_line,
)
from understudy.data.store_names import physical
from understudy.data.store_pieces import Pieces
from understudy.data.store_schema import renamed, without_fields
from understudy.data.store_staging import Staging, VanishedError

if TYPE_CHECKING:
    import lance
    from lance.fragment import FragmentMetadata

_GAP_ROWS = 4096  # rows of nulls handed over at a time
_CACHED_UNITS = 4
_FRESH = "new:"  # stored-name prefix of a column that replaces another one in the same commit


def payload_columns(handle: Handle) -> list[str]:
    """Return the columns that came with the rows, in order."""
    return [c for c in handle.columns if CARD_KEY + c not in handle.metadata]


def card_of(handle: Handle, column: str) -> Card | None:
    """Return a knowledge column's card, or `None` for any other column."""
    text = handle.metadata.get(CARD_KEY + column)
    return None if text is None else Card.from_json(text)


def filled_rows(handle: Handle, column: str) -> np.ndarray:
    """Return bool [num_rows], true where a knowledge column has been filled."""
    text = handle.metadata.get(ROWS_KEY + column)
    if text is None:
        return np.zeros(handle.num_rows, bool)
    return store_rows.decode(text, handle.num_rows)


@dataclass
class Plan:
    """What a job writes.

    Attributes:
        cards: the cards by column, in order.
        types: the Arrow type of each column.
        uid: identity of the store that the rows belong to.
        overwrite: whether columns of another writer are replaced.
    """

    cards: dict[str, Card]
    types: dict[str, pa.DataType]
    uid: str
    overwrite: bool

    def present(self, handle: Handle, column: str) -> bool:
        """Say whether the store has this very column.

        Raises:
            CardError: it has a column of that name by another writer, not to be overwritten.
        """
        found = card_of(handle, column)
        if found is None:
            return False
        if not self.overwrite:
            found.check_same_writer(self.cards[column])
        return found.identity() == self.cards[column].identity()

    def filled(self, handle: Handle, column: str) -> np.ndarray:
        """Return bool [num_rows], true where this job's column is filled in the store."""
        if not self.present(handle, column):
            return np.zeros(handle.num_rows, bool)
        return filled_rows(handle, column)


def merge_facts(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `old` with `new` merged in, dictionaries key by key."""
    merged = dict(old)
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge_facts(merged[key], value)
        else:
            merged[key] = value
    return merged


def _reader(tables: Iterator[pa.Table], schema: pa.Schema, errors: list) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.rename_columns(schema.names).to_batches()
        except BaseException as error:
            errors.append(error)
            raise

    return pa.RecordBatchReader.from_batches(schema, batches())


class _Commit:
    """Builds the change for one group of columns: all new, or all there already."""

    def __init__(self, handle: Handle, staging: Staging, plan: Plan, fresh: bool) -> None:
        self.handle, self.staging, self.plan, self.fresh = handle, staging, plan, fresh

    def build(self, dataset: lance.LanceDataset) -> Change | None:
        if self.handle.metadata.get(UID_KEY, "") != self.plan.uid:
            raise DataError(
                f"{self.handle.path}: the store was replaced while a job ran; open it again and "
                "run the same command."
            )
        present = {c: self.plan.present(self.handle, c) for c in self.plan.cards}
        columns = [c for c, there in present.items() if there != self.fresh]
        if not columns:
            return None
        filled = {c: self.plan.filled(self.handle, c) for c in columns}
        pieces = Pieces(self.staging, np.logical_and.reduce(list(filled.values())))
        if not pieces.pieces:
            return None
        fragments = [f.metadata for f in dataset.get_fragments()]
        touched = [
            (i, f)
            for i, f in enumerate(self.handle.fragments)
            if pieces.new[f.start_row : f.start_row + f.num_rows].any()
        ]
        if self.fresh:
            schema, fragments = self._add(dataset, fragments, touched, pieces, columns)
        else:
            schema = dataset.lance_schema
            for i, fragment in touched:
                fragments[i] = self._update(dataset, fragment, pieces, columns)
        return Change(fragments, schema, self._metadata(pieces, filled))

    def _add(
        self,
        dataset: lance.LanceDataset,
        fragments: list[FragmentMetadata],
        touched: list[tuple[int, Fragment]],
        pieces: Pieces,
        columns: list[str],
    ) -> tuple[Any, list[FragmentMetadata]]:
        replaced = {physical(c) for c in columns if physical(c) in dataset.schema.names}
        if replaced:  # Lance wants a field that takes another's name in every fragment
            touched = list(enumerate(self.handle.fragments))
        names = [_FRESH + physical(c) if physical(c) in replaced else physical(c) for c in columns]
        fields = [pa.field(n, self.plan.types[c]) for n, c in zip(names, columns, strict=True)]
        schema: Any = None
        for i, fragment in touched:
            errors: list[BaseException] = []
            reader = _reader(pieces.dense(fragment, columns), pa.schema(fields), errors)
            lance_fragment = _fragment(dataset, fragment)
            try:
                fragments[i], schema = lance_fragment.merge_columns(reader)
            except (OSError, ValueError, RuntimeError) as error:
                raise _write_error(self.handle, errors, error) from None
        if replaced:
            schema, fragments = without_fields(schema, replaced, fragments)
            schema = renamed(schema, {_FRESH + name: name for name in replaced})
        return schema, fragments

    def _update(
        self,
        dataset: lance.LanceDataset,
        fragment: Fragment,
        pieces: Pieces,
        columns: list[str],
    ) -> FragmentMetadata:
        fields = [pa.field(physical(c), self.plan.types[c]) for c in columns]
        schema = pa.schema([*fields, pa.field("_rowid", pa.uint64())])
        errors: list[BaseException] = []
        reader = _reader(pieces.sparse(fragment, columns), schema, errors)
        lance_fragment = _fragment(dataset, fragment)
        try:
            return lance_fragment.update_columns(reader)[0]
        except (OSError, ValueError, RuntimeError) as error:
            raise _write_error(self.handle, errors, error) from None

    def _metadata(self, pieces: Pieces, filled: Mapping[str, np.ndarray]) -> dict[str, str | None]:
        """Return the cards and row sets as they will be."""
        metadata: dict[str, str | None] = {}
        share = 1.0 / len(self.plan.cards)
        for column, before in filled.items():
            card = self.plan.cards[column]
            if not self.fresh:
                card = card_of(self.handle, column) or card
            after = before | pieces.new
            facts, seconds = card.facts, card.seconds
            for piece in pieces.pieces:
                facts = merge_facts(facts, piece.facts)
                facts = merge_facts(facts, piece.column_facts.get(column, {}))
                part = slice(piece.unit.start, piece.unit.stop)
                if (piece.take & ~before[part]).any():
                    seconds += piece.seconds * share
            card = dataclasses.replace(
                card, rows_done=int(after.sum()), seconds=seconds, facts=facts
            )
            metadata[CARD_KEY + column] = card.to_json()
            metadata[ROWS_KEY + column] = store_rows.encode(after)
        return metadata


def _fragment(dataset: lance.LanceDataset, fragment: Fragment) -> lance.LanceFragment:
    # never None: the handle lists the fragments of this very version
    return cast("lance.LanceFragment", dataset.get_fragment(fragment.fragment_id))


def _write_error(
    handle: Handle, errors: list[BaseException], error: BaseException
) -> BaseException:
    if errors and not isinstance(errors[0], GeneratorExit):
        return errors[0]
    return DataError(
        f"{handle.path}: the columns could not be written ({one_line(error)}); finished units are "
        "kept, so mend it and run the same command again."
    )


def commit_plan(handle: Handle, staging: Staging, plan: Plan) -> None:
    """Commit every staged unit of a job; see `Job.commit`."""
    from understudy.data.store_search import drop_index

    message = f"fill {', '.join(plan.cards)}"
    while True:
        try:
            if staging.units():  # an index would go on returning what its column held before
                drop_index(handle, list(plan.cards))
            handle.change(_Commit(handle, staging, plan, fresh=True).build, message)
            handle.change(_Commit(handle, staging, plan, fresh=False).build, message)
            return
        except VanishedError:
            continue  # another process committed a unit between listing and reading
