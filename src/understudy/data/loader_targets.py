"""Teachers' embeddings as a field of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import CardError, ConfigError
from understudy.data.card import Card
from understudy.data.knowledge import (
    caption_column,
    caption_columns,
    image_column,
    text_column,
)
from understudy.data.loader_checks import check_alike, check_caption, check_view
from understudy.data.loader_plan import (
    Binding,
    Plan,
    Want,
    captioners,
    pick_captions,
    pool_name,
)
from understudy.data.loader_read import Cells, vectors


@dataclass(frozen=True, kw_only=True)
class TeacherEmbeddings:
    """Teachers' embeddings: lists of float32 `[B, D_k]`, one a teacher, in the order given.

    Keys are `teacher_images` (of the view that is replayed), `teacher_texts` and
    `teacher_syn_texts` (of the caption that `Captions` picks).

    Attributes:
        teachers: their names.
        images: read embeddings of views.
        texts: read embeddings of the samples' own texts.
        captions: captioner, or captioners as in `Captions`, whose captions' embeddings are read;
            None for none.
        view_set: set of the views; left out, the one that `Images` replays.
        dims: width that each teacher's embeddings must have; empty takes any.
        dtype: storage that they must have; None takes any.
        fingerprints: hash of the weights that each teacher must have; empty takes any.
        shuffle_targets: give every row the targets of another row, by one fixed permutation of the
            rows that the sampler draws: a control.
    """

    teachers: Sequence[str]
    images: bool = True
    texts: bool = True
    captions: str | Sequence[str] | None = None
    view_set: str | None = None
    dims: Sequence[int] = ()
    dtype: str | None = None
    fingerprints: Sequence[str] = ()
    shuffle_targets: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.teachers, str) or not self.teachers:
            raise ConfigError(
                f"TeacherEmbeddings.teachers: expected a list of names, got {self.teachers!r}."
            )
        for name in ("dims", "fingerprints"):
            given = getattr(self, name)
            if given and len(given) != len(self.teachers):
                raise ConfigError(
                    f"TeacherEmbeddings.{name}: {len(given)} values for {len(self.teachers)} "
                    "teachers: give one each."
                )
        if not (self.images or self.texts or self.captions):
            raise ConfigError("TeacherEmbeddings: nothing to read; set images, texts or captions.")

    def bind(self, binding: Binding) -> EmbeddingReader:
        """Check every card and return the reader."""
        if binding.p < 1.0 and self.images:
            raise ConfigError(
                f"p is {binding.p}: a plain image has no stored embedding to imitate; set p=1, or "
                "use TopK, whose target is one-hot then."
            )
        return EmbeddingReader(self, binding)


class _Column:
    """One kind of embedding of one teacher: where it is and how it is read."""

    def __init__(self, key: str, view: bool = False, pool: str | None = None) -> None:
        self.key, self.view, self.pool = key, view, pool
        self.names: dict[int, str] = {}
        """Column by view or by caption; {0: ...} for the samples' own texts."""
        self.config: dict[str, Any] = {}


