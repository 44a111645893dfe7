"""One of a row's synthetic captions as a field of a batch; of one captioner or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.data.knowledge import captions_column
from understudy.data.loader_fields import Tokenize, Tokenizing
from understudy.data.loader_plan import (
    PICKS,
    Binding,
    Plan,
    Want,
    captioners,
    pick_captions,
    pool_name,
    row_name,
)
from understudy.data.loader_read import Cells


def pooled(parts: Sequence[Sequence[Sequence[str]]], num: int = 0) -> list[list[str]]:
    """Return each row's captions of all captioners, one captioner's after another's.

    Args:
        parts: captioners x rows x captions.
        num: how many of each captioner's, the first ones; 0 for all.
    """
    return [
        [text for texts in row for text in (texts[:num] if num else texts)]
        for row in zip(*parts, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Token ids of one synthetic caption of each sample, int64 `[B, context]`.

    `TeacherEmbeddings(captions=...)` of the same captioners gives the embedding of the very caption
    that is picked here.

    Attributes:
        captioner: whose captions; with several, a row's captions are those of all, one captioner's
            after another's.
        tokenize: see `Texts`.
        pick: `"random"` draws from (seed, epoch, row); `"epoch"` gives an epoch one place in the
            list and each place once a cycle.
        num: how many of each captioner's captions to use, the first ones; 0 uses all.
        context: see `Texts`.
        key: name in the batch.
    """

    captioner: str | Sequence[str]
    tokenize: Tokenize
    pick: Literal["random", "epoch"] = "random"
    num: int = 0
    context: int | None = None
    key: str = "syn_texts"

    def __post_init__(self) -> None:
        check_choice(self.pick, PICKS, "Captions.pick")
        if self.num < 0:
            raise ConfigError(f"Captions.num: expected at least 0, got {self.num}.")
        captioners(self.captioner)

    def bind(self, binding: Binding) -> CaptionReader:
        """Return the reader."""
        return CaptionReader(self, binding)


class CaptionReader:
    """`Captions`, bound to a store."""

    def __init__(self, field: Captions, binding: Binding) -> None:
        self.field, self.store = field, binding.store
        self.names = captioners(field.captioner)
        self.pool = pool_name(field.captioner)
        self.keys = (field.key,)
        self.columns = tuple(captions_column(name) for name in self.names)
        for column in self.columns:
            binding.card(column)
        self.counts = binding.counts
        where = f"column '{self.columns[0]}'"
        self.tokenizing = Tokenizing(field.tokenize, field.context, binding.lock, where)

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the captions."""
        return [Want(column) for column in self.columns]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Pick and tokenise; what was cut is counted under `truncated.<key>`."""
        parts = [cells.to_pylist() for cells in got]
        for name, part in zip(self.names, parts, strict=True):
            self._check(plan, name, part)
        lists = pooled(parts, self.field.num)
        counts = np.fromiter((len(texts) for texts in lists), np.int64, len(lists))
        chosen = pick_captions(plan, self.pool, self.field.pick, counts)
        texts = [row[s] for row, s in zip(lists, chosen.tolist(), strict=True)]
        ids, cut = self.tokenizing(texts)
        return {self.field.key: ids, f"truncated.{self.field.key}": cut}

    def _check(self, plan: Plan, name: str, lists: list[list[str]]) -> None:
        """Refuse a row with other captions than are embedded, or with none."""
        counts = np.fromiter((len(texts) for texts in lists), np.int64, len(lists))
        stored = self.counts.get(name)
        least = max(self.field.num, 1)
        wrong = counts != stored if stored is not None else counts < least
        if wrong.any():
            i = int(np.argmax(wrong))
            expected = f"at least {least}" if stored is None else f"{stored}, one an embedding"
            raise DataError(
                f"column '{captions_column(name)}': {row_name(self.store, int(plan.rows[i]))} has "
                f"{counts[i]} captions, expected {expected}: caption and embed that row again."
            )

    def describe(self) -> dict[str, Any]:
        """Return captioners, pick and tokenizer."""
        return {
            "captions": self.pool,
            "pick": self.field.pick,
            "tokenizer": self.tokenizing.describe(),
            **({"num": self.field.num} if self.field.num else {}),
        }
