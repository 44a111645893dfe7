"""What one batch will be made of, decided from numbers alone, and how fields ask for columns.

A plan is a pure function of (seed, step): rows, stored views, which rows train on the plain image,
and the seed of every draw. Nothing is read to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.seeds import rng, seed_for
from understudy.data.view_random import below, uniforms

if TYPE_CHECKING:
    from understudy.data.card import Card
    from understudy.data.loader_read import Cells
    from understudy.data.samplers import Batch
    from understudy.data.store import Store

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
PICKS = ("random", "epoch")


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch before anything is read.

    Attributes:
        rows: row numbers `int64 [B]`.
        views: stored view of each row, `int64 [B]`.
        plain: `bool [B]`, rows that use the original image instead of a stored view.
        epoch: pass over the data.
        step: number of the batch.
        size: side of the images in pixels if the sampler asks for one.
        seed: of all draws.
    """

    rows: np.ndarray
    views: np.ndarray
    plain: np.ndarray
    epoch: int
    step: int
    size: int | None
    seed: int

    def draws(self, purpose: str, per_epoch: bool = True) -> np.ndarray:
        """Return a seed `uint64 [B]` for each row, from (purpose, seed, epoch, row)."""
        return row_seeds(purpose, self.seed, self.epoch if per_epoch else 0, self.rows)

    def by_view(self) -> list[tuple[int, np.ndarray | None]]:
        """Return (view, places of the batch that use it); one pair with `None` if all do."""
        kinds = np.unique(self.views)
        if len(kinds) == 1:
            return [(int(kinds[0]), None)]
        return [(int(k), np.flatnonzero(self.views == k)) for k in kinds]