class EmbeddingReader:
    """`TeacherEmbeddings`, bound to a store."""

    def __init__(self, field: TeacherEmbeddings, binding: Binding) -> None:
        self.field, self.binding = field, binding
        self.parts: list[list[_Column]] = []
        keys: list[str] = []
        if field.images:
            view_set = binding.require_set(field.view_set, "TeacherEmbeddings")
            self.parts.append([self._images(t, view_set) for t in field.teachers])
            keys.append("teacher_images")
        if field.texts:
            self.parts.append([self._texts(t) for t in field.teachers])
            keys.append("teacher_texts")
        if field.captions is not None:
            self.parts.append([self._captions(t, field.captions) for t in field.teachers])
            keys.append("teacher_syn_texts")
        self.keys = tuple(keys)
        self.columns = tuple(n for part in self.parts for c in part for n in c.names.values())
        self.other = binding.shuffled(binding.store.num_rows) if field.shuffle_targets else None

    def _expected(self, teacher: str) -> dict[str, Any]:
        i = list(self.field.teachers).index(teacher)
        expected: dict[str, Any] = {"dtype": self.field.dtype}
        if self.field.fingerprints:
            expected["fingerprint"] = self.field.fingerprints[i]
        return expected

    def _width(self, teacher: str) -> int | None:
        if not self.field.dims:
            return None
        return int(self.field.dims[list(self.field.teachers).index(teacher)])

    def _vector(self, teacher: str, column: str) -> Card:
        """Check the card of a column with one vector a row and return it."""
        width = self._width(teacher)
        shape = None if width is None else [width]
        return self.binding.card(column, shape=shape, **self._expected(teacher))

    def _images(self, teacher: str, view_set: str) -> _Column:
        part = _Column("teacher_images", view=True)
        for k in self.binding.views:
            column = image_column(teacher, view_set, k)
            if not self.binding.store.has(column):
                have = [c for c in self.binding.store.columns if c.startswith(f"{teacher}.image.")]
                raise CardError(
                    f"teacher '{teacher}' has no embeddings of view {k} of set '{view_set}' "
                    f"(column '{column}'); it has {', '.join(have[:4]) or 'none'}: reinforce with "
                    "that teacher, or ask for fewer views."
                )
            card = self._vector(teacher, column)
            check_view(self.binding, card, view_set, k)
            config = card.config
            if part.config and config["shape"] != part.config["shape"]:
                raise CardError(
                    f"column '{column}' has embeddings of shape {config['shape']}, the views "
                    f"before it {part.config['shape']}: reinforce that view again."
                )
            part.names[k], part.config = column, config
        return part

    def _texts(self, teacher: str) -> _Column:
        part = _Column("teacher_texts")
        part.names[0] = text_column(teacher)
        part.config = self._vector(teacher, part.names[0]).config
        return part

    def _captions(self, teacher: str, given: str | Sequence[str]) -> _Column:
        part = _Column("teacher_syn_texts", pool=pool_name(given))
        for captioner in captioners(given):
            columns = caption_columns(self.binding.store.columns, teacher, captioner)
            num = self.binding.nums.get(pool_name(given), 0)
            if num > len(columns):
                raise CardError(
                    f"teacher '{teacher}' has embeddings of {len(columns)} captions of "
                    f"'{captioner}', asked for {num}: use at most these, or embed more."
                )
            before: dict[str, Any] = {}
            # Without any, the first one is missing, and the error says so.
            used = columns[: num or None] or [caption_column(teacher, captioner, 0)]
            for s, column in enumerate(used):
                config = self._vector(teacher, column).config
                check_caption(column, config, captioner, s, before)
                check_alike(column, config, part.config)
                part.names[len(part.names)] = column
                before, part.config = config, config
            count = len(columns)
            known = self.binding.counts.setdefault(captioner, count)
            if known != count:
                raise CardError(
                    f"teacher '{teacher}' has embeddings of {count} captions of '{captioner}', "
                    f"another one of {known}: embed the captions again with both."
                )
        return part

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the columns of the views and captions in use."""
        rows = None if self.other is None else self.other[plan.rows]
        return [
            Want(column.names[k], places, rows)
            for part in self.parts
            for column in part
            for k, places in self._groups(plan, column)
        ]

    def _groups(self, plan: Plan, column: _Column) -> list[tuple[int, np.ndarray | None]]:
        if column.view:
            return plan.by_view()
        if column.pool is None or len(column.names) == 1:
            return [(0, None)]
        counts = np.full(len(plan.rows), len(column.names), np.int64)
        pick = self.binding.picks.get(column.pool, "random")
        picked = pick_captions(plan, column.pool, pick, counts)
        kinds = np.unique(picked)
        if len(kinds) == 1:
            return [(int(kinds[0]), None)]
        return [(int(s), np.flatnonzero(picked == s)) for s in kinds]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Return lists of float32 `[B, D_k]`."""
        out: dict[str, Any] = {key: [] for key in self.keys}
        at = 0
        for part in self.parts:
            for column in part:
                groups = self._groups(plan, column)
                found = got[at : at + len(groups)]
                at += len(groups)
                out[column.key].append(self._read(plan, column, groups, found))
        return out

    def _read(
        self,
        plan: Plan,
        column: _Column,
        groups: list[tuple[int, np.ndarray | None]],
        found: list[Cells],
    ) -> np.ndarray:
        out = None
        for (_, places), cells in zip(groups, found, strict=True):
            values = vectors(cells.numpy(), column.config)
            if places is None:
                return values
            if out is None:
                out = np.empty((len(plan.rows), *values.shape[1:]), np.float32)
            out[places] = values
        assert out is not None
        return out

    def describe(self) -> dict[str, Any]:
        """Return teachers and what is read of them."""
        field = self.field
        return {
            "teachers": list(field.teachers),
            "keys": list(self.keys),
            "captions": None if field.captions is None else pool_name(field.captions),
            "shuffle_targets": field.shuffle_targets,
        }
