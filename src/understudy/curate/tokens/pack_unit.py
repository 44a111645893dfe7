"""What a worker does to pack: a run of documents to sequences in cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.config import from_dict
from understudy.core.errors import DataError
from understudy.core.seeds import rng
from understudy.curate.tokens.best_fit import pack
from understudy.curate.tokens.cells import draw_cells, groups, write_cells
from understudy.curate.tokens.chunk import Windows, chunk
from understudy.curate.tokens.decompose import decompose
from understudy.curate.tokens.pack_config import PackConfig
from understudy.curate.tokens.parts import gather, read_part, spans, token_list, write_part
from understudy.data.tokens import TokenStore, flat_tokens, token_schema

TAIL = "tail"
READ_ROWS = 1_024
SEGMENTS = pa.list_(pa.int32())


class Documents(NamedTuple):
    """Documents of a unit.

    Attributes:
        flat: their tokens laid end to end [T].
        lengths: tokens of each, int64 [N].
        facts: `id` and the facts of each.
    """

    flat: np.ndarray
    lengths: np.ndarray
    facts: pa.Table


class Rows(NamedTuple):
    """Sequences of a unit, made of parts of documents.

    Attributes:
        parts: the parts of each row.
        bucket: int64 [R]; 0 where there are none.
        piece: number of the piece in its document, int64 [R]; buckets only.
    """

    parts: Windows
    bucket: np.ndarray
    piece: np.ndarray | None


def kept_facts(store: TokenStore) -> dict[str, pa.DataType]:
    """Return the facts of documents that their pieces keep."""
    own = token_schema(store.info.dtype).names
    return {f.name: f.type for f in store.store.schema if f.name not in own}


def row_schema(config: PackConfig, dtype: str, facts: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the columns of packed rows; facts stay only where a row is of one document."""
    if config.kind != "buckets":
        return token_schema(dtype, {"segments": SEGMENTS})
    own = {"doc": pa.string(), "piece": pa.int32(), "bucket": pa.int8()}
    return token_schema(dtype, {**own, **facts})


def pack_unit(
    *,
    out: Path,
    documents: str,
    version: int,
    content: str,
    number: int,
    start: int,
    stop: int,
    config: Mapping[str, Any],
    cells: Mapping[str, int],
) -> dict[str, Any]:
    """Pack a run of documents into sequences and put each into a random cell: a task.

    Args:
        out: where the cells go.
        documents: path of the token store of documents.
        version: of the store.
        content: hash of the store's tokens; part of the task's identity.
        number: of the unit.
        start: its first document.
        stop: document after its last.
        config: a `PackConfig` as plain data.
        cells: how many cells each bucket has.

    Returns:
        Statistics: `rows`, `tokens`, `dropped` tokens, rows by bucket (`buckets`).
    """
    options = from_dict(PackConfig, config)
    store = TokenStore.open(documents, version)
    if store.info.content != content:
        raise DataError(f"{documents}: was written again while it was read; run again.")
    held = _read(store, start, stop)
    rows, rest, dropped = plan_rows(held.lengths, options, start, number)
    schema = row_schema(options, store.info.dtype, kept_facts(store))
    counts = {int(k): v for k, v in cells.items()}
    drawn = draw_cells(rows.bucket, counts, options.seed, number)
    found = (
        (bucket, cell, _batch(held, rows, chosen, schema, f"{number:06d}"))
        for bucket, cell, chosen in groups(rows.bucket, drawn)
    )
    write_cells(Path(out), found, schema)
    if rest is not None:
        (Path(out) / TAIL).mkdir()
        write_part(Path(out) / TAIL, _tail(held, rest, store.info.dtype), tail_schema(schema))
    return _stats(rows, dropped)


def _stats(rows: Rows, dropped: int) -> dict[str, Any]:
    return {
        "rows": len(rows.bucket),
        "tokens": int(rows.parts.size.sum()),
        "dropped": dropped,
        "buckets": {str(k): int(n) for k, n in enumerate(np.bincount(rows.bucket)) if n},
    }


def _read(store: TokenStore, start: int, stop: int) -> Documents:
    facts = kept_facts(store)
    lengths = store.store.array("length", range(start, stop)).astype(np.int64) + 1
    flat = np.empty(int(lengths.sum()), store.info.dtype)
    others: list[pa.Table] = []
    at = 0
    columns = ["id", "tokens", *facts]
    for batch in store.store.scan(columns, rows=range(start, stop), batch_size=READ_ROWS):
        tokens, _ = flat_tokens(batch.column("tokens"))
        flat[at : at + len(tokens)] = tokens
        at += len(tokens)
        others.append(pa.Table.from_batches([batch]).drop_columns(["tokens"]))
    return Documents(flat, lengths, pa.concat_tables(others).combine_chunks())


