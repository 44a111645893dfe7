"""Count a large store in three passes of tasks, a range of rows each, on any executor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.core.provenance import versions
from understudy.curate.counts import shards
from understudy.curate.counts.documents import unit_hash, with_scores
from understudy.curate.counts.greedy import Cut
from understudy.curate.counts.plan import CountConfig
from understudy.curate.counts.store import COLUMN, documents_of
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.data.card import Card
from understudy.data.store import Store

HERE = "understudy.curate.counts.sharded"
ROWS = 262_144
"""Rows of a task: a few seconds of work, a few MB of results."""


def _facts(store: str, version: int, start: int, stop: int, columns: dict[str, Any]) -> Any:
    opened = Store.open(store, version)
    documents = documents_of(opened, rows=np.arange(start, stop), **columns)
    return with_scores(documents, "error")


def sketch_task(
    *, out: Path, store: str, version: int, start: int, stop: int, columns: dict[str, str]
) -> dict[str, Any]:
    """Write a range's sketch."""
    documents = _facts(store, version, start, stop, columns)
    found = shards.sketch(documents.score, documents.duplicates, documents.tokens)
    np.savez(
        out / "sketch.npz", score=found.score, duplicates=found.duplicates,
        documents=found.documents, tokens=found.tokens, smallest=found.smallest,
    )  # fmt: skip
    return {"groups": len(found.score)}


def _solution(path: str) -> shards.Solution:
    with np.load(path) as data:
        cut = Cut(
            level=float(data["level"]), step=float(data["step"]), most=int(data["most"]),
            rounds=int(data["rounds"]), threshold=float(data["threshold"]),
        )  # fmt: skip
        return shards.Solution(
            scores=data["scores"], ranks=data["ranks"], gamma=float(data["gamma"]),
            eta=float(data["eta"]), cut=cut, left=int(data["left"]),
        )  # fmt: skip


def _save_solution(path: Path, found: shards.Solution) -> str:
    cut = found.cut
    np.savez(
        path, scores=found.scores, ranks=found.ranks, gamma=found.gamma, eta=found.eta,
        left=found.left, level=cut.level, step=cut.step, most=cut.most, rounds=cut.rounds,
        threshold=cut.threshold,
    )  # fmt: skip
    return hash_bytes(found.scores.tobytes(), repr((cut, found.left, found.gamma)).encode())


def apply_task(
    *,
    out: Path,
    store: str,
    version: int,
    start: int,
    stop: int,
    columns: dict[str, str],
    solution: str,
    solution_hash: str,
    seed: int,
    phase: str,
) -> dict[str, Any]:
    """Write a range's marginal documents, or its counts."""
    documents = _facts(store, version, start, stop, columns)
    solved, order = _solution(solution), unit_hash(documents.ids, seed)
    score, duplicates = documents.score, documents.duplicates
    if phase == "marginal":
        tokens, order = shards.marginal(solved, score, duplicates, documents.tokens, order)
        np.savez(out / "marginal.npz", tokens=tokens, order=order)
        return {"documents": len(tokens)}
    counts = shards.counts(solved, score, duplicates, order)
    np.save(out / "counts.npy", counts.astype(np.int32))
    used = counts > 0
    return {
        "tokens": int((counts * documents.tokens).sum()),
        "unique_tokens": int(documents.tokens[used].sum()),
        "documents_used": int(used.sum()),
        "max_repeats": int(counts.max()),
    }


