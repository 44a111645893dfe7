"""Before anything is encoded: is this the model that the index wants, and what will it cost?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from understudy.core.errors import DataError, UnderstudyError
from understudy.data.knowledge import decode_embeddings
from understudy.data.spaces import Space, SpaceError
from understudy.data.store import Store
from understudy.update.plan_file import Plan

CHECKED_ITEMS = 32
LEAST_COSINE = 0.999


class BackfillEncoder(Protocol):
    """The new model: raw items to vectors."""

    @property
    def space(self) -> Space:
        """Where its vectors live."""
        ...

    def __call__(self, items: Sequence[Any], /) -> np.ndarray:
        """Return vectors [N, D] of N raw items (bytes, strings, ... as the store has them)."""
        ...


def check_encoder(encoder: BackfillEncoder, plan: Plan, where: str) -> None:
    """Refuse a model whose space is not the one that the plan's map leads to.

    Raises:
        SpaceError: the message names both spaces.
    """
    space = encoder.space
    if space.kind != "encoded" or space.id != plan.facts["new_space"]:
        raise SpaceError(
            f"{where}: the plan backfills '{plan.facts['new']}' in space "
            f"{plan.facts['new_space']}, but the encoder writes space {space}. Use the model (and "
            "preprocessing) that the map was trained for, or fit a map to this one and plan again."
        )


def encode_items(
    encoder: BackfillEncoder, store: Store, rows: np.ndarray, column: str
) -> np.ndarray:
    """Read raw items and return their vectors float32 [N, D].

    Args:
        encoder: the new model.
        store: where the items are.
        rows: int64 [N] row numbers.
        column: payload column.

    Raises:
        DataError: an item is empty, cannot be encoded, or gets a vector that is not finite or of
            another width; the message names it.
    """
    table = store.take(rows, list(dict.fromkeys(["id", column])))
    ids, items = table.column("id").to_pylist(), table.column(column).to_pylist()
    for name, row, item in zip(ids, rows, items, strict=True):
        if item is None:
            raise DataError(
                f"item '{name}' (row {row}) has no '{column}', so it cannot be encoded; fill it, "
                "or plan again without it."
            )
    try:
        vectors = np.asarray(encoder(items))
    except UnderstudyError as error:
        raise _name_culprit(encoder, ids, rows, items, column, error) from error
    return _checked(vectors, encoder.space.dim, ids, rows)


def _name_culprit(
    encoder: BackfillEncoder,
    ids: Sequence[str],
    rows: np.ndarray,
    items: Sequence[Any],
    column: str,
    error: UnderstudyError,
) -> DataError:
    for name, row, item in zip(ids, rows, items, strict=True):
        try:
            encoder([item])
        except UnderstudyError as own:
            return DataError(f"item '{name}' (row {row}), column '{column}': {own}")
    return DataError(f"column '{column}', {len(ids)} items from '{ids[0]}': {error}")


def _checked(vectors: np.ndarray, dim: int, ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
    if vectors.shape != (len(ids), dim):
        raise DataError(
            f"the encoder returned {list(vectors.shape)} for {len(ids)} items; expected "
            f"[{len(ids)}, {dim}]."
        )
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"item '{ids[i]}' (row {rows[i]}): the encoder's vector holds NaN or infinity."
        )
    return vectors.astype(np.float32)


def check_against_stored(
    encoder: BackfillEncoder, store: Store, new: str, column: str, *, items: int = CHECKED_ITEMS
) -> tuple[int, float | None, float]:
    """Encode items that have new vectors already and compare with what is stored.

    Args:
        encoder: the new model.
        store: where the items and vectors are.
        new: column of the new model's vectors.
        column: payload column.
        items: how many, evenly spaced over those that are filled.

    Returns:
        How many were compared, the lowest cosine (None if there were none), seconds of encoding.

    Raises:
        DataError: a cosine is below 0.999: another model or another preprocessing.
    """
    filled = np.flatnonzero(store.filled(new)) if store.has(new) else np.empty(0, np.int64)
    if not len(filled) or not items:
        return 0, None, 0.0
    places = np.linspace(0, len(filled) - 1, min(items, len(filled))).round().astype(np.int64)
    rows = filled[np.unique(places)]
    began = time.perf_counter()
    own = encode_items(encoder, store, rows, column).astype(np.float64)
    seconds = time.perf_counter() - began
    stored = decode_embeddings(store.array(new, rows), store.card(new).config)
    stored = stored.reshape(len(rows), -1).astype(np.float64)
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(stored, axis=1)
    cosine = np.where(lengths > 0, (own * stored).sum(1) / np.where(lengths > 0, lengths, 1), 0.0)
    cosine = np.where((own == stored).all(1), 1.0, cosine)  # also where both are all zeros
    worst = int(np.argmin(cosine))
    if cosine[worst] < LEAST_COSINE:
        (name,) = store.take(rows[worst : worst + 1], ["id"]).column(0).to_pylist()
        raise DataError(
            f"this encoder does not reproduce column '{new}': item '{name}' (row {rows[worst]}) "
            f"has cosine {cosine[worst]:.4f} with its stored vector, expected at least "
            f"{LEAST_COSINE}, and {int((cosine < LEAST_COSINE).sum())} of {len(rows)} differ so "
            "much. It is the wrong model or the wrong preprocessing; nothing was written."
        )
    return len(rows), float(cosine[worst]), seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillCost:
    """What a backfill would cost.

    Attributes:
        items: to encode.
        items_per_s: measured rate.
        rate_from: where the rate was measured: the column's card, or a probe of so many items.
        seconds: of encoding.
        bytes_read: of raw items, from a sample.
        bytes_written: of new vectors.
        commits: versions that it makes.
        bytes_rewritten: what the commits write in all. A commit writes the column of every fragment
            that it touches anew, so scattered items rewrite the whole column each time; old
            versions keep their files until the store is compacted.
    """

    items: int
    items_per_s: float
    rate_from: str
    seconds: float
    bytes_read: int
    bytes_written: int
    commits: int
    bytes_rewritten: int


def backfill_cost(
    encoder: BackfillEncoder,
    store: Store,
    open_rows: np.ndarray,
    new: str,
    column: str,
    *,
    item_bytes: int,
    commit_rows: int,
) -> BackfillCost:
    """Return the cost of encoding rows, writing nothing.

    The rate is that of the column's card if the column was begun, else of a probe of 32 items.

    Args:
        encoder: the new model.
        store: where the items are.
        open_rows: int64 [N] rows to encode, in order.
        new: column of the new vectors.
        column: payload column.
        item_bytes: bytes of one stored vector.
        commit_rows: rows of one commit.
    """
    count = len(open_rows)
    card = store.card(new) if store.has(new) else None
    probe = open_rows[:CHECKED_ITEMS]
    read = 0
    if count:
        taken = store.take(probe, [column]).column(0)
        read = math.ceil(taken.nbytes / len(probe) * count)
    if card is not None and card.rows_done and card.seconds > 0:
        rate, source = card.rows_done / card.seconds, f"the card of '{new}'"
    elif count:
        began = time.perf_counter()
        encode_items(encoder, store, probe, column)
        rate = len(probe) / max(time.perf_counter() - began, 1e-9)
        source = f"a probe of {len(probe)} items"
    else:
        rate, source = float("inf"), "nothing to do"
    commits = math.ceil(count / commit_rows)
    return BackfillCost(
        items=count,
        items_per_s=rate,
        rate_from=source,
        seconds=count / rate,
        bytes_read=read,
        bytes_written=count * item_bytes,
        commits=commits,
        bytes_rewritten=commits * store.num_rows * item_bytes,
    )