def plan_rows(
    lengths: np.ndarray, config: PackConfig, start: int, number: int
) -> tuple[Rows, Windows | None, int]:
    """Return the rows of a unit, what is left for the next unit, and how many tokens are lost.

    Args:
        lengths: tokens of the unit's documents, int64 [N].
        config: how to pack.
        start: number of the unit's first document in the store.
        number: of the unit.
    """
    if config.kind == "buckets":
        keys = np.arange(start, start + len(lengths))
        cut = decompose(
            lengths,
            config.min_log2,
            config.max_log2,
            edges=config.edges,
            randomize=config.randomize,
            seed=config.seed,
            keys=keys,
        )
        one = np.ones(len(cut.start), np.int64)
        parts = Windows(cut.document, cut.start, cut.size, one)
        return Rows(parts, cut.log2, cut.piece), None, int(cut.dropped.sum())
    # neighbours in the corpus are no neighbours in a row
    order = rng("token-documents", config.seed, number).permutation(len(lengths))
    if config.kind == "concat":
        cut = chunk(lengths[order], config.context, overlap=config.overlap)
        rows, rest = (w._replace(document=order[w.document]) for w in cut)
        return _plain(rows), rest, 0
    fitted = pack(lengths[order], config.context)
    counts = np.bincount(fitted.row, minlength=fitted.rows)
    parts = Windows(order[fitted.document], fitted.start, fitted.size, counts)
    # a row of one token predicts nothing
    kept = np.bincount(fitted.row, weights=fitted.size, minlength=fitted.rows) > 1
    chosen = spans(counts, np.flatnonzero(kept))
    lost = int(fitted.size.sum() - parts.size[chosen].sum())
    columns = (parts.document[chosen], parts.start[chosen], parts.size[chosen], counts[kept])
    return _plain(Windows(*columns)), None, lost


def _plain(parts: Windows) -> Rows:
    return Rows(parts, np.zeros(len(parts.counts), np.int64), None)


def _batch(
    held: Documents, rows: Rows, chosen: np.ndarray, schema: pa.Schema, name: str
) -> pa.RecordBatch:
    """Return some rows of a unit with all their columns."""
    parts = rows.parts
    members = spans(parts.counts, chosen)
    counts, size = parts.counts[chosen], parts.size[members]
    begins = (np.cumsum(held.lengths) - held.lengths)[parts.document[members]]
    tokens = gather(held.flat, begins + parts.start[members], size)
    lengths = np.add.reduceat(size, np.cumsum(counts) - counts)
    columns: dict[str, Any] = {
        "tokens": token_list(tokens, lengths, schema.field("tokens").type),
        "length": (lengths - 1).astype(np.int32),
    }
    if rows.piece is None:
        columns["id"] = [f"{name}-{row:08d}" for row in chosen.tolist()]
        columns["segments"] = token_list(size.astype(np.int32), counts, SEGMENTS)
    else:
        facts = held.facts.take(pa.array(parts.document[members])).combine_chunks()
        columns |= {n: facts.column(n).combine_chunks() for n in facts.column_names}
        pieces = rows.piece[chosen]
        columns["doc"] = columns["id"]
        columns["id"] = [
            f"{doc}#{piece}"
            for doc, piece in zip(columns["doc"].to_pylist(), pieces.tolist(), strict=True)
        ]
        columns["piece"], columns["bucket"] = pieces, rows.bucket[chosen]
    arrays = [
        v if isinstance(v, pa.Array) else pa.array(v, field.type)
        for field in schema
        for v in [columns[field.name]]
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def tail_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of what is left of a unit: tokens and lengths of documents."""
    return pa.schema([schema.field("tokens"), pa.field("segments", SEGMENTS)])


def _tail(held: Documents, rest: Windows, dtype: str) -> Iterator[pa.RecordBatch]:
    if not len(rest.counts):
        return
    begins = (np.cumsum(held.lengths) - held.lengths)[rest.document]
    tokens = gather(held.flat, begins + rest.start, rest.size)
    schema = tail_schema(token_schema(dtype))
    whole = np.array([len(tokens)])
    yield pa.RecordBatch.from_arrays(
        [
            token_list(tokens, whole, schema.field("tokens").type),
            token_list(rest.size.astype(np.int32), rest.counts, SEGMENTS),
        ],
        schema=schema,
    )


def pack_tails(
    *,
    out: Path,
    parts: Sequence[str],
    hashes: Sequence[str],
    dtype: str,
    config: Mapping[str, Any],
    cells: Mapping[str, int],
) -> dict[str, Any]:
    """Cut what units left over, laid end to end, into rows like theirs: a task.

    Args:
        out: where the cells go.
        parts: folders of all units, in order.
        hashes: of their contents; part of the task's identity.
        dtype: stored type.
        config: a `PackConfig` as plain data.
        cells: how many cells each bucket has.
    """
    options = from_dict(PackConfig, config)
    tokens, sizes = [np.empty(0, dtype)], [np.empty(0, np.int64)]
    for part in parts:
        for batch in read_part(Path(part) / TAIL):
            tokens.append(flat_tokens(batch.column("tokens"))[0])
            sizes.append(flat_tokens(batch.column("segments"))[0].astype(np.int64))
    lengths = np.concatenate(sizes)
    held = Documents(np.concatenate(tokens), lengths, pa.table({}))
    cut = chunk(lengths, options.context, overlap=options.overlap)
    rows, schema = _plain(cut.rows), row_schema(options, dtype, {})
    counts = {int(k): v for k, v in cells.items()}
    drawn = draw_cells(rows.bucket, counts, options.seed, TAIL)
    found = (
        (bucket, cell, _batch(held, rows, chosen, schema, TAIL))
        for bucket, cell, chosen in groups(rows.bucket, drawn)
    )
    write_cells(Path(out), found, schema)
    return _stats(rows, int(cut.rest.size.sum()))
