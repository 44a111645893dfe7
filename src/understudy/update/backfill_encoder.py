"""A model by name as the encoder of a backfill: raw items as the store has them, to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from understudy.core.errors import ConfigError
from understudy.data.card import Card
from understudy.data.decode import decode
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.update.embedders import Embedder, embedder_of, open_embedder, sample_inputs
from understudy.update.encode import encode_card
from understudy.update.plan import Plan


class StoreEncoder:
    """Decodes a payload column's items and embeds them.

    Args:
        embedder: the new model.

    Attributes:
        space: where its vectors live.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def space(self) -> Space:
        """Where its vectors live."""
        return self.embedder.space

    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        """Return vectors float32 [N, D] of image files (bytes) or texts."""
        found: list[Any] = list(items)
        if self.embedder.modality == "image":
            found = [decode(data, name="the image") for data in items]
        return self.embedder(found, ["the item"] * len(found))

    def card(self, store: Store, column: str, source: str, dtype: str) -> Card:
        """Return the card of a new index column, the same as `update encode` writes."""
        return encode_card(store, self.embedder, column, source, dtype)


def open_encoder(
    store: Store, plan: Plan, model: str, *, column: str = "", version: str = ""
) -> StoreEncoder:
    """Return the encoder of a model for a plan, normalised or not as its space wants it.

    Args:
        store: to be backfilled.
        plan: of the backfill.
        model: as for `understudy update encode`.
        column: payload column of the items; empty takes the one that the index column's card
            names, else `image` or `text`, whichever the store has.
        version: of a function.

    Raises:
        ConfigError: no such model, or nothing says what to encode.
    """
    column = input_column(store, plan, column)
    modality: Literal["image", "text"] = _modality(store, plan, column)
    inputs = sample_inputs(store, column, modality, np.arange(store.num_rows))
    opened = open_embedder(model, modality, version=version, inputs=inputs)
    sides = [
        embedder_of(opened.encoder, opened.modality, normalise=normalise, spec=model)
        for normalise in (False, True)
    ]
    wanted = plan.facts["new_space"]
    return StoreEncoder(next((side for side in sides if side.space.id == wanted), sides[0]))


def input_column(store: Store, plan: Plan, column: str = "") -> str:
    """Return the payload column that a plan's items are encoded from.

    Raises:
        ConfigError: none is named, and there is no column `image` or `text`.
    """
    new = plan.facts["new"]
    if column or not store.has(new):
        found = [column] if column else [name for name in ("image", "text") if store.has(name)]
        if found:
            return found[0]
        raise ConfigError(
            f"{store.path} has no column 'image' or 'text' to encode; name the column of raw items "
            f"(--input). Its columns are: {', '.join(store.columns)}."
        )
    return store.card(new).config.get("input", "image")


def _modality(store: Store, plan: Plan, column: str) -> Literal["image", "text"]:
    new = plan.facts["new"]
    named = store.card(new).config.get("modality", "") if store.has(new) else ""
    if named in ("image", "text"):
        return named
    return "image" if column == "image" else "text"
