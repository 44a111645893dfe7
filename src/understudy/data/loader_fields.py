"""Fields of a batch that are read as they are: texts, labels, features, raw bytes.

`Images` is in `understudy.data.loader_images`, `Captions` in `understudy.data.loader_captions`,
what teachers said in `understudy.data.loader_targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.loader_plan import Binding, Plan, Want
from understudy.data.loader_read import Cells, vectors

Tokenize = Callable[[list[str]], Any]
"""Texts to ids `[B, L]`; an attribute `num_truncated`, if there is one, counts texts it cut."""


class Tokenizing:
    """Call a tokenizer and count what it cut; one call at a time, for the sake of the count."""

    def __init__(self, tokenize: Tokenize, context: int | None, lock: Any, where: str) -> None:
        self.tokenize, self.context, self.lock, self.where = tokenize, context, lock, where
        owner = getattr(tokenize, "__self__", None)
        places = (tokenize, owner, getattr(owner, "tokenizer", None))
        self.counter = next((c for c in places if hasattr(c, "num_truncated")), None)

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, int]:
        """Return (ids int64 `[B, L]`, how many texts were cut)."""
        with self.lock:
            before = getattr(self.counter, "num_truncated", 0)
            ids = np.array(self.tokenize(texts), np.int64)
            cut = getattr(self.counter, "num_truncated", 0) - before
        if ids.ndim != 2 or len(ids) != len(texts):
            raise DataError(
                f"{self.where}: tokenize returned {list(ids.shape)} for {len(texts)} texts, "
                "expected one row of ids a text."
            )
        if self.context is not None and ids.shape[1] != self.context:
            raise ConfigError(
                f"{self.where}: tokenize gives rows of {ids.shape[1]} ids and context is "
                f"{self.context}: use the student's own tokenizer (tokenizer.with_context)."
            )
        return ids, cut

    def describe(self) -> Any:
        """Return the tokenizer's fingerprint where it has one, else its name."""
        for owner in (self.tokenize, self.counter):
            if hasattr(owner, "fingerprint"):
                return owner.fingerprint()  # type: ignore[union-attr]
        return getattr(self.tokenize, "__qualname__", type(self.tokenize).__name__)


def strings(values: Cells, column: str) -> list[Any]:
    """Return a column of strings as Python objects."""
    kind = values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"column '{column}' holds {kind}, expected strings.")
    return values.to_pylist()


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Token ids of the samples' own texts, int64 `[B, context]`.

    Attributes:
        column: payload column of strings.
        tokenize: `tokenize(list of str) -> ids [B, L]`; for worker processes it must pickle, so
            pass a model's `tokenizer` rather than the model's method.
        context: length that rows of ids must have; None takes any.
        key: name in the batch.
    """

    column: str = "text"
    tokenize: Tokenize
    context: int | None = None
    key: str = "texts"

    def bind(self, binding: Binding) -> TextReader:
        """Return the reader."""
        return TextReader(self, binding)


class TextReader:
    """`Texts`, bound to a store."""

    def __init__(self, field: Texts, binding: Binding) -> None:
        self.field = field
        self.keys, self.columns = (field.key,), (field.column,)
        self.tokenizing = Tokenizing(
            field.tokenize, field.context, binding.lock, f"column '{field.column}'"
        )

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the texts."""
        return [Want(self.field.column)]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Tokenise; what was cut is counted under `truncated.<key>`."""
        ids, cut = self.tokenizing(strings(got[0], self.field.column))
        return {self.field.key: ids, f"truncated.{self.field.key}": cut}

    def describe(self) -> dict[str, Any]:
        """Return column and tokenizer."""
        return {"texts": self.field.column, "tokenizer": self.tokenizing.describe()}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Class ids, int64 `[B]`.

    Attributes:
        column: column of integers.
        key: name in the batch.
    """

    column: str = "label"
    key: str = "labels"

    def bind(self, binding: Binding) -> PlainReader:
        """Check that the column holds integers and return the reader."""
        kind = (
            binding.store.schema.field(self.column).type if binding.store.has(self.column) else None
        )
        if kind is not None and not pa.types.is_integer(kind):
            raise DataError(f"labels: column '{self.column}' holds {kind}, expected integers.")
        return PlainReader("labels", self.column, self.key, _integers)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Frozen features of a cache column, float32 `[B, *shape]`.

    Attributes:
        column: a feature column (`understudy.data.knowledge.feature_column`), or any fixed-size
            list of numbers.
        fingerprint: hash that the encoder's weights must have; None takes any.
        shape: shape that a row must have; None takes any.
        key: name in the batch.
    """

    column: str
    fingerprint: str | None = None
    shape: Sequence[int] | None = None
    key: str = "features"

    def bind(self, binding: Binding) -> PlainReader:
        """Check the card and return the reader."""
        try:
            binding.store.card(self.column)
        except CardError:
            return PlainReader("features", self.column, self.key, _floats)
        shape = None if self.shape is None else [int(n) for n in self.shape]
        card = binding.card(self.column, fingerprint=self.fingerprint, shape=shape)

        def convert(values: Cells) -> np.ndarray:
            return vectors(values.numpy(), card.config)

        return PlainReader("features", self.column, self.key, convert)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A column as Python objects: encoded images for a teacher that is asked online, say.

    Attributes:
        column: its name.
        key: name in the batch; the column's own when left empty.
    """

    column: str
    key: str = ""

    def bind(self, binding: Binding) -> PlainReader:
        """Return the reader."""
        return PlainReader("raw", self.column, self.key or self.column, lambda v: v.to_pylist())


class PlainReader:
    """One column, converted."""

    def __init__(self, kind: str, column: str, key: str, convert: Callable[[Cells], Any]) -> None:
        self.kind, self.key, self.convert = kind, key, convert
        self.keys, self.columns = (key,), (column,)

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the column."""
        return [Want(self.columns[0])]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Convert it."""
        return {self.key: self.convert(got[0])}

    def describe(self) -> dict[str, Any]:
        """Return kind and column."""
        return {self.kind: self.columns[0]}


def _integers(values: Cells) -> np.ndarray:
    return values.numpy().astype(np.int64)


def _floats(values: Cells) -> np.ndarray:
    return values.numpy().astype(np.float32)
