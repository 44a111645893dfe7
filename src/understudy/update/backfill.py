"""Encode the items of a plan again, in its order, each exactly once whatever interrupts it.

    from understudy.update.backfill import BackfillConfig, backfill
    result = backfill(store, read_plan("plan.parquet"), encoder, BackfillConfig(limit=1000))

Raw items are read from the store, encoded by the new model and written to its column; mapped
vectors stay as they are. Encoded vectors are on disk after every few items; they become visible a
batch at a time, each batch in one version.

**Batches.** The items that a plan takes first lie all over the store, and a commit writes the
column anew in every fragment that it touches: the whole column, about a second for 100 MB. Batches
are therefore a twentieth of the store by default (at least 1,024 items): a backfill of everything
writes the column some twenty times and no more. `commit_rows` chooses otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core import progress
from understudy.core.errors import ConfigError, DataError
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Store, Unit
from understudy.update.backfill_check import (
    BackfillCost,
    BackfillEncoder,
    backfill_cost,
    check_against_stored,
    check_encoder,
    encode_items,
)
from understudy.update.plan import Plan, check_plan

_SPAN_BYTES = 16 << 20  # of one staged unit, nulls between its rows included
LEAST_COMMIT_ROWS = 1024
COMMITS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillConfig:
    """How to backfill.

    Attributes:
        limit: items to encode in this run, at most; 0 for all that are left.
        input: payload column of the raw items; empty takes the one that the column's card names.
        encode_rows: items that are encoded and kept at a time; a kill costs no more.
        commit_rows: items of one version; 0 for a twentieth of the store, at least 1,024.
        check_items: items with new vectors that are encoded again and compared first.
        dtype: float32 or float16, of a column that is not there yet.
        created_by: what starts it, for the card.

    Raises:
        ConfigError: a number below what is allowed.
    """

    limit: int = 0
    input: str = ""
    encode_rows: int = 64
    commit_rows: int = 0
    check_items: int = 32
    dtype: str = "float32"
    created_by: str = "understudy update backfill"

    def __post_init__(self) -> None:
        least = {"limit": 0, "encode_rows": 1, "commit_rows": 0, "check_items": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(
                    f"backfill: {name} must be at least {value}, got {getattr(self, name)}."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillResult:
    """What a run did.

    Attributes:
        encoded: items encoded in this run.
        recovered: items that an interrupted run had encoded and that became visible now.
        done: items of the plan that have their new vector.
        left: items of the plan that have not.
        unspent: items of the plan's budget for which there was nothing to encode.
        commits: versions made.
        seconds: wall time.
        items_per_s: encoded a second.
        checked: items compared with stored vectors first.
        least_cosine: the lowest cosine of these; None if there were none.
        version: of the store afterwards.
    """

    encoded: int
    recovered: int
    done: int
    left: int
    unspent: int
    commits: int
    seconds: float
    items_per_s: float
    checked: int
    least_cosine: float | None
    version: int


class _Run:
    """A plan, a store and an encoder that fit together."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        encoder: BackfillEncoder,
        config: BackfillConfig,
        where: str,
    ) -> None:
        store.refresh()
        check_plan(plan, store, where)
        check_encoder(encoder, plan, where)
        self.store, self.plan, self.encoder, self.config = store, plan, encoder, config
        self.column: str = plan.facts["new"]
        self.card = self._card()
        self.input: str = self.card.config["input"]
        if not store.has(self.input):
            raise DataError(
                f"{store.path} has no column '{self.input}' to encode; its columns are: "
                f"{', '.join(store.columns)}. Name the raw items with --input."
            )
        shape, dtype = self.card.config["shape"], self.card.config["dtype"]
        self.dtype: str = dtype
        self.types = {self.column: embedding_type(shape, dtype)}
        self.item_bytes = int(np.prod(shape)) * (4 if dtype == "float32" else 2)
        twentieth = math.ceil(store.num_rows / COMMITS)
        self.commit_rows = config.commit_rows or max(LEAST_COMMIT_ROWS, twentieth)

    def _card(self) -> Card:
        config = self.config
        if self.store.has(self.column):
            found = self.store.card(self.column)
            stored = found.config.get("input", "")
            if config.input and stored and config.input != stored:
                raise DataError(
                    f"column '{self.column}' was encoded from '{stored}', not from "
                    f"'{config.input}'."
                )
            return found
        if not config.input:
            raise ConfigError(
                f"backfill: column '{self.column}' is not there yet, so nothing says what to "
                "encode; name the column of raw items (--input image)."
            )
        make = getattr(self.encoder, "card", None)
        if make is not None:  # an encoder that knows how its columns are described
            return make(self.store, self.column, config.input, config.dtype)
        space = self.encoder.space
        return Card(
            column=self.column,
            writer=space.model,
            fingerprint=space.fingerprint,
            config={
                **embedding_config([space.dim], config.dtype),
                "input": config.input,
                "space": space.to_dict(),
            },
            created_by=config.created_by,
        )

    def job(self, rows: np.ndarray) -> Any:
        return self.store.job([self.card], self.types, rows=rows)

    def open_rows(self) -> np.ndarray:
        """Return the rows of the plan that have no new vector yet, in its order."""
        filled = np.zeros(self.store.num_rows, bool)
        if self.store.has(self.column):
            filled = self.store.filled(self.column)
        rows = self.plan.rows[~filled[self.plan.rows]]
        return rows[: self.config.limit] if self.config.limit else rows

    def units(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Cut ascending rows into runs that are staged together, none too wide for memory."""
        span = max(1, _SPAN_BYTES // self.item_bytes)
        at = 0
        while at < len(rows):
            after = min(at + self.config.encode_rows, np.searchsorted(rows, rows[at] + span))
            yield rows[at : int(after)]
            at = int(after)

    def batch(self, rows: np.ndarray, bar: progress.Bar, began: float, before: int) -> None:
        """Encode, stage and commit some rows."""
        encoded = before
        with self.job(rows) as job:
            for start in range(0, len(rows), self.config.encode_rows):
                part = rows[start : start + self.config.encode_rows]
                clock = time.perf_counter()
                vectors = encode_items(self.encoder, self.store, part, self.input)
                seconds = time.perf_counter() - clock
                at = 0
                for own in self.units(part):
                    values = encode_embeddings(vectors[at : at + len(own)], self.dtype)
                    unit = Unit(int(own[0]), int(own[-1]) + 1)
                    share = seconds * len(own) / len(part)
                    job.write(unit, {self.column: values}, seconds=share)
                    at += len(own)
                encoded += len(part)
                bar.advance(len(part), items_per_s=encoded / (time.perf_counter() - began))


def backfill(
    store: Store,
    plan: Plan,
    encoder: BackfillEncoder,
    config: BackfillConfig | None = None,
    *,
    where: str = "plan",
) -> BackfillResult:
    """Encode the next items of a plan; run it again to go on after whatever stopped it.

    Args:
        store: open without a version.
        plan: made for this store (`understudy.update.plan`).
        encoder: the new model.
        config: limits and batch sizes.
        where: name of the plan, for messages.

    Raises:
        DataError: the plan is for something else, the encoder does not reproduce stored vectors,
            or an item cannot be encoded. What was encoded before that is kept.
        SpaceError: the encoder is another model than the plan's.
        ConfigError: nothing says which column holds the raw items.
    """
    run = _Run(store, plan, encoder, config or BackfillConfig(), where)
    config = run.config
    checked, cosine, _ = check_against_stored(
        encoder, store, run.column, run.input, items=config.check_items
    )
    before = _filled(run)
    if len(plan):
        with run.job(plan.rows):  # what a killed run had finished
            pass
    recovered, encoded, commits = _filled(run) - before, 0, 0
    rows = run.open_rows()
    began = time.perf_counter()
    with progress.bar("backfill", total=len(rows), unit="items") as bar:
        for start in range(0, len(rows), run.commit_rows):
            part = np.sort(rows[start : start + run.commit_rows])
            run.batch(part, bar, began, encoded)
            encoded += len(part)
            commits += 1
    seconds = time.perf_counter() - began
    done = _filled(run)
    return BackfillResult(
        encoded=encoded,
        recovered=recovered,
        done=done,
        left=len(plan) - done,
        unspent=int(plan.facts.get("unspent", 0)),
        commits=commits + bool(recovered),
        seconds=seconds,
        items_per_s=encoded / seconds if encoded else 0.0,
        checked=checked,
        least_cosine=cosine,
        version=store.version,
    )


def _filled(run: _Run) -> int:
    if not run.store.has(run.column):
        return 0
    return int(run.store.filled(run.column)[run.plan.rows].sum())


def dry_run(
    store: Store,
    plan: Plan,
    encoder: BackfillEncoder,
    config: BackfillConfig | None = None,
    *,
    where: str = "plan",
) -> BackfillCost:
    """Return what `backfill` would cost; checks everything that it checks and writes nothing."""
    run = _Run(store, plan, encoder, config or BackfillConfig(), where)
    check_against_stored(encoder, store, run.column, run.input, items=run.config.check_items)
    return backfill_cost(
        encoder,
        store,
        run.open_rows(),
        run.column,
        run.input,
        item_bytes=run.item_bytes,
        commit_rows=run.commit_rows,
    )
