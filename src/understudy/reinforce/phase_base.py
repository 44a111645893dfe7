"""A phase: columns that are filled together, and how a few rows of them are computed.

`read` prepares what teachers will see and may run ahead in another thread; `ask` is the teachers'
part; `pack` makes columns of the answers. All three are functions of the rows alone, so any process
that has the store, the configuration and the teachers can compute any unit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from understudy.core.progress import Ledger
from understudy.data.card import Card
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Store

WRITER = "understudy.views"
"""`writer` of view columns that reinforcement drew."""
CREATED_BY = "understudy reinforce"
READ_ROWS = 64
"""Rows that are read from the store at a time."""


@dataclass
class Batch:
    """What teachers are shown at once.

    Attributes:
        rows: row numbers int64 [n].
        ids: the rows' ids.
        data: whatever the phase made of them.
        seconds: wall seconds that preparing it took, by part.
    """

    rows: np.ndarray
    ids: list[str]
    data: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the block's wall time to `part` of `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


@dataclass
class Answer:
    """What came of a batch.

    Attributes:
        columns: values by column, arrays or lists with one entry a row.
        column_facts: facts for the card of one column, by column.
        counts: things that were counted.
    """

    columns: dict[str, Any]
    column_facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class Phase(Protocol):
    """Columns that one job fills in lockstep."""

    name: str
    cards: dict[str, Card]
    types: dict[str, pa.DataType]

    def read(self, store: Store, rows: np.ndarray) -> Iterator[Batch]:
        """Prepare rows; may run in another thread than `ask`."""
        ...

    def ask(self, batch: Batch, ledger: Ledger) -> Answer:
        """Ask the teachers."""
        ...

    def encode(self, column: str, values: list[Any]) -> pa.Array:
        """Return the answers of several batches as a column."""
        ...


def labels(rows: Sequence[int] | np.ndarray, ids: Sequence[str]) -> list[str]:
    """Return what rows are called in errors."""
    return [f"row {int(row)} (id '{name}')" for row, name in zip(rows, ids, strict=True)]


def row_blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut row numbers into runs of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def teacher_card(
    column: str, teacher: Teacher, config: Mapping[str, Any], seed: int, versions: dict[str, str]
) -> Card:
    """Return the card of a column that a teacher writes."""
    facts: dict[str, Any] = {"teacher": teacher.name, "kind": teacher.kind}
    if teacher.logit_scale is not None:
        facts["logit_scale"] = teacher.logit_scale
    if teacher.logit_bias is not None:
        facts["logit_bias"] = teacher.logit_bias
    return Card(
        column=column,
        writer=teacher.name,
        fingerprint=teacher.fingerprint,
        config=dict(config),
        backend=teacher.backend,
        versions=versions,
        seed=seed,
        created_by=CREATED_BY,
        facts=facts,
    )


def add_counts(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add counts to a running total."""
    for key, value in more.items():
        total[key] = total.get(key, 0) + value
