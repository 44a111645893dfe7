"""Keep the best share of a pool: a threshold that is a percentile of the pool itself.

Scores of one classifier lie differently on every pool, so a number that cut the best tenth of one
pool cuts something else from another. The threshold is therefore found on the pages that are to be
filtered, in two passes of counting; a number may be given instead, but only on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import atomic_path, read_json, write_json
from understudy.core.hashing import hash_data
from understudy.curate.engine.stage import Count
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit, read_pages, write_pages
from understudy.curate.quality.columns import SCORE, scores_of, text_bytes
from understudy.curate.quality.histogram import Histogram, exact_threshold, low_counts

POOL = "pool.json"
"""What was found about the pool, in the step's work folder."""


@dataclass(frozen=True, kw_only=True)
class QualityThreshold(GlobalStep):
    """Drop the pages below a percentile of the pool's scores.

    Attributes:
        keep: share of the pool's scored pages to keep, at least one page; ties with the last one
            stay too. 0.1 is DataComp-LM's.
        column: of the scores.
        min_score: keep pages from this score on instead; a number found on another pool keeps
            another share of this one.
        pool: `pool.json` of an earlier run over a larger pool of which these pages are a part; the
            threshold found there is taken.
        rank: column to add, float32 in (0, 1): the share of this pool that is worse; empty for
            none.

    References:
        DataComp-LM, arXiv 2406.11794, section 4 (top 10 %).
    """

    name = "quality-threshold"
    keep: float = 0.1
    column: str = SCORE
    min_score: float | None = None
    pool: str = ""
    rank: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep: expected a share in (0, 1], got {self.keep}.")
        if self.min_score is not None and self.pool:
            raise ConfigError("min_score, pool: expected one of them, got both.")

    def describe(self) -> dict[str, Any]:
        """Return the settings; of a pool what its file says."""
        pool = hash_data(read_pool(self.pool, self.column)) if self.pool else ""
        return {
            "name": self.name,
            "keep": self.keep,
            "column": self.column,
            "min_score": self.min_score,
            "pool": pool,
            "rank": self.rank,
        }

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Count, find the threshold, drop."""
        check_column(units, self.column)
        counted = self._tasks(units, work / "counts", "count_scores", {"column": self.column})
        histogram = Histogram()
        for task in _done(run, counted, f"{self.name} counts"):
            histogram.merge(_histogram(task.out))
        found = self._threshold(units, work, run, histogram)
        found |= {"column": self.column, "pages": histogram.total, "missing": histogram.missing}
        with atomic_path(work / "histogram.npy") as path, open(path, "wb") as file:
            np.save(file, histogram.counts)
        write_json(work / POOL, found)
        args = {
            "column": self.column,
            "threshold": found["threshold"],
            "name": self.name,
            "rank": self.rank,
            "histogram": str(work / "histogram.npy") if self.rank else "",
            "pool": hash_data([found, histogram.counts.tolist() if self.rank else []]),
        }
        tasks = self._tasks(units, work / "pages", "keep_above", args)
        records = run(tasks, self.name) if tasks else []
        triples = zip(units, tasks, records, strict=True)
        return [Unit.of(task, record, unit.key) for unit, task, record in triples]

    def _tasks(
        self, units: Sequence[Unit], work: Path, function: str, args: Mapping[str, Any]
    ) -> list[Task]:
        return [
            Task(
                key=f"{self.name} {function}: {unit.key}",
                call=f"{__name__}:{function}",
                args={"folder": str(unit.folder), "hash": unit.hash, **args},
                out=work / f"unit-{number:05d}",
            )
            for number, unit in enumerate(units)
        ]

    def _threshold(
        self, units: Sequence[Unit], work: Path, run: RunTasks, histogram: Histogram
    ) -> dict[str, Any]:
        if self.min_score is not None:
            return {"threshold": self.min_score, "from": "min_score"}
        if self.pool:
            return {"threshold": read_pool(self.pool, self.column)["threshold"], "from": "pool"}
        if histogram.total == 0:
            if histogram.missing:
                raise DataError(
                    f"{self.name}: all {histogram.missing:,} pages lack a '{self.column}'; run the "
                    "scoring pass first (step quality-score)."
                )
            return {"threshold": 0.0, "from": "empty pool"}
        number = max(1, int(np.ceil(self.keep * histogram.total - 1e-9)))
        high, rank = histogram.bin_of_top(number)
        refined = self._tasks(
            units, work / "refined", "count_low", {"column": self.column, "high": high}
        )
        low = np.zeros(1 << 16, np.int64)
        for task in _done(run, refined, f"{self.name} refined"):
            low += np.load(task.out / "low.npy")
        threshold = exact_threshold(high, rank, low)
        return {"threshold": threshold, "from": "percentile", "keep": self.keep, "wanted": number}


def _done(run: RunTasks, tasks: Sequence[Task], label: str) -> Sequence[Task]:
    if tasks:
        run(tasks, label)
    return tasks


def check_column(units: Sequence[Unit], column: str) -> None:
    """Refuse pages without a column of scores.

    Raises:
        DataError: it is missing; the message names the scoring pass.
    """
    for unit in units:
        if column not in unit.schema.names:
            raise DataError(
                f"quality-threshold: a percentile needs the pool's scores, and the pages of "
                f"{unit.key} have no column '{column}'; run the scoring pass first (step "
                "quality-score), or name the column that holds the scores."
            )


def read_pool(path: str | Path, column: str) -> dict[str, Any]:
    """Return what an earlier run found about a pool.

    Raises:
        DataError: missing, or about other scores; the message names the scoring pass.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{path}: no such pool statistics; run the scoring pass first: quality-score and "
            "quality-threshold over the whole pool leave them in the run's work folder."
        )
    found = read_json(path)
    if not isinstance(found, dict) or not {"threshold", "column"} <= set(found):
        raise DataError(f"{path}: not pool statistics; expected 'threshold' and 'column'.")
    if found["column"] != column:
        raise DataError(f"{path}: of the column '{found['column']}', expected '{column}'.")
    return found


