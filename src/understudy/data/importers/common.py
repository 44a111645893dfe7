"""What all importers share: checked images, counted skips, a store that is whole or absent."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.data import store_rows
from understudy.data.card import Card
from understudy.data.decode import decode, image_size
from understudy.data.store_lance import CARD_KEY, META_KEY, ROWS_KEY, is_url
from understudy.data.store_write import ROWS_PER_FRAGMENT, create, plain_meta

if TYPE_CHECKING:
    from understudy.data.store import Store

log = logging.getLogger(__name__)

BATCH_ROWS = 256
ON_MISSING = ("error", "skip")
CHECKS = ("decode", "header", "none")


class Unusable(DataError):
    """One sample cannot be used; `on_missing="skip"` passes over it.

    Attributes:
        reason: short name under which it is counted.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Skips:
    """Counts what was passed over, or refuses to pass over anything.

    Args:
        on_missing: `"error"` or `"skip"`.
        always: a reason that is skipped in any case.
    """

    def __init__(self, on_missing: str = "error", always: str = "") -> None:
        if on_missing not in ON_MISSING:
            raise ConfigError(f"on_missing: '{on_missing}' is not one of error, skip.")
        self.skip = on_missing == "skip"
        self._always = always
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, error: Unusable) -> None:
        """Note one sample that cannot be used, or raise its error."""
        if not self.skip and error.reason != self._always:
            raise error
        self.counts[error.reason] += 1
        self.first.setdefault(error.reason, str(error))

    def report(self) -> dict[str, Any]:
        """Return what the store's `meta["import"]` says about them, and log it."""
        for reason, count in self.counts.items():
            log.warning("%d samples skipped, %s; the first: %s", count, reason, self.first[reason])
        return {"skipped": dict(self.counts), "first_skipped": dict(self.first)}


class Pool:
    """A few threads that keep order; decoding and unpacking release the interpreter lock."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def map(self, function: Any, items: Iterable[Any]) -> Iterable[Any]:
        """Apply a function to each item, results in order."""
        return map(function, items) if self._pool is None else self._pool.map(function, items)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def check_image(data: bytes, name: str, mode: str) -> tuple[int, int] | None:
    """Return an image's (height, width) in pixels after checking that it can be used.

    Args:
        data: the encoded file.
        name: what to call it in errors: its file and key.
        mode: `"decode"` decodes all of it, `"header"` reads its size only, `"none"` trusts it.

    Raises:
        Unusable: it does not decode.
    """
    if mode == "none":
        return None
    try:
        if mode == "header":
            return image_size(data, name)
        return decode(data, name=name).shape[:2]
    except DataError as error:
        raise Unusable("damaged image", str(error)) from None


def check_mode(check_images: str) -> str:
    """Return `check_images` if it is one of `CHECKS`."""
    if check_images not in CHECKS:
        raise ConfigError(f"check_images: '{check_images}' is not one of {', '.join(CHECKS)}.")
    return check_images


def encode_column(values: list[Any], kind: pa.DataType, name: str) -> pa.Array:
    """Return values as an Arrow array of the column's type.

    Raises:
        DataError: one does not fit; the message names the column.
    """
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"column '{name}': a value is not {kind} ({error}).") from None


class Marks:
    """Notes where knowledge columns have values, batch by batch.

    Args:
        columns: the columns to watch.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._valid: dict[str, list[np.ndarray]] = {name: [] for name in columns}

    def add(self, batch: pa.RecordBatch) -> None:
        """Note a batch."""
        for name, masks in self._valid.items():
            masks.append(batch.column(name).is_valid().to_numpy(zero_copy_only=False))

    def filled(self) -> dict[str, np.ndarray]:
        """Return bool `[rows]` by column."""
        return {name: np.concatenate(masks) for name, masks in self._valid.items() if masks}


class Late(NamedTuple):
    """What is known only when all rows are written.

    Attributes:
        meta: facts about the data set as a whole.
        facts: facts for columns' cards.
        filled: bool `[rows]` by column, for knowledge columns that are not filled everywhere.
    """

    meta: dict[str, Any]
    facts: Mapping[str, dict[str, Any]] = {}
    filled: Mapping[str, np.ndarray] = {}


def write_store(
    path: str | Path,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    *,
    cards: Mapping[str, Card] | None = None,
    late: Callable[[], Late] | None = None,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Write a store with its cards, in one commit, so that it is whole or absent.

    A local store is written under a hidden name beside its place and renamed when it is complete;
    what an interrupted import left there is thrown away by the next one.

    Args:
        path: where the store will be.
        batches: its rows.
        schema: their schema.
        cards: the cards of its knowledge columns.
        late: called when all rows are written.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that are stored together.
        storage_options: for object stores.

    Raises:
        DataError: a store is there already, or what `batches` raises.
    """
    from understudy.data.store import Store

    target, remote = Path(path), is_url(path)
    place = str(path) if remote else str(target.parent / f".{target.name}.importing")

    def described(num_rows: int) -> dict[str, str]:
        found = late() if late is not None else Late({})
        meta = {name: fact for name, fact in found.meta.items() if fact is not None}
        return {META_KEY: plain_meta(meta), **_knowledge(cards or {}, found, num_rows)}

    if not remote:
        if target.exists() and not target.is_dir():
            raise DataError(f"{path}: exists and is not a store; choose another place.")
        there = target.exists() and any(target.iterdir())
        if there and not overwrite:
            raise DataError(f"{path}: there is a store already; pass overwrite=True to replace it.")
        if there:
            Store.open(target)  # refuses to replace what is not a store
        shutil.rmtree(place, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        create(
            place,
            batches,
            schema=schema,
            overwrite=remote and overwrite,
            rows_per_fragment=(
                ROWS_PER_FRAGMENT if rows_per_fragment is None else rows_per_fragment
            ),
            storage_options=storage_options,
            described=described,
        )
    except BaseException:
        if not remote:
            shutil.rmtree(place, ignore_errors=True)
        raise
    if remote:
        return Store.open(path, storage_options=storage_options)
    if target.exists():
        old = target.parent / f".{target.name}.replaced"
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        Path(place).rename(target)
        shutil.rmtree(old)
    else:
        Path(place).rename(target)
    return Store.open(path)


def _knowledge(cards: Mapping[str, Card], late: Late, num_rows: int) -> dict[str, str]:
    """Return the entries that make columns knowledge: their cards, and which rows they fill."""
    entries = {}
    every = np.ones(num_rows, bool)
    for column, card in cards.items():
        more = {**card.facts, **late.facts.get(column, {})}
        filled = late.filled.get(column, every)
        done = dataclasses.replace(card, rows_done=int(filled.sum()), facts=more)
        entries[CARD_KEY + column] = done.to_json()
        entries[ROWS_KEY + column] = store_rows.encode(filled)
    return entries


def import_facts(kind: str, source: Any, skips: Skips | None = None) -> dict[str, Any]:
    """Return what the store's `meta["import"]` holds."""
    facts: dict[str, Any] = {"kind": kind, "source": str(source)}
    return {**facts, **skips.report()} if skips is not None else facts
