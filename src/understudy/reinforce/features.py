"""Cache what frozen encoders say about a store's rows, as columns with cards.

An encoder is anything with the attributes of `encoder_base.Encoder`; adapters are in
`reinforce.encoders`.

    from understudy.reinforce.encoders import TeacherEncoder
    from understudy.reinforce.features import cache_features
    report = cache_features(store, TeacherEncoder(teacher, "image"), "image")

Writing is exactly-once and resumable, like all of reinforcement; a cache that another checkpoint
or preprocessing made is refused, with both hashes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core import progress
from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.features import check_feature_card, mask_column, token_column
from understudy.data.knowledge import (
    embedding_config,
    embedding_type,
    encode_embeddings,
    feature_column,
    fixed_list,
)
from understudy.reinforce.encoder_base import (
    Encoded,
    Encoder,
    FeatureWarning,
    check_frozen_encoder,
    encode_checked,
    preprocess_hash,
)

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["CacheReport", "Encoder", "FeatureWarning", "cache_features", "preprocess_hash"]


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What `cache_features` did.

    Attributes:
        column: the pooled column.
        rows: rows that have features.
        written: rows that were computed by this call.
        empty: rows left out because their text is empty.
        truncated: texts that were longer than the encoder reads.
        num_bytes: of all features, as stored before compression.
        seconds: wall seconds of this call.
    """

    column: str
    rows: int
    written: int
    empty: int
    truncated: int
    num_bytes: int
    seconds: float


def _source(store: Store, column: str, modality: str) -> dict[str, str]:
    """Return what a card says of the column that was read, where it is not the usual one."""
    if column == modality:
        return {}
    card = store.cards.get(column)
    made = {} if card is None else {"source_card": hash_data(card.identity())}
    return {"source": column, **made}


def _cards(
    encoder: Encoder,
    modality: str,
    shapes: dict[str, Any],
    facts: dict,
    source: dict[str, str],
) -> list[Card]:
    found = []
    for column, (shape, dtype) in shapes.items():
        config = {
            **(embedding_config(shape, dtype) if dtype != "uint8" else {"shape": list(shape)}),
            "modality": modality,
            "preprocess": encoder.preprocess,
            "preprocess_hash": preprocess_hash(encoder),
            **source,
        }
        found.append(
            Card(
                column=column,
                writer=encoder.name,
                fingerprint=encoder.hash,
                config=config,
                versions=versions(),
                created_by="reinforce.features.cache_features",
                facts=facts,
            )
        )
    return found


def read_inputs(store: Store, column: str, kind: str, rows: np.ndarray) -> Any:
    """Return what an encoder takes: images uint8 [H, W, 3], texts, or an array."""
    if kind == "image":
        from understudy.data.decode import decode

        ids = store.take(rows, ["id", column])
        pairs = zip(ids["id"].to_pylist(), ids[column].to_pylist(), strict=True)
        return [decode(data, name=str(name)) for name, data in pairs]
    if kind == "text":
        return store.take(rows, [column])[column].to_pylist()
    return store.array(column, rows)


def _is_blank(text: str | None) -> bool:
    return text is None or not text.strip()


