"""What the tests of deduplication share: units of pages, runs, and a slow second opinion."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.curate.engine.pages import Page, batch_of
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.curate.engine.units import GlobalStep, Unit, read_pages, write_pages

VOCABULARY = [f"{a}{b}" for a in "bdfgklmnprstv" for b in ("a", "ei", "o", "un", "ick", "al")]


def write_unit(out: Path, texts: list[str], key: str, counts: list[int] | None) -> dict[str, Any]:
    added = {} if counts is None else {"dup_count": pa.int32()}
    data = [{} if counts is None else {"dup_count": c} for c in counts or texts]
    pages = [
        Page(id=f"{key}-{i}", text=t, data=d)
        for i, (t, d) in enumerate(zip(texts, data, strict=True))
    ]
    batch = batch_of(pages, added)
    return {"rows": write_pages(out, [batch], batch.schema)}


def units_of(
    folder: Path, texts: Sequence[Sequence[str]], counts: Sequence[list[int]] | None = None
) -> list[Unit]:
    """Write one unit for each list of texts; page ids are `u<unit>-<row>`."""
    tasks = [
        Task(
            key=f"input {n}",
            call="dedup_kit:write_unit",
            args={"texts": list(t), "key": f"u{n}", "counts": counts[n] if counts else None},
            out=folder / f"in-{n}",
        )
        for n, t in enumerate(texts)
    ]
    return [
        Unit.of(t, r, f"u{n}")
        for n, (t, r) in enumerate(zip(tasks, run_tasks(tasks, workers=1), strict=True))
    ]


def run_step(step: GlobalStep, units: Sequence[Unit], work: Path, workers: int = 1) -> list[Unit]:
    def run(tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        return run_tasks(tasks, workers=workers, label=label)

    return step.run(units, work, run)


def rows_of(units: Sequence[Unit]) -> list[dict[str, Any]]:
    return [row for unit in units for batch in read_pages(unit.folder) for row in batch.to_pylist()]


def ids(units: Sequence[Unit]) -> list[str]:
    return [row["id"] for row in rows_of(units)]


def texts(units: Sequence[Unit]) -> list[str]:
    return [row["text"] for row in rows_of(units)]


def sentence(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(VOCABULARY, k=words))


def near_copies(seed: int, documents: int, originals: int, words: int = 60) -> list[str]:
    """Return documents that are copies of a few originals with some words exchanged."""
    generator = random.Random(seed)
    base = [sentence(generator, words).split() for _ in range(originals)]
    found = []
    for _ in range(documents):
        text = list(generator.choice(base))
        for _ in range(generator.choice([0, 0, 1, 1, 2, 8, 30])):
            text[generator.randrange(len(text))] = generator.choice(VOCABULARY)
        found.append(" ".join(text))
    return found


def groups_of(size: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the smallest member of each node's connected component, by flooding."""
    near: dict[int, set[int]] = {n: set() for n in range(size)}
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    found = [-1] * size
    for node in range(size):
        waiting = [node] if found[node] < 0 else []
        while waiting:
            one = waiting.pop()
            if found[one] < 0:
                found[one] = node
                waiting += near[one]
    return found


parallel = partial(run_step, workers=2)


def backwards(step: GlobalStep, units: Sequence[Unit], work: Path) -> list[Unit]:
    """Run a step with the tasks of each phase in reverse order, one at a time."""

    def run(tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        return [run_tasks([t], workers=1, label=label)[0] for t in reversed(tasks)][::-1]

    return step.run(units, work, run)
