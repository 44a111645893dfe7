"""Replay stored views and compare them with the checksums in their cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from understudy.core.errors import CardError, DataError, UnderstudyError
from understudy.data.views import ViewPipeline, _thumb

if TYPE_CHECKING:
    from understudy.data.store import Store


def view_columns(store: Store, view_set: str) -> list[str]:
    """Return the columns `view.<set>.<k>` of a store in the order of k.

    Raises:
        CardError: there are none; the message lists the sets there are.
    """
    prefix = f"view.{view_set}."
    found = [c for c in store.columns if c.startswith(prefix) and c[len(prefix) :].isdigit()]
    if not found:
        sets = sorted({c.split(".")[1] for c in store.columns if c.startswith("view.")})
        raise CardError(
            f"{store.path}: no views of set '{view_set}'"
            f" (sets: {', '.join(sets) or 'none'}): run reinforce first."
        )
    return sorted(found, key=lambda c: int(c[len(prefix) :]))


def partner_images(
    store: Store, image: str, params: np.ndarray, names: Sequence[str] | None = None
) -> list[bytes | None] | None:
    """Return the encoded partner of each mixed record (`None` elsewhere), read in one take.

    Args:
        store: where the images are.
        image: the payload column with the encoded images.
        params: view records.
        names: what to call each record's row in errors.

    Raises:
        DataError: a partner's row is not in the store; the message names both rows.
    """
    if "mix" not in (params.dtype.names or ()):
        return None
    mixed = np.flatnonzero(params["mix"])
    found: list[bytes | None] = [None] * len(params)
    rows = params["id2"][mixed]
    if len(rows) and rows.max() >= store.num_rows:
        i = mixed[np.argmax(rows)]
        raise DataError(
            f"{names[i] if names else f'view record {i}'}: its stored view mixes in row "
            f"{int(rows.max())} (id2), but the store has {store.num_rows} rows: the partner is "
            "missing; restore it or reinforce again."
        )
    if len(rows):
        for i, data in zip(mixed, store.take(rows, [image]).column(0).to_pylist(), strict=True):
            found[i] = data
    return found


def _check_column(
    store: Store, column: str, image: str, tolerance: float, rows: Sequence[int] | None
) -> list[str]:
    card = store.card(column)
    pipeline = ViewPipeline.from_card(card)
    crc, thumb = card.facts.get("crc", {}), card.facts.get("thumb", {})
    stored = {int(r): int(c) for r, c in crc.items()}
    chosen = np.array(sorted(stored if rows is None else set(stored) & set(rows)), np.int64)
    if not len(chosen):
        return [f"{column}: its card holds no checksums to verify."]
    params = pipeline.unpack(store.array(column, chosen))
    images = store.take(chosen, [image]).column(0).to_pylist()
    names = [f"row {r}" for r in chosen]
    partners = partner_images(store, image, params, names)
    views = pipeline.apply(images, params, partners=partners, names=names)
    problems = []
    for row, view, value in zip(chosen.tolist(), views, pipeline.checksum(views), strict=True):
        if int(value) == stored[row]:
            continue
        text = f"{column}, row {row}: replayed pixels differ from the reinforced view"
        if tolerance > 0 and str(row) in thumb:
            old = np.frombuffer(bytes.fromhex(thumb[str(row)]), np.uint8).astype(int)
            off = int(np.abs(_thumb(view).reshape(-1).astype(int) - old).max())
            if off <= tolerance:
                continue
            text += f" by {off} levels (tolerance {tolerance:g})"
        changed = [
            f"{k} {card.backend[k]} -> {v}"
            for k, v in pipeline.backend.items()
            if card.backend.get(k, v) != v
        ]
        problems.append(text + (f"; changed since: {', '.join(changed)}." if changed else "."))
    return problems


def verify_views(
    store: Store,
    view_set: str,
    tolerance: float = 0,
    *,
    image: str = "image",
    rows: Sequence[int] | None = None,
) -> list[str]:
    """Replay the checked sample of every view column of a set.

    Args:
        store: where the images and the view columns are.
        view_set: name of the set.
        tolerance: allowed difference in levels of the mean of any of 4 x 4 cells when the exact
            checksum differs; 0 asks for identical pixels.
        image: the payload column with the encoded images.
        rows: only these rows of the sample.

    Returns:
        One sentence a problem; empty when every view replays.
    """
    problems: list[str] = []
    for column in view_columns(store, view_set):
        try:
            problems += _check_column(store, column, image, tolerance, rows)
        except UnderstudyError as error:
            problems.append(f"{column}: {error}")
    return problems
