"""Views and what teachers say about them: drawn once, made once, shown to every teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.progress import Ledger
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.knowledge import (
    embedding_config,
    embedding_type,
    encode_embeddings,
    encode_topk,
    fixed_list,
    image_column,
    topk_column,
    topk_type,
    view_column,
)
from understudy.data.views import ViewPipeline
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phase_base import (
    CREATED_BY,
    WRITER,
    Answer,
    Batch,
    teacher_card,
)
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.views_source import ViewSource

if TYPE_CHECKING:
    from understudy.data.store import Store

CHECK_EVERY = 100
"""One row in this many has checksums of its views in their cards."""
MAX_CHECKED = 1000
"""Rows with checksums at most, so that cards stay small on large stores."""


def checked_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows whose views get checksums: 1 % of them, evenly spread, at most 1,000."""
    step = max(CHECK_EVERY, -(-len(rows) // MAX_CHECKED))
    return rows[::step]


def top_k(probabilities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the K largest of float `[N, C]`, largest first, and their ids; ties by id."""
    if k < probabilities.shape[1] // 4:
        part = np.argpartition(-probabilities, k - 1, axis=1)
        least = np.take_along_axis(probabilities, part[:, k - 1 : k], axis=1)
        # ties at the border must not depend on the partition
        masked = np.where(probabilities >= least, probabilities, -1.0)
    else:
        masked = probabilities
    ids = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(probabilities, ids, axis=1), ids


class ViewsPhase:
    """View columns and the columns of everybody who looks at views.

    Args:
        config: the reinforcement.
        ks: which stored views.
        image: teachers that embed.
        classifiers: teachers whose K largest probabilities are kept.
        fresh: which of `ks` are drawn here; the others are replayed from the store.
        rows: all rows that are reinforced; partners of mixed views come from them.
        seeds: of the view columns, by k.
    """

    name = "views"

    def __init__(
        self,
        config: ReinforceConfig,
        ks: Sequence[int],
        image: Sequence[Teacher],
        classifiers: Sequence[Teacher],
        *,
        fresh: Sequence[int],
        rows: np.ndarray,
        seeds: Mapping[int, int],
    ) -> None:
        self.config, self.ks = config, list(ks)
        self.pipeline = ViewPipeline(config.views)
        self.image, self.classifiers = list(image), list(classifiers)
        self.fresh = set(fresh)
        self.rows = rows
        self._checked = {int(r) for r in checked_rows(rows)}
        self._dims = {t.name: t.image_dim for t in self.image}
        self.cards: dict[str, Card] = {}
        self.types: dict[str, pa.DataType] = {}
        found = versions()
        for k in self.ks:
            if k in self.fresh:
                self._plan_view(k, found)
            for teacher in self.image:
                shape = [self._dims[teacher.name]]
                plan = {**embedding_config(shape, config.dtype), **self._at(teacher, k)}
                column = image_column(teacher.name, config.view_set, k)
                self.cards[column] = teacher_card(column, teacher, plan, seeds[k], found)
                self.types[column] = embedding_type(shape, config.dtype)
            for teacher in self.classifiers:
                at = self._at(teacher, k)
                plan = {"k": config.topk, "view": k, "set": config.view_set, "views": at["views"]}
                column = topk_column(teacher.name, config.view_set, k)
                plan["classes"] = teacher.num_classes
                self.cards[column] = teacher_card(column, teacher, plan, seeds[k], found)
                self.types[column] = topk_type(config.topk)

    def _at(self, teacher: Teacher, k: int) -> dict[str, Any]:
        return {"set": self.config.view_set, "k": k, "views": self.config.views.hash}

    def _plan_view(self, k: int, found: dict[str, str]) -> None:
        config = self.config
        column = view_column(config.view_set, k)
        self.cards[column] = Card(
            column=column,
            writer=WRITER,
            config={**config.views.to_dict(), "set": config.view_set, "k": k},
            backend=self.pipeline.backend,
            versions=found,
            seed=config.seed,
            created_by=CREATED_BY,
        )
        self.types[column] = pa.list_(pa.uint8(), self.pipeline.stride)

    def only(self, columns: Sequence[str]) -> ViewsPhase:
        """Keep some of the columns; views that none of them needs are not made."""
        self.cards = {c: self.cards[c] for c in columns}
        self.types = {c: self.types[c] for c in columns}
        self.ks = [k for k in self.ks if any(c.endswith(f".{k}") for c in columns)]
        self.fresh &= {k for k in self.ks if view_column(self.config.view_set, k) in self.cards}
        return self

    @property
    def source(self) -> ViewSource:
        """What makes the views."""
        return ViewSource(self.config, self.ks, self.fresh, self.rows)

    @property
    def rows_per_batch(self) -> int:
        """Rows whose views make one batch."""
        return self.source.rows_per_batch

    def read(self, store: Store, rows: np.ndarray) -> Iterator[Batch]:
        """Make the views `[n * ks, S, S, 3]` of rows, a row's views together."""
        return self.source.read(store, rows)

    def _slices(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.config.batch_size):
            yield slice(start, start + self.config.batch_size)

    def ask(self, batch: Batch, ledger: Ledger) -> Answer:
        """Show the views to every teacher that a column of this phase belongs to."""
        views, names = batch.data["views"], batch.data["names"]
        n, count = len(batch.rows), len(self.ks)
        answer = Answer({})
        for i, k in enumerate(self.ks):
            column = view_column(self.config.view_set, k)
            if column in self.cards:
                answer.columns[column] = self.pipeline.pack(batch.data["params"][:, i])
        for teacher in self.image:
            wanted = self._wanted(teacher, image_column)
            if wanted:
                with ledger.time(f"teacher {teacher.name}"):
                    parts = [
                        teacher.embed_images(views[s], names[s]) for s in self._slices(len(views))
                    ]
                values = np.concatenate(parts).reshape(n, count, -1)
                for i, column in wanted:
                    answer.columns[column] = values[:, i]
        for teacher in self.classifiers:
            wanted = self._wanted(teacher, topk_column)
            if wanted:
                with ledger.time(f"teacher {teacher.name}"):
                    parts = [teacher.classify(views[s], names[s]) for s in self._slices(len(views))]
                kept, ids = top_k(np.concatenate(parts), self.config.topk)
                both = np.stack([kept, ids.astype(kept.dtype)], axis=1)
                both = both.reshape(n, count, 2, -1)
                for i, column in wanted:
                    answer.columns[column] = both[:, i]
        with ledger.time("checksums"):
            answer.column_facts = self._fingerprints(
                batch, views.reshape(n, count, *views.shape[1:])
            )
        return answer

    def _wanted(self, teacher: Teacher, column_of: Any) -> list[tuple[int, str]]:
        named = [
            (i, column_of(teacher.name, self.config.view_set, k)) for i, k in enumerate(self.ks)
        ]
        return [(i, column) for i, column in named if column in self.cards]

    def _fingerprints(self, batch: Batch, views: np.ndarray) -> dict[str, dict[str, Any]]:
        facts: dict[str, dict[str, Any]] = {}
        for j, row in enumerate(batch.rows.tolist()):
            if row not in self._checked:
                continue
            for i, k in enumerate(self.ks):
                column = view_column(self.config.view_set, k)
                if column in self.cards:
                    found = self.pipeline.fingerprints([row], views[j, i : i + 1])
                    known = facts.setdefault(column, {})
                    for key, value in found.items():
                        known.setdefault(key, {}).update(value)
        return facts

    def encode(self, column: str, values: list[Any]) -> pa.Array:
        """Return packed records, embeddings or top-K bytes as a column."""
        joint = np.concatenate(values)
        kind = self.types[column]
        if column.startswith("view."):
            return fixed_list(joint)
        if kind == topk_type(self.config.topk) and joint.ndim == 3:
            return encode_topk(joint[:, 0], joint[:, 1].astype(np.int64))
        return encode_embeddings(joint, self.config.dtype)