def count_store(
    store: Store,
    config: CountConfig,
    work: str | Path,
    *,
    score: str,
    tokens: str = "length",
    duplicates: str = "dup_count",
    column: str = COLUMN,
    rows: int = ROWS,
    on: str = "local",
    workers: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fill a knowledge column with greedy counts, without holding all documents at once.

    Args:
        store: one row a document.
        config: preset `greedy`, scores ranked over all sources.
        work: folder of the tasks; a killed run goes on with what is complete.
        score: column of quality scores, known for every row.
        tokens: column of token counts.
        duplicates: column of cluster sizes; 1 for all if there is none.
        column: what is written, int32.
        rows: rows of a task.
        on: see `understudy.curate.engine.tasks.run_tasks`.
        workers: as there.
        overwrite: replace another plan's counts.

    Returns:
        `tokens`, `unique_tokens`, `documents_used`, `max_repeats`, `lambda`, `mean_repeats`.

    Raises:
        ConfigError: another preset, or a budget out of reach.
        DataError: a row without a score.
    """
    others = config.by_source or config.missing != "error" or config.unique_tokens
    if config.preset != "greedy" or others:
        raise ConfigError(
            "count_store: counts large stores with preset greedy, ranks over all sources, scores "
            "for every row and no floor of unique tokens; use plan_counts for the rest."
        )
    work = Path(work)
    columns = {"score": score, "tokens": tokens, "duplicates": duplicates}
    shared = {"store": str(store.path), "version": store.version, "columns": columns}
    ranges = [(a, min(a + rows, store.num_rows)) for a in range(0, store.num_rows, rows)]

    def phase(name: str, call: str, **args: Any) -> list[Task]:
        return [
            Task(
                key=f"{name} of rows {a:,}-{b - 1:,}",
                call=f"{HERE}:{call}",
                args={**shared, **args, "start": a, "stop": b},
                out=work / name / f"{a:012d}",
            )
            for a, b in ranges
        ]

    def run(tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        return run_tasks(tasks, on=on, workers=workers, label=label)

    first = phase("sketch", "sketch_task")
    run(first, "sketches of scores")
    sketches = [_sketch(task.out / "sketch.npz") for task in first]
    solved = shards.solve(
        shards.merged(sketches), config.budget, gamma=config.gamma, eta=config.eta,
        delta=config.delta, most=config.c_max,
    )  # fmt: skip
    for name in ("marginal", "counts"):
        path = work / f"{name}-solution.npz"
        mark = _save_solution(path, solved)
        tasks = phase(
            name, "apply_task", solution=str(path), solution_hash=mark, seed=config.seed, phase=name
        )
        records = run(tasks, "documents at lambda" if name == "marginal" else "counts")
        if name == "marginal":
            solved = shards.finish(solved, [_marginal(t.out / "marginal.npz") for t in tasks])
    facts: dict[str, Any] = {
        name: sum(r["stats"][name] for r in records)
        for name in ("tokens", "unique_tokens", "documents_used")
    }
    facts["max_repeats"] = max(r["stats"]["max_repeats"] for r in records)
    facts["lambda"] = float(np.exp(solved.cut.level))
    facts["mean_repeats"] = facts["tokens"] / max(facts["unique_tokens"], 1)
    _write(store, column, config, [t.out / "counts.npy" for t in tasks], rows, facts, overwrite)
    return facts


def _sketch(path: Path) -> shards.Sketch:
    with np.load(path) as data:
        arrays = {k: data[k] for k in ("score", "duplicates", "documents", "tokens")}
        return shards.Sketch(**arrays, smallest=int(data["smallest"]))


def _marginal(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as data:
        return data["tokens"], data["order"]


def _write(
    store: Store,
    column: str,
    config: CountConfig,
    files: Sequence[Path],
    rows: int,
    facts: dict[str, Any],
    overwrite: bool,
) -> None:
    card = Card(
        column=column,
        writer="count plan greedy",
        fingerprint=hash_data([facts, str(store.path), store.version]),
        config=to_dict(config),
        versions=versions(),
        seed=config.seed,
        facts=facts,
    )
    with store.job([card], {column: pa.int32()}, overwrite=overwrite) as job:
        for unit in job.todo():
            wanted = job.rows(unit)
            values = np.empty(len(wanted), np.int32)
            for shard in np.unique(wanted // rows).tolist():
                mine = wanted // rows == shard
                counts = np.load(files[shard], mmap_mode="r")
                values[mine] = counts[wanted[mine] - shard * rows]
            job.write(unit, {column: pa.array(values, pa.int32())})