def count_scores(out: Path, folder: str, hash: str, column: str) -> dict[str, Any]:
    """Count a unit's scores (a task)."""
    histogram = Histogram()
    for batch in read_pages(folder):
        histogram.add(scores_of(batch, column))
    np.save(out / "counts.npy", histogram.counts)
    write_json(out / "missing.json", histogram.missing)
    return {"scores": histogram.total, "missing": histogram.missing}


def _histogram(folder: Path) -> Histogram:
    return Histogram(np.load(folder / "counts.npy"), int(read_json(folder / "missing.json")))


def count_low(out: Path, folder: str, hash: str, column: str, high: int) -> dict[str, Any]:
    """Count the lower halves of a unit's scores in one bin (a task)."""
    low = np.zeros(1 << 16, np.int64)
    for batch in read_pages(folder):
        low += low_counts(scores_of(batch, column), high)
    np.save(out / "low.npy", low)
    return {"scores": int(low.sum())}


def keep_above(
    out: Path,
    folder: str,
    hash: str,
    column: str,
    threshold: float,
    name: str,
    rank: str,
    histogram: str,
    pool: str,
) -> dict[str, Any]:
    """Write a unit's pages from a score on (a task)."""
    count = Count()
    schema = Unit(key="", folder=Path(folder), hash="", rows=0).schema
    ranks = Histogram(np.load(histogram)) if rank else None
    if rank and rank not in schema.names:
        schema = schema.append(pa.field(rank, pa.float32()))

    def kept() -> Any:
        for batch in read_pages(folder):
            scores = scores_of(batch, column)
            good = scores >= np.float32(threshold)
            count.pages_in += batch.num_rows
            count.bytes_in += text_bytes(batch)
            count.reasons["no score"] += int(np.isnan(scores).sum())
            count.reasons[name] += int((scores < np.float32(threshold)).sum())
            columns = {n: batch.column(n) for n in batch.schema.names}
            if ranks is not None:
                columns[rank] = pa.array(ranks.ranks(scores), pa.float32(), from_pandas=True)
            full = pa.RecordBatch.from_arrays([columns[n] for n in schema.names], schema=schema)
            left = full.filter(pa.array(good))
            count.bytes_out += text_bytes(left)
            yield left

    count.pages_out = write_pages(out, kept(), schema)
    count.reasons = +count.reasons  # without those that dropped nothing
    return {"rows": count.pages_out, "count": count.to_plain()}
