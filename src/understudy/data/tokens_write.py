"""Token sequences into a store: checked, hashed and streamed, visible in one commit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data import store_write
from understudy.data.store_lance import META_KEY
from understudy.data.tokens_info import META, TokenInfo

ROWS_PER_FRAGMENT = 32_768
_PLAIN = {b"lance-encoding:compression": b"none"}  # twice the speed, and ids hardly compress
FACTS: Mapping[str, pa.DataType] = {
    "doc": pa.string(),
    "piece": pa.int32(),
    "bucket": pa.int8(),
    "segments": pa.list_(pa.int32()),
}
"""Columns that a packing may add, with their types."""


def token_schema(dtype: str, facts: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    """Return the columns of a token store.

    Args:
        dtype: `uint16` or `uint32`.
        facts: further columns with their types: of `FACTS`, or facts of the documents.
    """
    item = pa.field("item", pa.type_for_alias(dtype), metadata=_PLAIN)
    fields = [
        pa.field("id", pa.string()),
        pa.field("tokens", pa.list_(item), metadata=_PLAIN),
        pa.field("length", pa.int32()),
    ]
    return pa.schema([*fields, *(pa.field(k, v) for k, v in (facts or {}).items())])


def list_array(rows: list[np.ndarray] | np.ndarray, dtype: str) -> pa.ListArray:
    """Return token sequences as an Arrow list.

    Args:
        rows: sequences, or an array [B, L] of equally long ones (not copied).
        dtype: `uint16` or `uint32`.

    Raises:
        DataError: an id does not fit, or more than 2^31 - 1 tokens in one batch.
    """
    if isinstance(rows, np.ndarray):
        flat = np.ascontiguousarray(rows).reshape(-1)
        ends = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    else:
        flat = np.concatenate([np.empty(0, dtype), *rows])
        ends = np.concatenate([[0], np.cumsum([len(r) for r in rows], dtype=np.int64)])
    if flat.dtype != dtype:
        if len(flat) and (flat.min() < 0 or flat.max() > np.iinfo(dtype).max):
            raise DataError(f"tokens: {flat.min()} to {flat.max()} do not fit {dtype}.")
        flat = flat.astype(dtype)
    if ends[-1] > np.iinfo(np.int32).max:
        raise DataError(f"tokens: {ends[-1]:,} in one batch; write at most 2^31 - 1 at a time.")
    kind = token_schema(dtype).field("tokens").type
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(flat), type=kind)


def flat_tokens(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return (all tokens laid end to end, length of each row int64 [B]) of a list column."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, np.diff(offsets).astype(np.int64)


class _Checked:
    """Batches on their way to the store: checked, counted and hashed."""

    def __init__(self, batches: Iterable[Any], info: TokenInfo, schema: pa.Schema) -> None:
        self.batches, self.info, self.schema = batches, info, schema
        self.num_tokens = self.num_rows = 0
        self._lengths, self._tokens = (hashlib.blake2b(digest_size=16) for _ in range(2))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self.batches:
            yield self._check(self._as_batch(batch))

    def _as_batch(self, batch: Any) -> pa.RecordBatch:
        if isinstance(batch, pa.RecordBatch):
            return batch
        tokens = list_array(batch["tokens"], self.info.dtype)
        lengths = np.diff(tokens.offsets.to_numpy()) - 1
        found = {**batch, "tokens": tokens, "length": pa.array(lengths, pa.int32())}
        arrays = [
            found[f.name]
            if isinstance(found[f.name], pa.Array)
            else pa.array(found[f.name], f.type)
            for f in self.schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _check(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        tokens, lengths = flat_tokens(batch.column("tokens"))
        stated = batch.column("length").to_numpy()
        if (lengths < 1).any() or (stated != lengths - 1).any():
            bad = int(np.flatnonzero((lengths < 1) | (stated != lengths - 1))[0])
            raise DataError(
                f"row {batch.column('id')[bad]}: {lengths[bad]} tokens with length {stated[bad]}; "
                "expected at least one token, and length = tokens - 1."
            )
        if len(tokens) and int(tokens.max()) >= self.info.vocab_size:
            at = int(np.argmax(tokens >= self.info.vocab_size))
            bad = int(np.searchsorted(np.cumsum(lengths), at, "right"))
            raise DataError(
                f"row {batch.column('id')[bad]}: token {tokens[at]} is outside of the "
                f"{self.info.vocab_size:,} ids of tokenizer {self.info.tokenizer}."
            )
        self._check_segments(batch, lengths)
        self._lengths.update(lengths.astype("<i8").tobytes())
        little = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False)
        self._tokens.update(np.ascontiguousarray(little).data)
        self.num_tokens += len(tokens)
        self.num_rows += batch.num_rows
        return batch

    def _check_segments(self, batch: pa.RecordBatch, lengths: np.ndarray) -> None:
        if "segments" not in batch.schema.names:
            return
        pieces, counts = flat_tokens(batch.column("segments"))
        ends = np.concatenate([[0], np.cumsum(pieces)])
        edges = np.concatenate([[0], np.cumsum(counts)])
        wrong = np.flatnonzero(ends[edges[1:]] - ends[edges[:-1]] != lengths)
        if len(wrong):
            bad = int(wrong[0])
            raise DataError(
                f"row {batch.column('id')[bad]}: its segments do not add up to its "
                f"{lengths[bad]} tokens."
            )

    def finished(self) -> TokenInfo:
        content = hashlib.blake2b(self._lengths.digest() + self._tokens.digest(), digest_size=16)
        return dataclasses.replace(
            self.info,
            num_tokens=self.num_tokens,
            num_rows=self.num_rows,
            documents=self.info.documents or self.num_rows * (self.info.kind == "documents"),
            content=content.hexdigest(),
        )


def write_tokens(
    path: str | Path,
    batches: Iterable[Any],
    info: TokenInfo,
    *,
    facts: Mapping[str, pa.DataType] | None,
    meta: Mapping[str, Any] | None,
    overwrite: bool,
    rows_per_fragment: int,
    storage_options: dict[str, str] | None,
) -> None:
    """Write a token store in one commit; see `TokenStore.create`."""
    schema = token_schema(info.dtype, facts)
    checked = _Checked(batches, info, schema)

    def described(num_rows: int) -> Mapping[str, str]:
        found = {**(meta or {}), META: checked.finished().to_plain()}
        return {META_KEY: store_write.plain_meta(found)}

    store_write.create(
        path,
        checked,
        schema=schema,
        overwrite=overwrite,
        rows_per_fragment=rows_per_fragment,
        storage_options=storage_options,
        described=described,
    )
