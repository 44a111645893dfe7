"""Check a reinforcement: replay stored views, ask the teachers again, compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from understudy.core.errors import CardError, UnderstudyError
from understudy.core.progress import Ledger
from understudy.data.knowledge import decode_embeddings, decode_topk, view_column
from understudy.data.view_verify import verify_views
from understudy.reinforce.cast import gather
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import Answer, Phase
from understudy.reinforce.phases import Phases
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.texts_phase import TextsPhase
from understudy.reinforce.views_phase import ViewsPhase, checked_rows

if TYPE_CHECKING:
    from understudy.data.store import Store

RELATIVE = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 0.0}
"""Twice the rounding of the storage types: the teacher's own last bits move too."""
ABSOLUTE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 4e-3}
"""What other batches or libraries may change in a unit vector, by the teacher's arithmetic."""


def verify(
    store: Store,
    config: ReinforceConfig,
    *,
    teachers: Mapping[str, Teacher] | None = None,
) -> list[str]:
    """Replay the checked sample of views and ask the teachers about `verify_rows` rows again.

    Args:
        store: a reinforced store.
        config: the configuration it was reinforced with.
        teachers: ready-made teachers by name.

    Returns:
        one sentence a problem; empty when everything replays. Captions are not written again, but
        their embeddings are compared.

    Raises:
        ConfigError: the configuration cannot be used at all.
    """
    cast = gather(config, teachers)
    phases = Phases(store, config, cast)
    problems: list[str] = []
    if cast.looks and any(
        store.has(view_column(config.view_set, k)) for k in range(config.num_views)
    ):
        problems += verify_views(store, config.view_set, image=config.image_column)
    spread = np.linspace(0, len(phases.rows) - 1, config.verify_rows).round().astype(np.int64)
    sample = np.union1d(
        checked_rows(phases.rows)[: config.verify_rows], phases.rows[np.unique(spread)]
    )[: config.verify_rows]
    for make in phases.makers():
        phase = make()
        if isinstance(phase, ViewsPhase | TextsPhase):
            problems += _verify_phase(store, phase, phases, sample)
    return problems


def _verify_phase(
    store: Store, phase: ViewsPhase | TextsPhase, phases: Phases, rows: np.ndarray
) -> list[str]:
    problems, columns = [], []
    by_name = {t.name: t for t in (*phases.cast.image, *phases.cast.classifiers, *phases.cast.text)}
    for column, card in phase.cards.items():
        if not store.has(column):
            problems.append(f"{column}: not written yet; run reinforce.")
            continue
        stored = store.card(column)
        try:
            stored.check_same_writer(card)
        except CardError as error:
            problems.append(str(error))
            continue
        if not store.filled(column)[rows].all():
            lacking = int((~store.filled(column)[phases.rows]).sum())
            problems.append(f"{column}: {lacking} of the chosen rows are open; run reinforce.")
            continue
        if not column.startswith("view."):
            columns.append(column)
    if not columns:
        return problems
    try:
        answers = _ask_again(store, phase.only(columns), rows)
    except UnderstudyError as error:
        return [*problems, str(error)]
    for column in columns:
        teacher = by_name.get(phase.cards[column].facts.get("teacher", ""))
        fresh = np.concatenate([np.asarray(a.columns[column]) for a in answers])
        problems += _compare(store, column, fresh, rows, teacher, phases.config)
    return problems


def _ask_again(store: Store, phase: Phase, rows: np.ndarray) -> list[Answer]:
    return [phase.ask(batch, Ledger()) for batch in phase.read(store, rows)]


def _compare(
    store: Store,
    column: str,
    fresh: np.ndarray,
    rows: np.ndarray,
    teacher: Teacher | None,
    config: ReinforceConfig,
) -> list[str]:
    """Compare what a teacher says now with what is stored, a sentence for the worst row."""
    card, stored = store.card(column), store.array(column, rows)
    slack = ABSOLUTE[teacher.compute if teacher is not None else "float32"]
    if "dtype" in card.config:
        old = decode_embeddings(stored, card.config)
        limit = RELATIVE[card.config["dtype"]] * np.abs(fresh) + slack
        off = np.abs(fresh - old)
    else:
        old = _dense(*decode_topk(stored), card.config["classes"])
        new = _dense(fresh[:, 0], fresh[:, 1].astype(np.int64), card.config["classes"])
        # a class at the border of the K may come or go: compare what both kept
        both = (old > 0) & (new > 0)
        off = np.where(both, np.abs(new - old), 0.0)
        limit = RELATIVE["float16"] * new + slack
        lost = ((new > 0) & ~both).sum(axis=1) > max(1, config.topk // 2)
        off[lost] = np.inf
    over = (off > limit).reshape(len(rows), -1).any(axis=1)
    if not over.any():
        return []
    i = int(np.argmax(over))
    return [
        f"{column}: {int(over.sum())} of {len(rows)} rows differ from what the teacher says now, "
        f"first row {int(rows[i])} by {float(off.reshape(len(rows), -1)[i].max()):.3g}: the "
        "embedding belongs to another view, text or teacher, or the libraries changed "
        f"({card.backend})."
    ]


def _dense(values: np.ndarray, ids: np.ndarray, classes: int) -> np.ndarray:
    out = np.zeros((len(values), int(classes)), np.float32)
    np.put_along_axis(out, ids, values.astype(np.float32), axis=1)
    return out
