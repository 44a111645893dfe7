"""What teachers say about texts: the samples' own and the captions of their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.core.progress import Ledger
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.knowledge import (
    caption_column,
    captions_column,
    embedding_config,
    embedding_type,
    encode_embeddings,
    text_column,
)
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import (
    Answer,
    Batch,
    labels,
    row_blocks,
    teacher_card,
)
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Store


class TextsPhase:
    """Text embeddings and caption embeddings.

    Args:
        config: the reinforcement.
        teachers: who embeds.
        own: whether the samples have texts of their own.
        captions: captions an image, by captioner.
        caption_cards: the captions' cards, by captioner; part of what identifies their embeddings.
    """

    name = "texts"

    def __init__(
        self,
        config: ReinforceConfig,
        teachers: Sequence[Teacher],
        *,
        own: bool,
        captions: Mapping[str, int],
        caption_cards: Mapping[str, Card | None],
    ) -> None:
        self.config, self.teachers = config, list(teachers)
        self.own, self.captions = own, dict(captions)
        self.cards: dict[str, Card] = {}
        self.types: dict[str, pa.DataType] = {}
        found = versions()
        for teacher in self.teachers:
            dim = teacher.text_dim
            if own:
                plan: dict[str, Any] = {"column": config.text_column}
                self._add(text_column(teacher.name), teacher, [dim], plan, found)
            for captioner, count in self.captions.items():
                card = caption_cards[captioner]
                plan = {"captioner": captioner}
                if card is not None:
                    plan["captions"] = hash_data(card.identity())
                for s in range(count):
                    column = caption_column(teacher.name, captioner, s)
                    self._add(column, teacher, [dim], {**plan, "place": s}, found)

    def _add(
        self,
        column: str,
        teacher: Teacher,
        shape: list[int],
        plan: Mapping[str, Any],
        found: dict[str, str],
    ) -> None:
        config = {**embedding_config(shape, self.config.dtype), **plan}
        self.cards[column] = teacher_card(column, teacher, config, 0, found)
        self.types[column] = embedding_type(shape, self.config.dtype)

    def only(self, columns: Sequence[str]) -> TextsPhase:
        """Keep some of the columns."""
        self.cards = {c: self.cards[c] for c in columns}
        self.types = {c: self.types[c] for c in columns}
        return self

    def read(self, store: Store, rows: np.ndarray) -> Iterator[Batch]:
        """Read texts and captions."""
        teachers = [t.name for t in self.teachers]
        own = self.own and any(text_column(t) in self.cards for t in teachers)
        captioners = [c for c in self.captions if any(self._places(t, c) for t in teachers)]
        columns = ["id", *([self.config.text_column] if own else [])]
        columns += [captions_column(c) for c in captioners]
        for block in row_blocks(rows, self.config.batch_size):
            batch = Batch(block, [], {})
            with batch.time("read"):
                table = store.take(block, columns)
            ids = table.column("id").to_pylist()
            names = labels(block, ids)
            data: dict[str, Any] = {"names": names, "captions": {}}
            if own:
                data["texts"] = table.column(self.config.text_column).to_pylist()
                self._check_texts(data["texts"], names)
            for captioner in captioners:
                found = table.column(captions_column(captioner)).to_pylist()
                self._check_captions(captioner, found, names)
                data["captions"][captioner] = found
            batch.ids, batch.data = ids, data
            yield batch

    def _check_texts(self, texts: Sequence[Any], names: Sequence[str]) -> None:
        for text, name in zip(texts, names, strict=True):
            if text is None:
                raise DataError(
                    f"{name}: '{self.config.text_column}' is empty (null); leave such rows out "
                    "with 'rows', or set text_column."
                )

    def _check_captions(self, captioner: str, found: Sequence[Any], names: Sequence[str]) -> None:
        count = self.captions[captioner]
        for texts, name in zip(found, names, strict=True):
            if texts is None or len(texts) != count:
                given = "none" if texts is None else len(texts)
                raise DataError(
                    f"{name}: {given} captions of '{captioner}', the first row has {count}; every "
                    "row must have as many, so write the captions again."
                )

    def ask(self, batch: Batch, ledger: Ledger) -> Answer:
        """Embed texts and captions with every teacher that a column belongs to."""
        answer = Answer({})
        names = batch.data["names"]
        for teacher in self.teachers:
            column = text_column(teacher.name)
            if column in self.cards:
                with ledger.time(f"teacher {teacher.name}"):
                    answer.columns[column] = self._embed(teacher, batch.data["texts"], names)
            for captioner, rows in batch.data["captions"].items():
                places = self._places(teacher.name, captioner)
                if not places:
                    continue
                texts = [row[s] for row in rows for s in places]
                called = [f"{name}, caption {s}" for name in names for s in places]
                with ledger.time(f"teacher {teacher.name}"):
                    values = self._embed(teacher, texts, called)
                for s, part in zip(
                    places, values.reshape(len(names), len(places), -1).swapaxes(0, 1), strict=True
                ):
                    answer.columns[caption_column(teacher.name, captioner, s)] = part
        return answer

    def _places(self, teacher: str, captioner: str) -> list[int]:
        """Return which captions of a row a teacher is to embed."""
        places = range(self.captions[captioner])
        return [s for s in places if caption_column(teacher, captioner, s) in self.cards]

    def _embed(self, teacher: Teacher, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        size = self.config.batch_size
        parts = [
            teacher.embed_texts(texts[i : i + size], names[i : i + size])
            for i in range(0, len(texts), size)
        ]
        return np.concatenate(parts)

    def encode(self, column: str, values: list[Any]) -> pa.Array:
        """Return embeddings as a column."""
        return encode_embeddings(np.concatenate(values), self.config.dtype)
