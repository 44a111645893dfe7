"""Pages, models and units for the tests of quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from understudy.curate.engine.pages import page_schema
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.curate.engine.units import Unit, write_pages
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_fit import FastTextConfig, fit

ENGLISH = (
    "The committee will meet on Thursday to discuss the new budget, and they have asked that all "
    "of the members should send their comments before the end of this week. It was not clear who "
    "had written the first report, but most of them were sure that it would be read by everyone."
)
GERMAN = (
    "Der Zug nach Hamburg hatte gestern wieder eine halbe Stunde Verspätung, und die Reisenden "
    "waren nicht sehr froh. Sie haben aber trotzdem noch das Schiff erreicht, weil es auf sie "
    "gewartet hat."
)


def batch(texts, **columns):
    """Return a page batch; extra columns are (type, values)."""
    schema = page_schema({name: kind for name, (kind, _) in columns.items()})
    count = len(texts)
    data = {
        "id": [f"p{i}" for i in range(count)],
        "text": list(texts),
        "url": [None] * count,
        "source": ["test"] * count,
        "metadata": ["{}"] * count,
        **{name: values for name, (_, values) in columns.items()},
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(data[f.name], f.type) for f in schema], schema=schema
    )


def write_unit(out: Path, start: int, stop: int, scores=None, texts=None):
    """Write pages `start` to `stop` of a pool (a task)."""
    chosen = texts[start:stop] if texts else [f"text {i}" for i in range(start, stop)]
    extra = {}
    if scores is not None:
        extra = {"score.quality": (pa.float32(), scores[start:stop])}
    rows = batch(chosen, **extra)
    ids = pa.array([f"p{i}" for i in range(start, stop)])
    rows = rows.set_column(0, "id", ids)
    write_pages(out, [rows], rows.schema)
    return {"rows": rows.num_rows}


def make_units(folder: Path, sizes, **pool):
    """Return units of these sizes."""
    edges = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    tasks = [
        Task(
            key=f"unit {i}",
            call="quality_world:write_unit",
            args={"start": edges[i], "stop": edges[i + 1], **pool},
            out=folder / f"{i}",
        )
        for i in range(len(sizes))
    ]
    return [Unit.of(t, r) for t, r in zip(tasks, run_tasks(tasks, workers=1), strict=True)]


def run_here(tasks, label):
    """Run tasks in this process."""
    return run_tasks(tasks, workers=1, label=label)


def rows_of(units, column):
    """Return a column of all units."""
    return [
        value for unit in units for b in unit.batches() for value in b.column(column).to_pylist()
    ]


def classifier(labels=("hq", "cc")) -> FastText:
    """Return a small classifier of good words against noise."""
    rng = np.random.default_rng(0)
    texts, targets = [], []
    for i in range(200):
        good = i % 2 == 0
        words = [f"{'good' if good else 'noise'}{k}" for k in rng.integers(0, 9, 8)]
        texts.append(" ".join([*words, *(f"w{k}" for k in rng.integers(0, 9, 8))]))
        targets.append(labels[0] if good else labels[1])
    return fit(texts, targets, FastTextConfig(dim=6, buckets=300, lr=0.5, epochs=8))
