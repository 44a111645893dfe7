"""Knowledge of reinforced samples as columns of a store: their types, cards and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.importers.reinforced import Knowledge, Layout
from understudy.data.knowledge import (
    caption_column,
    captions_column,
    embedding_config,
    embedding_type,
    encode_embeddings,
    encode_topk,
    fixed_list,
    image_column,
    text_column,
    topk_column,
    topk_type,
    view_column,
)
from understudy.data.view_config import ORDER
from understudy.data.view_params import pack, params_dtype


def plan_columns(
    first: Knowledge, layout: Layout, bf16: bool
) -> tuple[dict[str, pa.DataType], dict[str, Card]]:
    """Return types and cards of the columns that a set becomes, from its first sample."""
    default = layout.dtype or ("bfloat16" if bf16 else "float16")
    types: dict[str, pa.DataType] = {}
    cards: dict[str, Card] = {}

    def add(column: str, kind: pa.DataType, writer: str, config: dict, backend: dict) -> None:
        types[column] = kind
        if column in layout.cards:
            stored = layout.cards[column]
            changed = {k: v for k, v in config.items() if k in ("dtype", "shape")}
            cards[column] = dataclasses.replace(
                stored, config={**stored.config, **changed}, config_hash=""
            )
            return
        cards[column] = Card(
            column=column,
            writer=writer,
            config=config,
            backend=backend,
            versions=versions(),
            created_by="understudy data import",
        )

    def add_embedding(column: str, teacher: str, shape: list[int], where: dict) -> None:
        dtype = default
        if column in layout.cards and not layout.dtype:
            dtype = layout.cards[column].config.get("dtype", default)
        config = {**embedding_config(shape, dtype), **where}
        add(column, embedding_type(shape, dtype), teacher, config, {})

    views = 0 if first.params is None else len(first.params)
    views = max(views, 0 if first.image is None else len(first.image))
    name = layout.view_set
    if first.params is not None:
        stride = params_dtype(layout.views).itemsize
        for k in range(views):
            config = {**layout.views.to_dict(), "set": name, "k": k}
            backend = {"order": list(ORDER), "views": "another program's"}
            add(
                view_column(name, k),
                pa.list_(pa.uint8(), stride),
                "released views",
                config,
                backend,
            )
    total = next(
        (a.shape[-1] for a in (first.image, first.text, *first.caption.values()) if a is not None),
        0,
    )
    for teacher, width in layout.widths(total).items():
        for k in range(views if first.image is not None else 0):
            at = {"set": name, "k": k}
            add_embedding(image_column(teacher, name, k), teacher, [width], at)
        if first.text is not None:
            add_embedding(text_column(teacher), teacher, [width], {})
        for captioner, values in first.caption.items():
            for s in range(len(values)):
                column = caption_column(teacher, captioner, s)
                add_embedding(column, teacher, [width], {"captioner": captioner, "place": s})
    for captioner in first.captions:
        add(captions_column(captioner), pa.list_(pa.string()), captioner, {}, {})
    for teacher, (values, _) in first.topk.items():
        for k in range(len(values)):
            column = topk_column(teacher, name, k)
            config = {"k": values.shape[1], "set": name, "view": k}
            add(column, topk_type(values.shape[1]), teacher, config, {})
    return types, cards


def columns_of(
    batch: list[Knowledge], layout: Layout, cards: Mapping[str, Card]
) -> dict[str, pa.Array]:
    """Return the knowledge columns of samples of equal shapes."""
    out: dict[str, pa.Array] = {}
    name, first = layout.view_set, batch[0]
    if first.params is not None:
        records = np.stack([np.asarray(known.params) for known in batch])
        for k in range(records.shape[1]):
            out[view_column(name, k)] = fixed_list(pack(records[:, k]))

    def embed(column: str, values: np.ndarray) -> None:
        out[column] = encode_embeddings(values, cards[column].config["dtype"])

    image = (
        np.stack([np.asarray(known.image) for known in batch]) if first.image is not None else None
    )
    text = np.stack([np.asarray(known.text) for known in batch]) if first.text is not None else None
    caption = {c: np.stack([known.caption[c] for known in batch]) for c in first.caption}
    total = next((a.shape[-1] for a in (image, text, *caption.values()) if a is not None), 0)
    at = 0
    for teacher, width in layout.widths(total).items():
        part = slice(at, at + width)
        at += width
        if image is not None:
            for k in range(image.shape[1]):
                embed(image_column(teacher, name, k), image[:, k, part])
        if text is not None:
            embed(text_column(teacher), text[:, part])
        for captioner, values in caption.items():
            for s in range(values.shape[1]):
                embed(caption_column(teacher, captioner, s), values[:, s, part])
    for captioner in first.captions:
        lists = [known.captions[captioner] for known in batch]
        out[captions_column(captioner)] = pa.array(lists, pa.list_(pa.string()))
    for teacher in first.topk:
        values = np.stack([known.topk[teacher][0] for known in batch])
        ids = np.stack([known.topk[teacher][1] for known in batch])
        for k in range(values.shape[1]):
            out[topk_column(teacher, name, k)] = encode_topk(values[:, k], ids[:, k])
    return out
