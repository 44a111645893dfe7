"""Stored top-K probabilities as a field of a batch (arXiv 2303.08983, sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import CardError, DataError
from understudy.data.card import Card
from understudy.data.knowledge import decode_topk, topk_column
from understudy.data.loader_checks import check_view
from understudy.data.loader_plan import Binding, Plan, Want
from understudy.data.loader_read import Cells


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Stored probabilities: `topk_p` float32 `[B, K]` and `topk_id` int64 `[B, K]`.

    Rows that use the plain image (probability 1 - p) get their label as a one-hot target in the
    same form, [1, 0, ...] with K different ids.

    Attributes:
        teacher: name of the teacher, or of the ensemble.
        view_set: set of the views; left out, the one that `Images` replays.
        k: K that must be stored; None takes any.
        keep: how many of the stored probabilities a batch holds, the largest ones; 0 keeps all.
        num_classes: classes that the teacher must know; None takes any.
        fingerprint: hash of the teacher's weights; None takes any.
        label: column of labels, read if p is below 1.
        mark_plain: also give `plain` bool `[B]`, for objectives that need to know
            (`densify="reference-zeros"`).
        shuffle_targets: see `TeacherEmbeddings`.
    """

    teacher: str
    view_set: str | None = None
    k: int | None = None
    keep: int = 0
    num_classes: int | None = None
    fingerprint: str | None = None
    label: str = "label"
    mark_plain: bool = False
    shuffle_targets: bool = False

    def bind(self, binding: Binding) -> TopKReader:
        """Check every card and return the reader."""
        return TopKReader(self, binding)


class TopKReader:
    """`TopK`, bound to a store."""

    def __init__(self, field: TopK, binding: Binding) -> None:
        self.field = field
        self.view_set = binding.require_set(field.view_set, "TopK")
        columns: list[str] = []
        for k in binding.views:
            column = topk_column(field.teacher, self.view_set, k)
            if not binding.store.has(column):
                have = sorted({c.split(".")[0] for c in binding.store.columns if ".topk." in c})
                raise CardError(
                    f"there are no probabilities of teacher '{field.teacher}' for view {k} of set "
                    f"'{self.view_set}' (column '{column}'; teachers with some: "
                    f"{', '.join(have) or 'none'}): reinforce with topk, or ask for fewer views."
                )
            card = binding.card(column, fingerprint=field.fingerprint)
            self._check(column, card.config, binding)
            check_view(binding, without_k(card), self.view_set, k)
            columns.append(column)
        self.one_hot = binding.p < 1.0
        if self.one_hot:
            columns.append(field.label)
        self.columns = tuple(columns)
        self.keys = ("topk_p", "topk_id", *(("plain",) if field.mark_plain else ()))
        self.other = binding.shuffled(binding.store.num_rows) if field.shuffle_targets else None

    def _check(self, column: str, config: dict[str, Any], binding: Binding) -> None:
        stored = binding.store.schema.field(column).type
        width = stored.list_size // 4 if pa.types.is_fixed_size_list(stored) else 0
        if self.field.k is not None and width != self.field.k:
            raise CardError(
                f"column '{column}' holds the {width} largest probabilities, asked for "
                f"{self.field.k}: reinforce with topk={self.field.k}, or ask for {width}."
            )
        if not 0 <= self.field.keep <= max(width, 1):
            raise CardError(
                f"column '{column}' holds the {width} largest probabilities, asked to keep "
                f"{self.field.keep}: reinforce with more, or keep at most {width} (0 for all)."
            )
        classes = config.get("classes")
        if None not in (classes, self.field.num_classes) and classes != self.field.num_classes:
            raise CardError(
                f"column '{column}': the teacher knows {classes} classes, the data set has "
                f"{self.field.num_classes}: use a teacher of the same classes."
            )

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the views' probabilities, and for labels where targets may be one-hot."""
        rows = None if self.other is None else self.other[plan.rows]
        wanted = [
            Want(topk_column(self.field.teacher, self.view_set, k), places, rows)
            for k, places in plan.by_view()
        ]
        if self.one_hot:
            wanted.append(Want(self.field.label))
        return wanted

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Return values and ids."""
        p = ids = None
        for (_, places), column in zip(plan.by_view(), got, strict=False):
            values, classes = decode_topk(column.numpy())
            if places is None:
                p, ids = values, classes
                break
            if p is None or ids is None:
                p = np.empty((len(plan.rows), values.shape[1]), np.float32)
                ids = np.empty(p.shape, np.int64)
            p[places], ids[places] = values, classes
        assert p is not None
        assert ids is not None
        if 0 < self.field.keep < p.shape[1]:
            # Released records are not sorted.
            largest = np.argsort(-p, axis=1, kind="stable")[:, : self.field.keep]
            p, ids = (np.take_along_axis(v, largest, axis=1) for v in (p, ids))
        if self.one_hot and plan.plain.any():
            labels = got[-1].numpy().astype(np.int64)
            p[plan.plain], ids[plan.plain] = one_hot(labels[plan.plain], p.shape[1])
        out: dict[str, Any] = {"topk_p": p, "topk_id": ids}
        if self.field.mark_plain:
            out["plain"] = plan.plain.copy()
        return out

    def describe(self) -> dict[str, Any]:
        """Return the teacher and the controls."""
        return {
            "topk": self.field.teacher,
            "view_set": self.view_set,
            "shuffle_targets": self.field.shuffle_targets,
            **({"keep": self.field.keep} if self.field.keep else {}),
        }


def without_k(card: Card) -> Card:
    """Return a top-K card without its K, which embedding cards call the view."""
    return replace(card, config={n: v for n, v in card.config.items() if n != "k"}, config_hash="")


def one_hot(labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as top-K targets: p = [1, 0, ...], ids = [label, K - 1 other classes]."""
    if len(labels) and labels.min() < 0:
        raise DataError(f"labels: class {int(labels.min())} is negative.")
    p = np.zeros((len(labels), k), np.float32)
    p[:, 0] = 1
    others = np.arange(k - 1)
    ids = np.empty((len(labels), k), np.int64)
    ids[:, 0] = labels
    ids[:, 1:] = others + (others >= labels[:, None])
    return p, ids