def cache_features(
    store: Store,
    encoder: Encoder,
    modality: str,
    *,
    column: str = "",
    kind: str = "",
    rows: np.ndarray | None = None,
    dtype: str = "float16",
    tokens: bool | None = None,
    batch_size: int = 64,
    unit_rows: int = 512,
    overwrite: bool = False,
) -> CacheReport:
    """Write an encoder's features of a modality; go on where an earlier call stopped.

    Args:
        store: whose rows.
        encoder: who is asked.
        modality: name of the modality, part of the column's name.
        column: payload column; empty takes the modality's name.
        kind: `"image"` (encoded files), `"text"`, or `"array"` (numbers); empty: by modality name,
            else array.
        rows: row numbers; None takes all. Rows with empty texts are left out and counted.
        dtype: storage: float16, bfloat16 or float32.
        tokens: store tokens too; None stores them if the encoder has any. A cache of tokens is
            `tokens` times as large: worth it up to about a million captions.
        batch_size: items an encoder sees at once.
        unit_rows: rows that are staged together.
        overwrite: replace a cache that another checkpoint or preprocessing made.

    Raises:
        CardError: such a cache is there and `overwrite` is off, or one of another column (or of
            what it held before); the message gives both.
        DataError: features that are NaN, zero, or all padding; the sample is named.
        ModelError: the encoder is in training mode or takes gradients.
    """
    start = time.perf_counter()
    check_frozen_encoder(encoder)
    column = column or modality
    kind = kind or (modality if modality in ("image", "text") else "array")
    chosen = np.arange(store.num_rows) if rows is None else np.asarray(rows, np.int64)
    empty = truncated = 0
    if kind == "text":
        chosen, empty, truncated = _usable_texts(store, column, chosen, encoder)
    if not len(chosen):
        raise DataError(f"{store.path}: no row of column '{column}' can be encoded.")
    with_tokens = encoder.tokens if tokens is None else tokens
    main = feature_column(encoder.name, modality)
    if store.has(main) and not overwrite:
        check_feature_card(store.card(main), encoder.hash, preprocess_hash(encoder))
    shapes: dict[str, Any] = {main: ((encoder.dim,), dtype)}
    length = 0
    if with_tokens:
        length = _token_length(encoder, read_inputs(store, column, kind, chosen[:1]))
        shapes[token_column(encoder.name, modality)] = ((length, encoder.dim), dtype)
        shapes[mask_column(encoder.name, modality)] = ((length,), "uint8")
    facts = {"empty": empty, "truncated": truncated}
    cards = _cards(encoder, modality, shapes, facts, _source(store, column, modality))
    types = {
        c: pa.list_(pa.uint8(), shape[0]) if d == "uint8" else embedding_type(shape, d)
        for c, (shape, d) in shapes.items()
    }
    written = 0
    with store.job(cards, types, rows=chosen, unit_rows=unit_rows, overwrite=overwrite) as job:
        with progress.bar(f"cache {main}", job.num_wanted, "rows", job.num_done) as bar:
            for unit in job.todo():
                began = time.perf_counter()
                unit_numbers = job.rows(unit)
                arrays = _encode_rows(
                    store, encoder, column, kind, unit_numbers, batch_size, list(shapes), dtype
                )
                job.write(unit, arrays, seconds=time.perf_counter() - began)
                written += len(unit_numbers)
                bar.advance(len(unit_numbers))
    size = {"float16": 2, "bfloat16": 2, "float32": 4}[dtype]
    per_row = encoder.dim * size * (1 + length) + length
    return CacheReport(
        column=main,
        rows=len(chosen),
        written=written,
        empty=empty,
        truncated=truncated,
        num_bytes=len(chosen) * per_row,
        seconds=time.perf_counter() - start,
    )


def _usable_texts(
    store: Store, column: str, rows: np.ndarray, encoder: Encoder
) -> tuple[np.ndarray, int, int]:
    texts = store.take(rows, [column])[column].to_pylist()
    use = np.array([not _is_blank(text) for text in texts], dtype=bool)
    count: Any = getattr(encoder, "truncated", None)
    kept = [text for text, good in zip(texts, use, strict=True) if good]
    truncated = int(count(kept)) if count is not None else 0
    return rows[use], int((~use).sum()), truncated


def _token_length(encoder: Encoder, sample: Any) -> int:
    tokens = encoder.encode(sample)[1]
    if tokens is None:
        raise DataError(
            f"encoder '{encoder.name}' has no tokens; cache its pooled features (tokens=False)."
        )
    return int(tokens.shape[1])


def _encode_rows(
    store: Store,
    encoder: Encoder,
    column: str,
    kind: str,
    rows: np.ndarray,
    batch_size: int,
    columns: Sequence[str],
    dtype: str,
) -> dict[str, pa.Array]:
    parts: list[Encoded] = []
    for at in range(0, len(rows), batch_size):
        some = rows[at : at + batch_size]
        batch = read_inputs(store, column, kind, some)
        parts.append(encode_checked(encoder, batch, [f"row {r}" for r in some], dtype))
    arrays = {columns[0]: encode_embeddings(np.concatenate([p[0] for p in parts]), dtype)}
    if len(columns) > 1:
        tokens = np.concatenate([np.asarray(p[1]) for p in parts])
        mask = np.concatenate([np.asarray(p[2]) for p in parts])
        # What padding holds must not reach the store: the same text gives the same bytes.
        tokens = np.where(mask[..., None], tokens, 0)
        arrays[columns[1]] = encode_embeddings(tokens, dtype)
        arrays[columns[2]] = fixed_list(mask.astype(np.uint8))
    return arrays
