"""What a run would do and cost, from its list of units and a sample of its pages."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.errors import UnderstudyError
from understudy.curate.engine.executors import Here, cores
from understudy.curate.engine.inputs import InputUnit, find_inputs
from understudy.curate.engine.phases import Run, phases
from understudy.curate.engine.pipeline import Built, Pipeline
from understudy.curate.engine.run import RunConfig
from understudy.curate.engine.units import PAGES, GlobalStep

SAMPLE_UNITS = 4
SAMPLE_PAGES = 250
"""Pages that are read of each unit of the sample."""


@dataclass(kw_only=True)
class DryRun:
    """What a run would do.

    Attributes:
        units: of input.
        ignored: files of other kinds, by the end of their names.
        steps: (number, name, how it runs, arguments) of each step.
        workers: processes that would share the work.
        sample_pages: pages that were tried.
        sample_bytes: bytes of text of these.
        kept: fraction of the sample's pages that was left.
        seconds: estimated processor seconds of the whole run; None if the sample could not be run.
        disk_bytes: estimated bytes of the work folder and the store.
        why_not: why there is no estimate.
    """

    units: list[InputUnit]
    ignored: dict[str, int]
    steps: list[tuple[int, str, str, str]]
    workers: int
    sample_pages: int = 0
    sample_bytes: int = 0
    kept: float = 0.0
    seconds: float | None = None
    disk_bytes: float | None = None
    why_not: str = ""
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, str]:
        """Return what is shown below the tables."""
        total = sum(unit.bytes for unit in self.units)
        found = {"input": f"{len(self.units):,} units, {total / 1e6:,.2f} MB"}
        if self.ignored:
            found["passed over"] = ", ".join(f"{n:,} {end}" for end, n in self.ignored.items())
        if self.seconds is None or self.disk_bytes is None:
            return {**found, "estimate": f"none ({self.why_not})"}
        return {
            **found,
            "sample": f"{self.sample_pages:,} pages, {self.sample_bytes / 1e6:,.2f} MB of text, "
            f"{100 * self.kept:.1f} % kept",
            "time": f"about {self.seconds / self.workers:,.0f} s with {self.workers} workers "
            f"({self.seconds:,.0f} s of work)",
            "disk": f"about {self.disk_bytes / 1e6:,.1f} MB for the work folder and the store",
        }

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "units": [unit.to_plain() for unit in self.units],
            "steps": [
                {"step": n, "name": name, "runs": runs, "args": args}
                for n, name, runs, args in self.steps
            ],
            "ignored": self.ignored,
            "workers": self.workers,
            "sample_pages": self.sample_pages,
            "sample_bytes": self.sample_bytes,
            "kept": self.kept,
            "seconds": self.seconds,
            "disk_bytes": self.disk_bytes,
            "why_not": self.why_not,
        }


def dry_run(
    pipeline: Pipeline, inputs: Sequence[str | Path], store: str | Path, config: RunConfig
) -> DryRun:
    """Return what a run would do and cost, without writing anything that stays.

    The first pages of a few units go through the whole pipeline; time and disk of the run are
    theirs, scaled by size. What grows faster than the input, such as pairs of near duplicates, is
    underestimated by that.

    Args:
        pipeline: the steps.
        inputs: files, folders and stores.
        store: where the pages would go; not touched.
        config: how it would run.
    """
    built = pipeline.build(config.seed)
    found = find_inputs(inputs, unit_bytes=config.unit_bytes, patterns=pipeline.patterns)
    result = DryRun(
        units=found.units,
        ignored=found.ignored,
        steps=_steps(built),
        workers=config.workers or cores(),
    )
    with tempfile.TemporaryDirectory(prefix="understudy-dry-run-") as name:
        try:
            _sample(result, built, Path(name), config)
        except UnderstudyError as error:
            result.why_not = str(error)
    return result


def _steps(built: Sequence[Built]) -> list[tuple[int, str, str, str]]:
    fused = {id(one): i for i, group in enumerate(phases(built)) for one in group}
    rows = []
    for one in built:
        runs = "commit"
        if isinstance(one.stage, GlobalStep):
            runs = "over all units"
        elif one.stage is not None:
            runs = f"per unit, pass {fused[id(one)] + 1}"
        if one.source is not None:
            runs += f", {one.source}"
        args = ", ".join(f"{k}={json.dumps(v)}" for k, v in one.step.args.items())
        rows.append((one.step.number, one.step.name, runs, args))
    return rows


def _sample(result: DryRun, built: Sequence[Built], work: Path, config: RunConfig) -> None:
    """Run the pipeline over a sample and scale what it took."""
    units = result.units
    step = max(1, -(-len(units) // SAMPLE_UNITS))
    chosen = units[::step]
    folder, sizes = work / "sample", []
    folder.mkdir()
    inputs = []
    for number, unit in enumerate(chosen):
        sampled, size = _head(unit, folder / f"{number}.jsonl", config.strict)
        inputs.append(sampled)
        sizes.append(size)
    total = sum(unit.bytes for unit in units)
    # bytes on disk that the sample stands for
    tried = sum(sizes)
    if not tried:
        result.why_not = "the sample has no pages"
        return
    start = time.process_time()
    with Here() as here:
        run = Run(inputs=inputs, work=work / "work", executor=here, seed=config.seed)
        for _ in run.all(built):
            pass
    seconds = time.process_time() - start
    disk = sum(f.stat().st_size for f in (work / "work").rglob("*") if f.is_file())
    last = sum((unit.folder / PAGES).stat().st_size for unit in run.units)
    scale = total / tried
    read = run.funnel[0].count
    result.sample_pages, result.sample_bytes = read.pages_out, read.bytes_out
    result.kept = sum(unit.rows for unit in run.units) / max(1, read.pages_out)
    result.seconds = seconds * scale
    # Lance keeps text about as large as it is; the work folder is compressed
    text = sum(int(row.count.bytes_out) for row in run.funnel[-1:])
    result.disk_bytes = (disk + max(last, text)) * scale


def _head(unit: InputUnit, path: Path, strict: bool) -> tuple[InputUnit, float]:
    """Write the first pages of a unit as JSON lines; return them as a unit, and their size.

    The size is in bytes of the input on disk: a share of the unit's, by pages.
    """
    from understudy.curate.text.sources import read_input
    from understudy.curate.text.sources_bad import Skipped

    skipped = Skipped(strict)
    pages = read_input(unit, skipped)
    head = list(itertools.islice(pages, SAMPLE_PAGES))
    text = sum(len(page.text.encode()) for page in head)
    with open(path, "w") as file:
        for page in head:
            record = {
                "id": page.id,
                "text": page.text,
                "url": page.url,
                "source": page.source,
                "metadata": page.facts(),
            }
            file.write(json.dumps(record) + "\n")
    whole = next(pages, None) is None
    size = float(unit.bytes) if whole else min(float(unit.bytes), text * _packing(unit))
    sampled = InputUnit(
        key=f"sample {unit.key}",
        source=unit.source,
        kind="lines",
        path=str(path),
        bytes=path.stat().st_size,
        state="sample",
    )
    return sampled, size


def _packing(unit: InputUnit) -> float:
    """Return bytes on disk for a byte of text, roughly: compressed text takes a third."""
    packed = unit.path.endswith((".gz", ".zst", ".zstd")) or unit.kind == "parquet"
    return 1 / 3 if packed else 1.0
