"""`understudy curate INPUT... STORE`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from understudy.cli import on
from understudy.cli.common import note, parse_config, table, take_flag, take_option
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.curate.engine.dry_run import DryRun
    from understudy.curate.engine.pipeline import Pipeline
    from understudy.curate.engine.report import CurateReport, FunnelRow

USAGE = "INPUT... STORE (--recipe NAME | --pipeline FILE) [--dry-run] [--lenient] [--json]"


def curate(argv: Sequence[str], prog: str) -> int:
    """Choose and clean pages of text: files, folders or stores in, a store out.

    `INPUT...` are folders and files of JSON lines, HTML, WARC, WET, Parquet, or stores with a
    column `text`; `STORE` is written. `--recipe` names a pipeline of the package (dclm, ...),
    `--pipeline` a YAML file of one's own. Records that cannot be read stop the run (`--strict`) or
    are skipped and counted (`--lenient`). `--dry-run` prints units, steps, and what a sample says
    of time and disk. The other options are the fields of `RunConfig`. `--on ray` (or
    `ray://HOST:PORT`) has Ray's workers do it, `--on local-job|slurm` runs it there as one job of
    `--workers` processes.
    """
    from understudy.curate.engine.run import RunConfig
    from understudy.curate.engine.run import curate as run

    place, rest = on.take(argv)
    typed = rest
    dry, rest = take_flag(rest, "--dry-run")
    as_json, rest = take_flag(rest, "--json")
    lenient, rest = take_flag(rest, "--lenient")
    strict, rest = take_flag(rest, "--strict")
    recipe, rest = take_option(rest, "--recipe")
    path, rest = take_option(rest, "--pipeline")
    places, rest = _places(rest)
    if lenient and strict:
        raise ConfigError(f"{prog}: --strict and --lenient exclude each other.")
    if lenient or strict:
        rest += ["--strict" if strict else "--no-strict"]
    if place.where == "ray":
        rest += ["--on", place.address or "ray"]
    config = parse_config(RunConfig, rest, f"{prog} {USAGE}")
    if len(places) < 2:
        raise ConfigError(
            f"{prog}: name inputs and then the store, for example '{prog} pages/ my-store --recipe "
            "dclm'."
        )
    pipeline = _pipeline(recipe, path, prog)
    *inputs, store = places
    if dry:
        from understudy.curate.engine.dry_run import dry_run

        found = dry_run(pipeline, inputs, store, config)
        print(json.dumps(found.to_plain(), indent=2) if as_json else _dry(found))
        return 0
    if place.where in ("local-job", "slurm"):
        return _as_job(place, typed, config.workers)
    report = run(pipeline, inputs, store, config)
    if as_json:
        print(json.dumps(report.to_plain(), indent=2))
        return 0
    print(_text(report))
    for example in report.examples[:3]:
        note(f"skipped {example}")
    return 0


def _as_job(place: on.On, typed: Sequence[str], workers: int) -> int:
    """Curate as one job, whose processes share a machine and its work folder."""
    workers = workers or max(1, int(place.cpus))
    place = replace(place, cpus=max(place.cpus, workers))
    _, rest = take_option(typed, "--workers")
    return on.run(place, ["curate", *rest, "--workers", str(workers)])


def _places(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the leading words that are no options off `argv`."""
    stop = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    return list(argv[:stop]), list(argv[stop:])


def _pipeline(recipe: str | None, path: str | None, prog: str) -> Pipeline:
    from understudy.curate.engine.pipeline import Pipeline

    if (recipe is None) == (path is None):
        raise ConfigError(f"{prog}: give one of --recipe NAME and --pipeline FILE.")
    pipeline = Pipeline.named(recipe) if recipe is not None else Pipeline.load(str(path))
    if any(":" in name for name in pipeline.names) and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where steps of one's own are looked for
    return pipeline


def _funnel(rows: Sequence[FunnelRow]) -> str:
    lines: list[list[Any]] = []
    for row in rows:
        count = row.count
        lost = 1 - count.pages_out / count.pages_in if count.pages_in else 0.0
        numbers = (100 * lost, count.bytes_in / 1e6, count.bytes_out / 1e6, count.seconds)
        shown = [f"{number:,.1f}" for number in numbers]
        lines.append([row.step, row.name, count.pages_in, count.pages_out, *shown])
    header = ("#", "step", "in", "out", "dropped %", "MB in", "MB out", "seconds")
    for column in range(4, 8):
        width = max(len(header[column]), *(len(line[column]) for line in lines))
        for line in lines:
            line[column] = line[column].rjust(width)
    return table(lines, header)


def _text(report: CurateReport) -> str:
    lines = [_funnel(report.funnel)]
    reasons = report.top_reasons()
    if reasons:
        lines += ["", table(reasons, ("step", "reason", "pages"))]
    if report.ignored:
        kinds = ", ".join(f"{number:,} {ending}" for ending, number in report.ignored.items())
        lines += ["", f"files of other kinds were passed over: {kinds}"]
    if report.exclusions is not None:
        lines += ["", f"{report.exclusions}: dropped pages, one folder a step"]
    if report.complete_before:
        lines += ["", f"{report.store}: {report.rows:,} pages; it was complete already"]
    else:
        resumed = f", {report.resumed:,} of {report.tasks:,} tasks from before"
        lines += [
            "",
            f"{report.store}: {report.rows:,} pages from {report.units:,} units in "
            f"{report.seconds:,.1f} s{resumed if report.resumed else ''}",
        ]
    return "\n".join(lines)


def _dry(found: DryRun) -> str:
    units = [(unit.key, unit.kind, f"{unit.bytes / 1e6:.2f}") for unit in found.units[:20]]
    more = len(found.units) - len(units)
    lines = [table(units, ("unit", "kind", "MB"))]
    if more > 0:
        lines.append(f"... and {more:,} more")
    lines += ["", table(found.steps, ("#", "step", "runs", "arguments")), ""]
    lines += [f"{name}: {value}" for name, value in found.facts().items()]
    return "\n".join(lines)
