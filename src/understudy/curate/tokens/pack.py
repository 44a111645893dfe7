"""Documents to shuffled training sequences: units to cells, cells to a token store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.curate.engine.executors import Executor, executor
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.curate.engine.workplace import Workplace
from understudy.curate.tokens.cells import ROW_BYTES, plan_cells, units_by_tokens
from understudy.curate.tokens.jobs import MADE, TokenRun, done_before, tidy
from understudy.curate.tokens.pack_config import PackConfig
from understudy.curate.tokens.pack_unit import kept_facts, plan_rows, row_schema
from understudy.curate.tokens.parts import read_part
from understudy.data.tokens import TokenInfo, TokenStore, token_schema

_UNIT = "understudy.curate.tokens.pack_unit"
_CELL = "understudy.curate.tokens.cells"


def pack_documents(
    documents: str | Path,
    store: str | Path,
    config: PackConfig,
    run: TokenRun | None = None,
) -> TokenStore:
    """Pack a token store of documents into shuffled sequences; after a kill, it goes on.

    The order is uniform over all orders; of buckets, inside of each one, shortest bucket first. It
    depends on the documents, the seed and `memory`, not on workers or executor.

    Args:
        documents: a token store of kind `documents`.
        store: where the sequences go.
        config: what decides them.
        run: where it runs.

    Returns:
        A store of kind `config.kind`; its `meta` has the statistics: rows and tokens by bucket,
        tokens that were dropped, bytes of the largest cell.

    Raises:
        DataError: no documents, no sequence is long enough, or there is another store.
        ConfigError: the memory is too small.
    """
    run = run or TokenRun()
    source = TokenStore.open(documents)
    if source.info.kind != "documents":
        raise DataError(f"{documents}: holds '{source.info.kind}'; only documents can be packed.")
    identity = hash_data([to_dict(config), source.fingerprint])
    there = done_before(store, identity, run.overwrite)
    work = run.folder(store)
    if there is not None:
        tidy(work, run)
        return there
    units, cells, expected = _plan(source, config)
    run.check_units(max(len(units), sum(cells.values())), "units of documents")
    with Workplace(work) as place, executor(run.on, run.workers) as runs:
        parts, records = _units(source, units, cells, config, work, runs)
        order, shuffled = _cells(parts, records, cells, config, work, runs)
        stats = _totals(records, shuffled, expected)
        if not stats["rows"]:
            raise DataError(
                f"{documents}: no document gives a sequence ({expected['documents']:,} documents, "
                f"by floor(log2(tokens)): {expected['lengths']}); choose shorter sequences."
            )
        made = _write(store, source, order, config, run, {"identity": identity, "stats": stats})
        place.note("done")
    tidy(work, run)
    return made


def _plan(
    source: TokenStore, config: PackConfig
) -> tuple[list[tuple[int, int]], dict[int, int], dict[str, Any]]:
    """Return the units, the cells of each bucket, and what is known before the start.

    How documents are cut depends on their lengths only, so the numbers are exact (of best-fit
    packing, an upper limit).
    """
    from understudy.curate.tokens.stats import log2_histogram

    itemsize = np.dtype(source.info.dtype).itemsize
    lengths = source.lengths.astype(np.int64) + 1
    units = units_by_tokens(lengths, itemsize, config.memory)
    rows: Counter[int] = Counter()
    if config.kind == "buckets":
        for number, (start, stop) in enumerate(units):
            found, _, _ = plan_rows(lengths[start:stop], config, start, number)
            rows.update({k: int(n) for k, n in enumerate(np.bincount(found.bucket)) if n})
    else:
        stride = config.context + 1 - config.overlap
        # half-full rows at worst: two that are less than half full would have been one
        rows[0] = int(lengths.sum()) // stride * (2 if config.kind == "packed" else 1) + len(units)
    widths = {k: (1 << k) + 1 if config.kind == "buckets" else config.context + 1 for k in rows}
    cells = {
        k: plan_cells(n, widths[k] * itemsize + ROW_BYTES, config.memory)
        for k, n in sorted(rows.items())
    }
    shown = {"documents": len(lengths), "lengths": log2_histogram(lengths)}
    return units, cells, shown


def _units(
    source: TokenStore,
    units: Sequence[tuple[int, int]],
    cells: Mapping[int, int],
    config: PackConfig,
    work: Path,
    runs: Executor,
) -> tuple[list[Path], list[dict[str, Any]]]:
    options, counts = to_dict(config), {str(k): n for k, n in cells.items()}
    tasks = [
        Task(
            key=f"documents {start} to {stop}",
            call=f"{_UNIT}:pack_unit",
            args={
                "documents": str(source.path),
                "version": source.store.version,
                "content": source.info.content,
                "number": number,
                "start": start,
                "stop": stop,
                "config": options,
                "cells": counts,
            },
            out=work / "units" / f"{number:06d}",
        )
        for number, (start, stop) in enumerate(units)
    ]
    records = run_tasks(tasks, on=runs, label="pack")
    if config.kind == "concat":
        tails = Task(
            key="what units left over",
            call=f"{_UNIT}:pack_tails",
            args={
                "parts": [str(task.out) for task in tasks],
                "hashes": [record["hash"] for record in records],
                "dtype": source.info.dtype,
                "config": options,
                "cells": counts,
            },
            out=work / "units" / "tails",
        )
        records += run_tasks([tails], on=runs, label="pack the rest")
        tasks.append(tails)
    return [task.out for task in tasks], records


def _cells(
    parts: Sequence[Path],
    records: Sequence[Mapping[str, Any]],
    cells: Mapping[int, int],
    config: PackConfig,
    work: Path,
    runs: Executor,
) -> tuple[list[Path], list[dict[str, Any]]]:
    tasks = [
        Task(
            key=f"cell {bucket}.{cell}",
            call=f"{_CELL}:shuffle_cell",
            args={
                "parts": [str(part) for part in parts],
                "hashes": [record["hash"] for record in records],
                "bucket": bucket,
                "cell": cell,
                "seed": config.seed,
                "memory": config.memory,
            },
            out=work / "cells" / f"{bucket:02d}-{cell:06d}",
        )
        for bucket, count in sorted(cells.items())
        for cell in range(count)
    ]
    found = run_tasks(tasks, on=runs, label="shuffle")
    kept = [t.out for t, r in zip(tasks, found, strict=True) if r["stats"]["rows"]]
    return kept, found


def _totals(
    units: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    expected: Mapping[str, Any],
) -> dict[str, Any]:
    buckets: Counter[int] = Counter()
    for record in units:
        buckets.update({int(k): n for k, n in record["stats"]["buckets"].items()})
    return {
        **{k: sum(r["stats"][k] for r in units) for k in ("rows", "tokens", "dropped")},
        "buckets": {str(k): buckets[k] for k in sorted(buckets)},
        "lengths": {str(k): n for k, n in expected["lengths"].items()},
        "cells": len(cells),
        "largest_cell_bytes": max((r["stats"]["bytes"] for r in cells), default=0),
    }


def _write(
    store: str | Path,
    source: TokenStore,
    order: Sequence[Path],
    config: PackConfig,
    run: TokenRun,
    made: Mapping[str, Any],
) -> TokenStore:
    bucketed = config.kind == "buckets"
    info = TokenInfo(
        kind=config.kind,
        tokenizer=source.info.tokenizer,
        tokenizer_hash=source.info.tokenizer_hash,
        vocab_size=source.info.vocab_size,
        eot_id=source.info.eot_id,
        dtype=source.info.dtype,
        context=1 << config.max_log2 if bucketed else config.context,
        min_log2=config.min_log2 if bucketed else None,
        max_log2=config.max_log2 if bucketed else None,
        documents=source.info.documents,
        source=source.info.source,
    )
    schema = row_schema(config, info.dtype, kept_facts(source))
    own = token_schema(info.dtype).names
    return TokenStore.create(
        store,
        (batch.cast(schema) for part in order for batch in read_part(part)),
        info,
        facts={field.name: field.type for field in schema if field.name not in own},
        meta={MADE: {**made, "options": to_dict(config)}},
        overwrite=run.overwrite,
    )