def row_seeds(purpose: str, seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """Return `uint64 [B]`, a seed for each row; batch and worker do not matter."""
    key = np.uint64(seed_for(purpose, seed, epoch))
    return key ^ (rows.astype(np.uint64) * _GOLDEN)


def make_plan(batch: Batch, seed: int, p: float) -> Plan:
    """Decide a batch; `p` is the probability that a row uses its stored view."""
    rows = np.asarray(batch.rows, np.int64)
    views = np.broadcast_to(np.asarray(batch.view, np.int64), rows.shape)
    plain = np.zeros(len(rows), bool)
    if p < 1.0:
        plain = uniforms(row_seeds("plain", seed, batch.epoch, rows), 0, 1)[:, 0] >= p
    return Plan(
        rows=rows,
        views=views,
        plain=plain,
        epoch=batch.epoch,
        step=batch.step,
        size=batch.size,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Want:
    """A column that a field needs, in all rows of the batch or in some.

    Attributes:
        column: its name.
        places: places of the batch; `None` for all.
        rows: other rows than the batch's at those places.
    """

    column: str
    places: np.ndarray | None = None
    rows: np.ndarray | None = None

    def numbers(self, plan: Plan) -> np.ndarray:
        """Return the row numbers to read."""
        rows = plan.rows if self.rows is None else self.rows
        return rows if self.places is None else rows[self.places]


class Reader(Protocol):
    """A field that is bound to a store: it says what it needs and makes its part of the batch."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]

    def wants(self, plan: Plan) -> list[Want]:
        """Return the columns of a batch."""
        ...

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Return NumPy arrays by key from what was wanted, in that order."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what decides the values, as plain data."""
        ...


@dataclass
class Binding:
    """What fields share when they are bound.

    Attributes:
        store: where the columns are.
        seed: of all draws.
        p: probability of the stored view.
        views: views that the sampler asks for.
        sampled: rows that the sampler draws; `None` if it does not say.
        view_set: set that the images replay; targets of views must be of the same.
        view_cards: cards of its columns, by view.
        picks: how a caption is picked, by `pool_name` of its captioners.
        nums: how many of each captioner's captions are used, by `pool_name`; 0 for all.
        counts: stored captions a row, by captioner, where a card says.
        lock: held while a tokenizer, which counts, is called.
    """

    store: Store
    seed: int
    p: float
    views: Sequence[int]
    sampled: np.ndarray | None
    view_set: str | None = None
    view_cards: dict[int, Card] = field(default_factory=dict)
    picks: dict[str, str] = field(default_factory=dict)
    nums: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    check_rows: bool = True

    def card(self, column: str, **expected: Any) -> Card:
        """Return a column's card after checking keys of its `config`, and that rows are filled.

        Args:
            column: its name.
            **expected: values that keys of `config` must have; `None` takes any. `fingerprint` is
                compared with the card's own.

        Raises:
            DataError: no such column, or rows that the sampler draws are not filled.
            CardError: a value differs.
        """
        card = self.store.card(column)
        fingerprint = expected.pop("fingerprint", None)
        if fingerprint is not None:
            card.require(fingerprint=fingerprint)
        wanted = {k: v for k, v in expected.items() if v is not None}
        card.require(config={**card.config, **wanted})
        if self.check_rows:
            self.check_filled(column)
        return card

    def check_filled(self, column: str) -> None:
        """Raise `DataError` naming the first row that the sampler draws and that is not filled."""
        filled = self.store.filled(column)
        if filled.all():
            return
        rows = np.arange(self.store.num_rows) if self.sampled is None else self.sampled
        missing = rows[~filled[rows]]
        if len(missing):
            first = row_name(self.store, int(missing.min()))
            raise DataError(
                f"column '{column}' is not filled in {len(missing)} of the {len(rows)} rows that "
                f"the sampler draws, first in {first}: finish the job that writes it (run the same "
                "reinforce command again), or draw filled rows only (Store.filled)."
            )

    def require_set(self, view_set: str | None, what: str) -> str:
        """Return the set whose targets are read; it must be the one that the images replay."""
        if view_set is not None and self.view_set not in (None, view_set):
            raise CardError(
                f"{what}: targets of view set '{view_set}', but the images replay "
                f"'{self.view_set}': a target fits its own view only."
            )
        found = view_set or self.view_set
        if found is None:
            raise CardError(
                f"{what}: targets belong to stored views, and no view set is named: give view_set= "
                "here or in Images."
            )
        return found

    def shuffled(self, num_rows: int) -> np.ndarray:
        """Return `int64 [num_rows]`: whose target each row gets when targets are shuffled."""
        rows = np.arange(num_rows) if self.sampled is None else np.unique(self.sampled)
        to = np.arange(num_rows)
        to[rows] = rows[rng("shuffled-targets", self.seed).permutation(len(rows))]
        return to


def captioners(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return captioners as a tuple of names, at least one and each once.

    Raises:
        ConfigError: none, or one twice.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or len(set(names)) < len(names) or not all(names):
        raise ConfigError(f"captioners: expected different names, got {given!r}.")
    return names


def pool_name(given: str | Sequence[str]) -> str:
    """Return what a pool of captioners is called: its names, joined by "|"."""
    return "|".join(captioners(given))


def pick_captions(plan: Plan, captioner: str, pick: str, counts: np.ndarray) -> np.ndarray:
    """Choose a caption of every row: `int64 [B]`, below `counts`.

    `"random"` draws from (seed, epoch, row); `"epoch"` gives all rows of an epoch the same place
    and goes through all places, in an order of its own, once a cycle.

    Args:
        plan: the batch.
        captioner: `pool_name` of the captioners.
        pick: `"random"` or `"epoch"`.
        counts: captions of each row, of all captioners together.
    """
    if pick == "random":
        return below(uniforms(plan.draws(f"caption:{captioner}"), 0, 1)[:, 0], counts)
    out = np.zeros(len(counts), np.int64)
    for count in np.unique(counts).tolist():
        cycle, place = divmod(plan.epoch, count)
        order = rng("caption-order", plan.seed, captioner, count, cycle).permutation(count)
        out[counts == count] = order[place]
    return out


def row_name(store: Store, row: int) -> str:
    """Return what errors call a row: its number, and its id if that can be read."""
    try:
        found = store.take([row], ["id"]).column(0).to_pylist()[0]
    except DataError:
        return f"row {row}"
    return f"row {row} (id '{found}')"


class RowNames(Sequence[Any]):
    """Names of rows for errors. An id is read when a name is printed, which is rare."""

    def __init__(self, store: Store, rows: np.ndarray) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return RowNames(self.store, self.rows[i])
        return _RowName(self.store, int(self.rows[i]))


class _RowName:
    def __init__(self, store: Store, row: int) -> None:
        self.store, self.row = store, row

    def __str__(self) -> str:
        return row_name(self.store, self.row)

    def __format__(self, spec: str) -> str:
        return str(self)
