"""The end of a run: pages of all units become one store, with where they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.core.provenance import versions
from understudy.curate.engine.inputs import InputUnit
from understudy.curate.engine.pages import BASE
from understudy.curate.engine.units import Unit

META = "curate"
"""Where a store's `meta` says how it was curated."""
MAX_SOURCES = 1_000
"""Sources that are listed one by one."""


def write_store(
    path: str | Path, units: Sequence[Unit], meta: Mapping[str, Any], *, overwrite: bool
) -> int:
    """Write the pages of all units, in order, as a store.

    Args:
        path: where to.
        units: the pages.
        meta: how they came about.
        overwrite: replace a store that is there.

    Returns:
        How many pages there are.

    Raises:
        DataError: two pages share an id (both sources are named), columns do not fit, or the disk
            is full.
    """
    from understudy.data.store import Store

    schema = _schema(units)

    def batches() -> Iterator[pa.RecordBatch]:
        for unit in units:
            for batch in unit.batches():
                yield _fit(batch, schema)

    try:
        store = Store.create(
            path, batches(), schema=schema, overwrite=overwrite, meta={META: dict(meta)}
        )
    except DataError:
        check_ids(units)
        raise
    return store.num_rows


def _schema(units: Sequence[Unit]) -> pa.Schema:
    fields: dict[str, pa.DataType] = dict(BASE)
    by: dict[str, str] = {}
    for unit in units:
        for field in unit.schema:
            known = fields.setdefault(field.name, field.type)
            other = by.setdefault(field.name, unit.key)
            if known != field.type:
                raise DataError(
                    f"column '{field.name}': {known} in {other} but {field.type} in {unit.key}; "
                    "the steps of all sections must give a column one type."
                )
    return pa.schema(list(fields.items()))


def _fit(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with all columns; those that its unit lacks are null."""
    arrays = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def check_ids(units: Sequence[Unit]) -> None:
    """Refuse pages that share an id.

    Raises:
        DataError: the first such id and the sources of two of its pages.
    """
    total = sum(unit.rows for unit in units)
    hashes, at = np.empty(total, np.uint64), 0
    for unit in units:
        for batch in unit.batches():
            for id in batch.column("id").to_pylist():
                hashes[at] = int(hash_bytes(id.encode())[:16], 16)
                at += 1
    order = np.sort(hashes[:at])
    doubled = set(order[1:][order[1:] == order[:-1]].tolist())
    if not doubled:
        return
    seen: dict[str, str] = {}
    for unit in units:
        for batch in unit.batches():
            pairs = zip(
                batch.column("id").to_pylist(), batch.column("source").to_pylist(), strict=True
            )
            for id, source in pairs:
                if int(hash_bytes(id.encode())[:16], 16) not in doubled:
                    continue
                if id in seen:
                    raise DataError(
                        f"page id '{id}' comes twice: from {seen[id]} and from {source}; ids that "
                        "come with records must be unique over all inputs. Rename one, or leave "
                        "the field 'id' out: ids are then made."
                    )
                seen[id] = source


def provenance(inputs: Sequence[InputUnit], reads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the pages were read from: sources with sizes and hashes of their bytes.

    Args:
        inputs: units of input.
        reads: records of the tasks that read them.
    """
    hashes: dict[str, list[str]] = {}
    sizes: Counter[str] = Counter()
    for unit, record in zip(inputs, reads, strict=True):
        hashes.setdefault(unit.source, []).append(record["stats"]["input_hash"])
        sizes[unit.source] += unit.bytes
    sources = [
        {"source": name, "bytes": sizes[name], "hash": hash_data(found)}
        for name, found in hashes.items()
    ]
    return {
        "units": len(inputs),
        "bytes": sum(sizes.values()),
        "hash": hash_data(sources),
        "sources": sources[:MAX_SOURCES],
        "sources_not_listed": max(0, len(sources) - MAX_SOURCES),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of what decides how text is read and judged."""
    return versions("resiliparse", "trafilatura", "fastwarc", "regex", "zstandard", "ray")
