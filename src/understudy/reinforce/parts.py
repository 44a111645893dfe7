"""Parts of a phase: what one kind of worker computes, told as plain data and made again there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from socket import gethostname
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import CardError, ConfigError
from understudy.core.hashing import hash_data
from understudy.data.knowledge import captions_column, image_column, topk_column
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.fill import Work, unit_facts
from understudy.reinforce.phase_base import Phase
from understudy.reinforce.prefetch import prefetch
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.unit import run_unit

if TYPE_CHECKING:
    from understudy.data.store import Store, Unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Columns of a phase that one kind of worker fills, with what it needs to make the phase again.

    Attributes:
        store: absolute path or URL.
        storage_options: of an object store.
        config: the reinforcement as plain data, with the teachers of this part alone.
        phase: name of the phase.
        columns: which of its columns.
        ks: stored views that are made together, for the phase of views.
        fresh: those of them that are drawn; the others are replayed.
        asked: names of those who are asked, as the configuration or the caller gives them.
        unit_rows: rows of a unit.
        identities: hash of each column's card.
    """

    store: str
    storage_options: dict[str, str] | None
    config: dict[str, Any]
    phase: str
    columns: tuple[str, ...]
    ks: tuple[int, ...]
    fresh: tuple[int, ...]
    asked: tuple[str, ...]
    unit_rows: int
    identities: dict[str, str]


def cut(
    phase: Phase, columns: Sequence[str], ks: Sequence[int] = (), fresh: Sequence[int] = ()
) -> Phase:
    """Return a phase with some of the columns and the very batches that the whole phase has.

    Args:
        phase: as it is or was found.
        columns: which to keep.
        ks: views that are made together.
        fresh: those of them that are drawn, whether their records are among the columns or not.
    """
    part: Any = copy.copy(phase)
    part.cards = {c: phase.cards[c] for c in columns}
    part.types = {c: phase.types[c] for c in columns}
    if hasattr(phase, "ks"):
        part.ks, part.fresh = list(ks), set(fresh)
    return part


def _owners(phase: Phase) -> dict[str, list[str]]:
    """Return columns by whoever is asked for them; view records go with the first."""
    found: dict[str, list[str]] = {}
    whole: Any = phase
    if phase.name == "captions":
        found = {c.name: [captions_column(c.name)] for c in whole.captioners}
    elif phase.name == "texts":
        found = {t.name: [c for c in phase.cards if c.startswith(f"{t.name}.")]
                 for t in whole.teachers}  # fmt: skip
    else:
        view_set = whole.config.view_set
        for column_of, teachers in ((image_column, whole.image), (topk_column, whole.classifiers)):
            for teacher in teachers:
                columns = [column_of(teacher.name, view_set, k) for k in whole.ks]
                found.setdefault(teacher.name, []).extend(columns)
        own = {column for columns in found.values() for column in columns}
        found[next(iter(found))] += [c for c in phase.cards if c not in own]
    kept = {name: [c for c in columns if c in phase.cards] for name, columns in found.items()}
    return {name: columns for name, columns in kept.items() if columns}


def _members(phase: Phase, owners: Sequence[str]) -> set[str]:
    """Return the names in the configuration of those who are asked."""
    whole: Any = phase
    classifiers = getattr(whole, "classifiers", [])
    members = {t.name: [m.name for m in getattr(t, "members", [t])] for t in classifiers}
    return {name for owner in owners for name in {owner, *members.get(owner, [])}}


def split(work: Work, *, apart: bool) -> list[tuple[Part, Phase]]:
    """Return the parts of a phase and their phases here.

    Args:
        work: the phase.
        apart: a part for each teacher, so that a worker holds one model; else all in one, which
            decodes and augments once for all.
    """
    phase: Any = work.phase
    owners = _owners(phase)
    groups = [[name] for name in owners] if apart else [list(owners)]
    path = work.store.path
    ks, fresh = tuple(getattr(phase, "ks", ())), tuple(sorted(getattr(phase, "fresh", ())))
    parts = []
    for group in groups:
        columns = [c for c in phase.cards if any(c in owners[name] for name in group)]
        names = _members(phase, group)
        specs = [s for s in work.config.teachers if s.name in names]
        captioners = [s for s in work.config.captioners if s.name in names]
        asked = {"captioners": captioners} if phase.name == "captions" else {"teachers": specs}
        config = replace(work.config, **{"teachers": (), "captioners": (), **asked})
        mine = cut(phase, columns, ks, fresh)
        part = Part(
            store=path if "://" in path else str(Path(path).absolute()),
            storage_options=work.store._handle.storage_options,
            config=config.to_dict(),
            phase=phase.name,
            columns=tuple(columns),
            ks=ks,
            fresh=fresh,
            asked=tuple(sorted(names)),
            unit_rows=work.unit_rows,
            identities={c: hash_data(mine.cards[c].identity()) for c in columns},
        )
        parts.append((part, mine))
    return parts


class PartWorker:
    """Computes units of a part and leaves them, finished, beside the store.

    Args:
        part: what to compute.
        teachers: ready-made teachers by name; those that the part does not ask are left alone.

    Raises:
        CardError: teachers are others here than where the part was made.
    """

    def __init__(self, part: Part, teachers: Mapping[str, Teacher] | None = None) -> None:
        from understudy.data.store import Store
        from understudy.reinforce.phases import find_phases

        self.part = part
        self.config = ReinforceConfig.from_dict(part.config)
        self.store = Store.open(part.store, storage_options=part.storage_options)
        ready = {n: t for n, t in (teachers or {}).items() if n in part.asked}
        found = find_phases(self.store, self.config, ready, everything=True)
        phases = {phase.name: phase for phase in found}
        if part.phase not in phases:
            raise ConfigError(f"there is no phase '{part.phase}' in {part.store} as it is now.")
        whole = phases[part.phase]
        for column, identity in part.identities.items():
            card = whole.cards.get(column)
            if card is None or hash_data(card.identity()) != identity:
                raise CardError(
                    f"column '{column}': the teacher's weights or settings on {gethostname()} are "
                    "not those of the node that gave out the work; give both the same files."
                )
        self.phase = cut(whole, part.columns, part.ks, part.fresh)

    @property
    def backends(self) -> dict[str, dict[str, Any]]:
        """What computes here, by column, for the cards."""
        return {column: dict(card.backend) for column, card in self.phase.cards.items()}

    def run(self, unit: Unit, rows: np.ndarray) -> dict[str, Any]:
        """Compute a unit and leave it finished; return what it took.

        Args:
            unit: which.
            rows: its rows that are to be computed, increasing row numbers.
        """
        return stage_unit(
            self.store, self.phase, unit, rows, self.part.unit_rows, self.config.overwrite
        )


def stage_unit(
    store: Store, phase: Phase, unit: Unit, rows: np.ndarray, unit_rows: int, overwrite: bool
) -> dict[str, Any]:
    """Compute some rows of a phase and keep them, finished, beside the store; see `unit_facts`."""
    began = perf_counter()
    with closing(prefetch(phase.read(store, rows))) as batches:
        result = run_unit(phase, store, rows, batches)
    seconds = perf_counter() - began
    # a job over these rows alone; who commits finds the unit by the columns' cards
    cards = list(phase.cards.values())
    job = store.job(
        cards, phase.types, rows=rows, unit_rows=unit_rows, overwrite=overwrite, resume=False
    )
    job.write(unit, result.columns, seconds=seconds, column_facts=result.column_facts)
    facts = unit_facts(result, seconds)
    facts["seconds"]["write"] = perf_counter() - began - seconds
    return facts
