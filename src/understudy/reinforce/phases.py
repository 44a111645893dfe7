"""From a configuration and a store to the phases that are left to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import CardError, DataError
from understudy.data.card import Card
from understudy.data.knowledge import (
    caption_column,
    caption_columns,
    captions_column,
    image_column,
    text_column,
    topk_column,
    view_column,
)
from understudy.data.views import ViewPipeline
from understudy.reinforce.captions_phase import CaptionsPhase
from understudy.reinforce.cast import (
    Cast,
    caption_names,
    check_classes,
    check_payload,
    gather,
)
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import WRITER, Phase
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.texts_phase import TextsPhase
from understudy.reinforce.views_phase import ViewsPhase

if TYPE_CHECKING:
    from understudy.data.store import Store


def chosen_rows(store: Store, config: ReinforceConfig) -> np.ndarray:
    """Return the row numbers that a configuration reinforces.

    Raises:
        DataError: its filter matches no row.
    """
    if not config.rows:
        rows = np.arange(store.num_rows, dtype=np.int64)
    else:
        rows = store.where(config.rows)
    if not store.num_rows:
        raise DataError(f"{store.path}: the store has no rows; import some first.")
    if not len(rows):
        payload = ", ".join(c for c in store.columns if c not in store.cards)
        raise DataError(
            f'rows: "{config.rows}" matches none of the {store.num_rows} rows of {store.path}; '
            f"loosen the filter (columns: {payload})."
        )
    return rows


class Phases:
    """The phases of a reinforcement, in order; each is made when the one before is committed.

    Args:
        store: what is reinforced.
        config: the reinforcement.
        cast: its teachers.
    """

    def __init__(self, store: Store, config: ReinforceConfig, cast: Cast) -> None:
        self.store, self.config, self.cast = store, config, cast
        self.rows = chosen_rows(store, config)
        self.own_texts = check_payload(store, config, cast)
        check_classes(cast, store, config)
        self.captioners = caption_names(store, config, cast)
        self._check_views()

    def _check_views(self) -> None:
        """Refuse stored views of another configuration before anybody is asked anything."""
        if self.config.overwrite or not self.cast.looks:
            return
        pipeline = ViewPipeline(self.config.views)
        for k in range(self.config.num_views):
            column = view_column(self.config.view_set, k)
            if self.store.has(column):
                card = self.store.card(column)
                pipeline.check_card(card)
                if card.writer == WRITER and card.seed != self.config.seed:
                    raise CardError(
                        f"column '{column}' was drawn with seed {card.seed}, the configuration "
                        f"says {self.config.seed}: use the stored seed, another view_set, or "
                        "overwrite."
                    )

    def _keeps(self, column: str) -> bool:
        """Whether a stored view column is the one that the configuration describes."""
        if not self.store.has(column):
            return False
        if not self.config.overwrite:
            return True
        card = self.store.card(column)
        same = ViewPipeline.from_card(card).config.hash == self.config.views.hash
        return same and (card.writer != WRITER or card.seed == self.config.seed)

    def _views(self) -> ViewsPhase | None:
        config = self.config
        if not self.cast.looks:
            return None
        ks = range(config.num_views)
        columns = {k: view_column(config.view_set, k) for k in ks}
        fresh, seeds = [], dict.fromkeys(ks, config.seed)
        for k in ks:
            if not self._keeps(columns[k]):
                fresh.append(k)
                continue
            seeds[k] = self.store.card(columns[k]).seed
            if not self.store.filled(columns[k])[self.rows].all():
                fresh.append(k)  # rows came later: the others are kept, these are drawn
        return ViewsPhase(
            config,
            ks,
            self.cast.image,
            self.cast.classifiers,
            fresh=fresh,
            rows=self.rows,
            seeds=seeds,
        )

    def _texts(self) -> TextsPhase | None:
        if not (self.cast.text and (self.own_texts or self.captioners)):
            return None
        counts: dict[str, int] = {}
        cards: dict[str, Card | None] = {}
        for captioner in self.captioners:
            column = captions_column(captioner)
            if not self.store.has(column):
                return None  # written by this run, but not yet: see `everything`
            cards[captioner] = self.store.cards.get(column)
            counts[captioner] = self._stored_captions(captioner)
            if not counts[captioner]:
                raise DataError(
                    f"row {int(self.rows[0])} has no captions of '{captioner}'; write them for "
                    "all chosen rows, or leave the captioner out with caption_columns."
                )
        return TextsPhase(
            self.config,
            self.cast.text,
            own=self.own_texts,
            captions=counts,
            caption_cards=cards,
        )

    def _stored_captions(self, captioner: str) -> int:
        """Return how many captions the first chosen row has."""
        column = captions_column(captioner)
        return len(self.store.take(self.rows[:1], [column]).column(0).to_pylist()[0] or ())

    def caption_counts(self) -> dict[str, int]:
        """Return captions a row, stored or to be written, by captioner that is embedded."""
        own = {c.name for c in self.cast.captioners}
        return {
            name: self.config.captions
            if name in own or not self.store.has(captions_column(name))
            else self._stored_captions(name)
            for name in self.captioners
        }

    def stale_columns(self) -> list[str]:
        """Return embeddings of captions that rows no longer have: `overwrite` wrote fewer.

        The last comes first: a killed clean-up leaves no gap behind which one could hide.
        """
        if not self.config.overwrite:
            return []
        found: list[str] = []
        for captioner, count in self.caption_counts().items():
            for teacher in self.cast.text:
                there = caption_columns(self.store.cards, teacher.name, captioner)
                found += reversed(there[count:])
        return found

    def columns(self) -> list[str]:
        """Return all columns that the configuration asks for, in the order of writing."""
        config, cast = self.config, self.cast
        found = [captions_column(c.name) for c in cast.captioners]
        for k in range(config.num_views if cast.looks else 0):
            found.append(view_column(config.view_set, k))
            found += [image_column(t.name, config.view_set, k) for t in cast.image]
            found += [topk_column(t.name, config.view_set, k) for t in cast.classifiers]
        counts = self.caption_counts() if cast.text else {}
        for teacher in cast.text:
            found += [text_column(teacher.name)] if self.own_texts else []
            for captioner, count in counts.items():
                found += [caption_column(teacher.name, captioner, s) for s in range(count)]
        return found

    def makers(self) -> list[Any]:
        """Return functions that make the phases, in the order in which they must run."""
        return [self._captions, self._views, self._texts]

    def _captions(self) -> CaptionsPhase | None:
        if not self.cast.captioners:
            return None
        has_text = self.store.has(self.config.text_column)
        return CaptionsPhase(self.config, self.cast.captioners, has_text=has_text)

    def _open(self, column: str, card: Card) -> np.ndarray:
        """Return bool, true for the chosen rows that a column still lacks."""
        everything = np.ones(len(self.rows), bool)
        if not self.store.has(column):
            return everything
        found = self.store.cards.get(column)
        if found is None:
            raise CardError(
                f"column '{column}' came with the rows and has no card; rename it, or give the "
                "teacher another name."
            )
        if found.identity() != card.identity():
            if not self.config.overwrite:
                found.check_same_writer(card)
            return everything
        return ~self.store.filled(column)[self.rows]

    def jobs(self) -> Iterator[Phase]:
        """Yield phases cut to columns that lack the same rows; views come first."""
        for make in self.makers():
            phase = make()
            while phase is not None:
                groups: dict[bytes, list[str]] = {}
                for column, card in phase.cards.items():
                    lacking = self._open(column, card)
                    if lacking.any():
                        groups.setdefault(lacking.tobytes(), []).append(column)
                if not groups:
                    break
                drawing = [g for g in groups.values() if any(c.startswith("view.") for c in g)]
                yield phase.only((drawing or list(groups.values()))[0])
                self.store.refresh()
                phase = make()


def find_phases(
    store: Store,
    config: ReinforceConfig,
    teachers: Mapping[str, Teacher] | None = None,
    *,
    everything: bool = False,
) -> list[Phase]:
    """Return the phases of a configuration.

    Args:
        store: what is reinforced.
        config: the reinforcement.
        teachers: ready-made teachers by name.
        everything: with all columns, done or not; else cut to those that lack rows now.
    """
    phases = Phases(store, config, gather(config, teachers))
    if everything:
        return [phase for phase in (make() for make in phases.makers()) if phase is not None]
    found = []
    for make in phases.makers():
        phase = make()
        if phase is not None:
            lacking = [c for c, card in phase.cards.items() if phases._open(c, card).any()]
            if lacking:
                found.append(phase.only(lacking))
    return found
