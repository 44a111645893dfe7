"""What a worker does to tokenise: a unit of input to a file of token sequences."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.inputs import InputUnit
from understudy.curate.engine.pages import Page
from understudy.curate.text.sources import read_input
from understudy.curate.text.sources_bad import Skipped
from understudy.curate.tokens.encoders import Encoder, load_encoder
from understudy.curate.tokens.parts import write_part
from understudy.curate.tokens.stats import log2_histogram
from understudy.data.tokens import FACTS, list_array, token_schema

UNIT_BYTES = 16 << 20
BATCH_TEXT = 1 << 20
"""Characters of text after which a batch of documents is encoded."""
BATCH_DOCUMENTS = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class TokeniseConfig:
    """What decides the tokens.

    Attributes:
        tokenizer: a `tokenizer.json`, a folder of Transformers with one, a tokenizer that this
            project saved, or `tiktoken:<encoding>`.
        eot: the token that ends documents; empty for the one that the tokenizer names.
        dtype: stored type, `uint16` or `uint32`; empty chooses by the number of ids.
        facts: columns to keep: `source`, or fields of the documents, each `name` (a string) or
            `name:type` with an Arrow type such as `time:int64` or `score.quality:float32`.
        strict: stop at the first document that cannot be used; otherwise skip and count it.
        unit_bytes: target size of a unit of work, in bytes.
    """

    tokenizer: str
    eot: str = ""
    dtype: str = ""
    facts: tuple[str, ...] = ("source",)
    strict: bool = True
    unit_bytes: int = UNIT_BYTES

    def __post_init__(self) -> None:
        fact_types(self.facts)


def fact_types(facts: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the columns to keep with their types.

    Raises:
        ConfigError: no such type, or a name of the store's own.
    """
    found: dict[str, pa.DataType] = {}
    for fact in facts:
        name, _, alias = fact.partition(":")
        if name in (*token_schema("uint16").names, *FACTS):
            raise ConfigError(f"facts: '{name}' is a column of every token store.")
        try:
            found[name] = pa.type_for_alias(alias or "string")
        except ValueError:
            raise ConfigError(f"facts: '{alias}' of '{name}' is not an Arrow type.") from None
    return found


def tokenise_unit(
    *, out: Path, unit: Mapping[str, Any], config: Mapping[str, Any], fingerprint: str
) -> dict[str, Any]:
    """Tokenise a unit of input: a task.

    Args:
        out: where `tokens.arrow` goes.
        unit: of input, as plain data.
        config: as plain data.
        fingerprint: of the tokenizer; part of the task's identity.

    Returns:
        Statistics: `documents`, `tokens`, `characters`, documents that were `skipped` by reason
        with `examples`, and how many documents have floor(log2(tokens)) = k (`lengths`).
    """
    options = from_dict(TokeniseConfig, config)
    encoder = _encoder(options.tokenizer, options.eot, options.dtype, fingerprint)
    source, skipped = InputUnit.from_plain(unit), Skipped(options.strict)
    facts = fact_types(options.facts)
    schema = token_schema(encoder.dtype.name, facts)
    totals = {"documents": 0, "tokens": 0, "characters": 0}
    lengths: Counter[int] = Counter()

    def batches() -> Iterator[pa.RecordBatch]:
        for pages in _groups(_usable(source, skipped)):
            rows = _encode(pages, encoder, skipped)
            sizes = np.array([len(tokens) for _, tokens in rows], np.int64)
            totals["documents"] += len(rows)
            totals["tokens"] += int(sizes.sum())
            totals["characters"] += sum(len(page.text) for page, _ in rows)
            lengths.update(log2_histogram(sizes))
            yield _batch(rows, schema, facts)

    with _one_thread():
        write_part(out, batches(), schema)
    return {
        **totals,
        "skipped": dict(sorted(skipped.reasons.items())),
        "examples": skipped.examples,
        "lengths": {str(k): lengths[k] for k in sorted(lengths)},
    }


@lru_cache(maxsize=1)
def _encoder(tokenizer: str, eot: str, dtype: str, fingerprint: str) -> Encoder:
    """Return the encoder of all units of a process.

    The tokenizers library keeps about 4 MB for each tokenizer that was ever used, also after it is
    gone (0.23), so one a unit would make memory grow with the input.

    Raises:
        DataError: the tokenizer is another one by now.
    """
    encoder = load_encoder(tokenizer, eot, dtype)
    if encoder.fingerprint != fingerprint:
        raise DataError(f"tokenizer {tokenizer}: changed while it was in use; run again.")
    return encoder


def _usable(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    for page in read_input(unit, skipped):
        if page.text.strip():
            yield page
        else:
            where = getattr(skipped, "place", "") or f"{unit.path}, document {skipped.read:,}"
            skipped.bad(where, "empty", f"the text of '{page.id}' is empty")


def _groups(pages: Iterator[Page]) -> Iterator[list[Page]]:
    held: list[Page] = []
    size = 0
    for page in pages:
        held.append(page)
        size += len(page.text)
        if size >= BATCH_TEXT or len(held) == BATCH_DOCUMENTS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _encode(
    pages: Sequence[Page], encoder: Encoder, skipped: Skipped
) -> list[tuple[Page, np.ndarray]]:
    rows = []
    end = np.array([encoder.eot_id], encoder.dtype)
    for page, ids in zip(pages, encoder.encode_batch([p.text for p in pages]), strict=True):
        if len(ids):
            rows.append((page, np.concatenate([ids, end])))
        else:
            where = f"{page.source}, document '{page.id}'"
            skipped.bad(where, "no tokens", f"{encoder.name} gives no token for its text")
    return rows


def _batch(
    rows: Sequence[tuple[Page, np.ndarray]], schema: pa.Schema, facts: Mapping[str, pa.DataType]
) -> pa.RecordBatch:
    dtype = schema.field("tokens").type.value_type.to_pandas_dtype()
    tokens = list_array([t for _, t in rows], np.dtype(dtype).name)
    arrays: list[pa.Array] = [
        pa.array([page.id for page, _ in rows], pa.string()),
        tokens,
        pa.array([len(t) - 1 for _, t in rows], pa.int32()),
    ]
    found = [page.facts() for page, _ in rows] if set(facts) - {"source"} else []
    for name, kind in facts.items():
        values = (
            [page.source for page, _ in rows]
            if name == "source"
            else [one.get(name) for one in found]
        )
        arrays.append(_column(name, kind, values, rows))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(
    name: str, kind: pa.DataType, values: list[Any], rows: Sequence[tuple[Page, np.ndarray]]
) -> pa.Array:
    if pa.types.is_string(kind):
        values = [None if v is None else str(v) for v in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for (page, _), value in zip(rows, values, strict=True):
            try:
                pa.array([value], kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                raise DataError(
                    f"{page.source}, document '{page.id}': field '{name}' holds "
                    f"{str(value)[:40]!r}, which is not {kind}; give its type as '{name}:string'."
                ) from None
        raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the tokenizers library to one thread: tasks are what runs side by side."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
