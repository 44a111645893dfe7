"""A run from inputs to a store: checked before it starts, going on where it was stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.curate.engine import finish
from understudy.curate.engine.dropped import collect
from understudy.curate.engine.executors import executor
from understudy.curate.engine.inputs import UNIT_BYTES, Found, find_inputs
from understudy.curate.engine.phases import Run
from understudy.curate.engine.pipeline import Built, Pipeline
from understudy.curate.engine.report import CurateReport, FunnelRow
from understudy.curate.engine.workplace import Workplace, default_work


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How a pipeline runs.

    Attributes:
        on: `local`, `ray` (this machine) or `ray://host:port`.
        workers: processes, 0 for one a core; the result does not depend on it.
        seed: of steps that draw random numbers.
        strict: stop at the first record that cannot be read; otherwise count and go on.
        unit_bytes: target size of a unit of work, in bytes.
        work: work folder; `STORE.curate` if absent.
        keep_work: leave the work folder when the store is written.
        exclusions: folder for the pages that steps drop, with reasons.
        overwrite: replace a store that is there.
    """

    on: str = "local"
    workers: int = 0
    seed: int = 0
    strict: bool = True
    unit_bytes: int = UNIT_BYTES
    work: str | None = None
    keep_work: bool = False
    exclusions: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: expected 0 (one a core) or more, got {self.workers}.")
        if self.unit_bytes < 1:
            raise ConfigError(f"unit_bytes: expected 1 or more, got {self.unit_bytes}.")
        if self.on not in ("local", "ray") and not self.on.startswith("ray://"):
            raise ConfigError(f"on: expected local, ray or ray://host:port, got '{self.on}'.")


def curate(
    pipeline: Pipeline, inputs: Sequence[str | Path], store: str | Path, config: RunConfig
) -> CurateReport:
    """Run a pipeline; see `Pipeline.run`.

    Args:
        pipeline: the steps.
        inputs: files, folders and stores.
        store: where the pages that are left go.
        config: how.

    Returns:
        What was done. Called again after the end, it does nothing and says the same.
    """
    start = time.monotonic()
    built = pipeline.build(config.seed)
    found = find_inputs(inputs, unit_bytes=config.unit_bytes, patterns=pipeline.patterns)
    identity = _identity(built, found, config)
    work = Path(config.work) if config.work else default_work(store)
    report = CurateReport(store=str(store), units=len(found.units), ignored=found.ignored)
    done = _done_before(store, identity, config)
    if done is not None:
        _read_back(report, done)
        if not config.keep_work and work.is_dir():
            with Workplace(work) as place:
                place.remove()
        report.seconds = time.monotonic() - start
        return report
    with Workplace(work) as place, executor(config.on, config.workers) as runs:
        run = Run(
            inputs=found.units,
            work=work,
            executor=runs,
            seed=config.seed,
            strict=config.strict,
            exclusions=config.exclusions is not None,
        )
        for _ in run.all(built):
            place.write_stats([row.to_plain() for row in run.funnel])
            if run.phase == 1 and any(r["stats"]["given_ids"] for r in run.reads):
                finish.check_ids(run.units)  # now, not after hours
        if config.exclusions is not None:
            collect(run.dropped, Path(config.exclusions))
        meta = _meta(pipeline, built, run, identity, config)
        report.rows = finish.write_store(store, run.units, meta, overwrite=config.overwrite)
        _read_back(report, meta)
        report.tasks, report.resumed = run.tasks, run.resumed
        report.complete_before = False
        place.note("done")
        if not config.keep_work:
            place.remove()
    report.seconds = time.monotonic() - start
    return report


def _identity(built: Sequence[Built], found: Found, config: RunConfig) -> str:
    return hash_data(
        {
            "steps": [[one.source, one.described] for one in built],
            "inputs": [unit.to_plain() for unit in found.units],
            "seed": config.seed,
            "strict": config.strict,
        }
    )


def _done_before(store: str | Path, identity: str, config: RunConfig) -> dict[str, Any] | None:
    """Return how the store that is there was curated, if it was by this very run."""
    if "://" not in str(store) and not Path(store).exists():
        return None  # without loading what opens stores
    from understudy.data.store import Store

    try:
        there = Store.open(store)
    except DataError:
        return None  # nothing, or something that writing will refuse
    meta = there.meta.get(finish.META)
    if isinstance(meta, dict) and meta.get("identity") == identity:
        asked = config.exclusions
        if asked is not None and not Path(asked).is_dir():
            if not config.overwrite:
                raise DataError(
                    f"{store}: is complete, but its dropped pages were not kept; --overwrite "
                    "curates again."
                )
            return None
        return {**meta, "rows": there.num_rows}
    if not config.overwrite:
        raise DataError(
            f"{store}: there is a store already, of other inputs or steps; --overwrite replaces it."
        )
    return None


def _meta(
    pipeline: Pipeline, built: Sequence[Built], run: Run, identity: str, config: RunConfig
) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    for record in run.reads:
        skipped.update(record["stats"]["skipped"])
        examples += record["stats"]["examples"]
    steps = [one.described for one in built]
    return {
        "format": 1,
        "identity": identity,
        "pipeline": pipeline.to_plain(),
        "pipeline_hash": hash_data([[one.source, one.described] for one in built]),
        "steps": steps,
        "inputs": finish.provenance(run.inputs, run.reads),
        "funnel": [row.to_plain() for row in run.funnel],
        "skipped": dict(sorted(skipped.items())),
        "examples": examples[:20],
        "options": {k: v for k, v in to_dict(config).items() if k in ("seed", "strict")},
        "exclusions": config.exclusions,
        "versions": finish.library_versions(),
    }


def _read_back(report: CurateReport, meta: dict[str, Any]) -> None:
    report.funnel = [FunnelRow.from_plain(row) for row in meta["funnel"]]
    report.skipped, report.examples = meta["skipped"], meta["examples"]
    report.exclusions = meta["exclusions"]
    report.complete_before = True
    report.rows = meta.get("rows", report.rows)
