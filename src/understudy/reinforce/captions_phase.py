"""Synthetic captions of plain images: written, and mended where they are empty or repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.progress import Ledger
from understudy.core.provenance import versions
from understudy.core.seeds import seed_for
from understudy.data.card import Card
from understudy.data.decode import decode
from understudy.data.knowledge import captions_column
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import (
    Answer,
    Batch,
    add_counts,
    labels,
    row_blocks,
    teacher_card,
)
from understudy.reinforce.prefetch import ordered_map
from understudy.reinforce.teachers.base import Teacher

if TYPE_CHECKING:
    from understudy.data.store import Store


class CaptionsPhase:
    """The columns of the captioners.

    Args:
        config: the reinforcement.
        captioners: who writes.
        has_text: whether samples have texts of their own to fall back on.
    """

    name = "captions"

    def __init__(
        self, config: ReinforceConfig, captioners: Sequence[Teacher], *, has_text: bool
    ) -> None:
        self.config, self.captioners, self.has_text = config, list(captioners), has_text
        self.cards: dict[str, Card] = {}
        self.types: dict[str, pa.DataType] = {}
        found = versions()
        for captioner in self.captioners:
            column = captions_column(captioner.name)
            plan = {
                "captions": config.captions,
                "empty": config.empty_captions,
                "retries": config.caption_retries,
                "image": config.image_column,
            }
            self.cards[column] = teacher_card(column, captioner, plan, config.seed, found)
            self.types[column] = pa.list_(pa.string())

    def only(self, columns: Sequence[str]) -> CaptionsPhase:
        """Keep some of the columns."""
        self.cards = {c: self.cards[c] for c in columns}
        self.types = {c: self.types[c] for c in columns}
        return self

    @property
    def rows_per_batch(self) -> int:
        """Images whose captions make one batch of at most `batch_size` captions."""
        return max(1, self.config.batch_size // self.config.captions)

    def read(self, store: Store, rows: np.ndarray) -> Iterator[Batch]:
        """Decode the plain images."""
        columns = ["id", self.config.image_column]
        columns += [self.config.text_column] if self.has_text else []

        def groups() -> Iterator[Batch]:
            for block in row_blocks(rows, self.rows_per_batch):
                batch = Batch(block, [], {})
                with batch.time("read"):
                    table = store.take(block, columns)
                data: dict[str, Any] = {"images": table.column(1).to_pylist()}
                texts = table.column(2).to_pylist() if self.has_text else [""] * len(block)
                data["texts"] = [text or "" for text in texts]
                batch.ids, batch.data = table.column(0).to_pylist(), data
                yield batch

        def make(batch: Batch) -> Batch:
            with batch.time("decode"):
                names = labels(batch.rows, batch.ids)
                pairs = zip(batch.data["images"], names, strict=True)
                batch.data["images"] = [decode(data, name=name) for data, name in pairs]
            return batch

        yield from ordered_map(make, groups(), self.config.threads)

    def ask(self, batch: Batch, ledger: Ledger) -> Answer:
        """Have every captioner describe the images."""
        answer = Answer({})
        for captioner in self.captioners:
            column = captions_column(captioner.name)
            if column not in self.cards:
                continue
            with ledger.time(f"captioner {captioner.name}"):
                texts, counts = self._write(captioner, batch)
            answer.columns[column] = texts
            add_counts(answer.counts, {f"{captioner.name}: {k}": v for k, v in counts.items()})
            if counts:
                unit = {str(int(batch.rows[0])): counts}
                answer.column_facts[column] = {"mended": unit}
        return answer

    def _write(self, captioner: Teacher, batch: Batch) -> tuple[list[list[str]], dict[str, int]]:
        config = self.config
        kept: list[list[str]] = [[] for _ in batch.ids]
        repeats: list[list[str]] = [[] for _ in batch.ids]
        counts = {"empty": 0, "repeated": 0, "replaced": 0}
        for attempt in range(config.caption_retries + 1):
            short = [i for i, texts in enumerate(kept) if len(texts) < config.captions]
            if not short:
                break
            images = [batch.data["images"][i] for i in short]
            seeds = [
                seed_for("captions", config.seed, captioner.name, batch.ids[i], attempt)
                for i in short
            ]
            for i, texts in zip(
                short, captioner.caption(images, config.captions, seeds), strict=True
            ):
                for text in (t.strip() for t in texts):
                    if len(kept[i]) == config.captions:
                        break
                    if not text:
                        counts["empty"] += 1
                    elif text in kept[i]:
                        counts["repeated"] += 1
                        repeats[i].append(text)
                    else:
                        kept[i].append(text)
        for i, texts in enumerate(kept):
            missing = config.captions - len(texts)
            texts += repeats[i][:missing]
            missing = config.captions - len(texts)
            if missing:
                counts["replaced"] += missing
                self._replace(texts, missing, captioner, batch, i)
        return kept, {key: value for key, value in counts.items() if value}

    def _replace(
        self, texts: list[str], missing: int, captioner: Teacher, batch: Batch, i: int
    ) -> None:
        """Fill up a row's captions with its own text, or with its other captions."""
        own = batch.data["texts"][i].strip()
        others = list(texts)
        if self.config.empty_captions == "drop" and others:
            texts += [others[j % len(others)] for j in range(missing)]
        elif own:
            texts += [own] * missing
        elif others:
            texts += [others[j % len(others)] for j in range(missing)]
        else:
            name = labels([int(batch.rows[i])], [batch.ids[i]])[0]
            raise DataError(
                f"{name}: captioner '{captioner.name}' wrote nothing in "
                f"{self.config.caption_retries + 1} tries and the row has no text to fall back on; "
                "leave it out with 'rows'."
            )

    def encode(self, column: str, values: list[Any]) -> pa.Array:
        """Return lists of strings as a column."""
        return pa.array([row for part in values for row in part], pa.list_(pa.string()))
