"""A unit of work: some rows of one phase, a pure function of store, configuration and teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.core.progress import Ledger
from understudy.data.store_commit import merge_facts
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import Answer, Batch, Phase, add_counts
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass
class UnitResult:
    """What `Job.write` takes.

    Attributes:
        columns: values of the unit's rows, by column.
        column_facts: facts for the card of one column, by column.
        counts: what was counted (mended captions, ...).
        seconds: wall seconds by part; parts that ran ahead overlap with the teachers'.
    """

    columns: dict[str, pa.Array]
    column_facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Gathering:
    """Collects the answers of a unit's batches."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.ledger = Ledger()
        self._answers: list[Answer] = []

    def add(self, batch: Batch) -> None:
        """Ask the teachers about a batch and keep what they say."""
        for part, seconds in batch.seconds.items():
            self.ledger.add(part, seconds)
        self._answers.append(self.phase.ask(batch, self.ledger))

    def result(self) -> UnitResult:
        """Return the unit's columns."""
        result = UnitResult({})
        with self.ledger.time("encode"):
            for column in self.phase.cards:
                values = [answer.columns[column] for answer in self._answers]
                result.columns[column] = self.phase.encode(column, values)
        for answer in self._answers:
            add_counts(result.counts, answer.counts)
            result.column_facts = merge_facts(result.column_facts, answer.column_facts)
        result.seconds = self.ledger.seconds
        return result


def run_unit(
    phase: Phase, store: Store, rows: np.ndarray, batches: Iterable[Batch] | None = None
) -> UnitResult:
    """Compute the columns of a phase for some rows.

    Args:
        phase: what to compute.
        store: where the rows are.
        rows: increasing row numbers.
        batches: the rows as `phase.read` prepares them, when something else runs it ahead.
    """
    gathering = Gathering(phase)
    for batch in batches if batches is not None else phase.read(store, rows):
        gathering.add(batch)
    return gathering.result()


def compute_unit(
    store: Store,
    config: ReinforceConfig,
    phase: str,
    start: int,
    stop: int,
    teachers: Mapping[str, Teacher] | None = None,
) -> UnitResult:
    """Compute rows start..stop of a phase from nothing but store, configuration and teachers.

    It is what a worker of a cluster runs: whoever calls it with the same arguments gets the same
    columns.

    Args:
        store: where the rows are; only read.
        config: the reinforcement.
        phase: name of the phase (`captions`, `views`, `texts`).
        start: first row.
        stop: row after the last one.
        teachers: ready-made teachers by name; made from the configuration when absent.

    Raises:
        ConfigError: the configuration has no such phase.
    """
    from understudy.reinforce.phases import chosen_rows, find_phases

    rows = chosen_rows(store, config)
    found = {p.name: p for p in find_phases(store, config, teachers, everything=True)}
    if phase not in found:
        raise ConfigError(
            f"there is no phase '{phase}' to compute; this configuration has "
            f"{', '.join(found) or 'none'}."
        )
    return run_unit(found[phase], store, rows[(rows >= start) & (rows < stop)])
