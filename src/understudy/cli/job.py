"""`understudy job plan|submit|wait|cancel|retry|export`: run specs; `job_read` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from understudy.cli.common import note, parse, show
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.launch.engines.base import Engine
    from understudy.launch.engines.status import Status

Positional = tyro.conf.Positional


def open_(engine: str, home: Path | None) -> Engine:
    """Return an engine over a home of jobs."""
    from understudy.launch.engines import open_engine

    return open_engine(engine, home)


def of_job(job: str, home: Path | None) -> tuple[Engine, str]:
    """Return the engine of a job, and its id, from an id, the beginning of one, or a name.

    Raises:
        ConfigError: there is none, or several.
    """
    from understudy.launch.home import Home
    from understudy.launch.state import JobStore

    where = Home.open(home)
    with JobStore(where.database) as store:
        found = store.find(job)
    return open_(found.engine, where.root), found.id


def plan(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job plan`."""

    def command(
        spec: Positional[Path], engine: str = "local", home: Path | None = None, json: bool = False
    ) -> None:
        """Check a spec, or all specs of a pipeline, and say what would run; nothing is recorded.

        Args:
            spec: a .yaml, .yml or .json file.
            engine: where it would run.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        from understudy.core.config import to_dict
        from understudy.launch import spec_text

        where = open_(engine, home)
        pipeline = _pipeline(spec)
        if pipeline is None:
            found = where.plan(spec_text.load(spec))
            show(to_dict(found), json, lambda _: _plan_text(found))
            return
        rows = [f"{node.name}: {' '.join(node.command) or node.entrypoint}" for node in
                pipeline.nodes]  # fmt: skip
        show([to_dict(node) for node in pipeline.nodes], json, lambda _: "\n".join(rows))

    parse(command, argv, prog)


def _pipeline(path: Path) -> Any:
    """Return the pipeline that a file holds; None if it is one spec."""
    from understudy.launch import pipeline, spec_yaml

    data, _ = spec_yaml.read_file(path)
    return pipeline.load(path) if pipeline.is_pipeline(data) else None


def _plan_text(plan: Any) -> str:
    lines = [
        f"engine      {plan.engine}",
        f"spec hash   {plan.spec_hash}",
        f"code        {plan.code_files} files, {plan.code_bytes / 1e6:.2f} MB",
        f"start       {'all replicas or none' if plan.gang else 'as there is room'}",
    ]
    for rank, (words, vector) in enumerate(zip(plan.commands, plan.resources, strict=True)):
        need = ", ".join(f"{name} {amount:g}" for name, amount in vector.items()) or "nothing"
        lines.append(f"rank {rank:<7}{' '.join(words)}   [{need}]")
    if plan.cost is not None:
        lines.append(
            f"cost        {plan.cost:.2f} an attempt at most, {plan.worst_cost:.2f} in all"
        )
    return "\n".join([*lines, *(f"warning: {text}" for text in plan.warnings)])


def submit(argv: Sequence[str], prog: str) -> int:
    """Parse and run `job submit`."""

    def command(
        spec: Positional[Path],
        engine: str = "local",
        key: str = "",
        wait: bool = False,
        home: Path | None = None,
        json: bool = False,
    ) -> int:
        """Queue a job; or run a pipeline's jobs in order, leaving out what has been done.

        Submitting the same again returns the same job.

        Args:
            spec: a .yaml, .yml or .json file.
            engine: where it runs.
            key: instead of the spec's: the same key is the same job.
            wait: wait for its end; exit status 1 unless it succeeds. A pipeline always waits.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        from dataclasses import replace

        from understudy.launch import spec_text

        where = open_(engine, home)
        pipeline = _pipeline(spec)
        if pipeline is not None:
            if key:
                raise ConfigError("--key is for one job; the nodes of a pipeline have their own.")
            return _run_pipeline(where, pipeline, json)
        wanted = spec_text.load(spec)
        wanted = replace(wanted, key=key) if key else wanted
        known = {job.id for job in where.store.jobs(name=wanted.name)}
        job = where.submit(wanted)
        if job in known:
            note(f"{job} was submitted before with this key and is {where.store.job(job).state}; "
                 "`job retry` runs it again.")  # fmt: skip
        if wait:
            return _waited(where.wait(job), json)
        status = where.status(job)
        for text in status.warnings:
            note(f"warning: {text}")
        show(status, json, lambda _: f"{job}\nfolder: {status.folder}")
        return 0

    return parse(command, argv, prog)


def _run_pipeline(engine: Engine, pipeline: Any, json: bool) -> int:
    from understudy.cli.common import table
    from understudy.core.config import to_dict
    from understudy.launch.pipeline import Runner

    results = Runner(engine, pipeline, note).run()
    rows = [
        [r.name, r.state or "not begun", "before" if r.skipped else "now", r.job or None]
        for r in results
    ]
    show(to_dict(results), json, lambda _: table(rows, ["node", "state", "done", "job"]))
    return int(any(r.state != "SUCCEEDED" for r in results))


def _waited(status: Status, json: bool) -> int:
    reason = f" ({status.reason})" if status.reason else ""
    show(status, json, lambda _: f"{status.id} {status.state}{reason}\nfolder: {status.folder}")
    return int(status.state != "SUCCEEDED")


def wait(argv: Sequence[str], prog: str) -> int:
    """Parse and run `job wait`."""

    def command(
        job: Positional[str],
        timeout: float | None = None,
        home: Path | None = None,
        json: bool = False,
    ) -> int:
        """Wait until a job has ended; exit status 1 unless it succeeded.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            timeout: give up after so many seconds, exit status 2.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        engine, found = of_job(job, home)
        return _waited(engine.wait(found, timeout), json)

    return parse(command, argv, prog)


def cancel(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job cancel`."""

    def command(
        job: Positional[str],
        grace: float = 15.0,
        wait: bool = False,
        home: Path | None = None,
        json: bool = False,
    ) -> None:
        """Stop a job: TERM, then KILL. One that has ended stays as it is.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            grace: seconds from TERM to KILL.
            wait: wait until it has ended.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        engine, found = of_job(job, home)
        status = engine.cancel(found, grace)
        if wait:
            status = engine.wait(found)
        doing = "" if status.state in ("CANCELLED", "SUCCEEDED", "FAILED", "TIMED_OUT") else (
            ", being cancelled"
        )  # fmt: skip
        show(status, json, lambda _: f"{status.id} {status.state}{doing}")

    parse(command, argv, prog)


def retry(argv: Sequence[str], prog: str) -> int:
    """Parse and run `job retry`."""

    def command(
        job: Positional[str], wait: bool = False, home: Path | None = None, json: bool = False
    ) -> int:
        """Run a job that has ended again, as a new job that goes on from its checkpoints.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            wait: wait for its end; exit status 1 unless it succeeds.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        engine, found = of_job(job, home)
        new = engine.retry(found)
        if wait:
            return _waited(engine.wait(new), json)
        status = engine.status(new)
        show(status, json, lambda _: f"{new}\nfolder: {status.folder}")
        return 0

    return parse(command, argv, prog)


def export(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job export`."""

    def command(spec: Positional[Path], to: str, out: Path | None = None) -> None:
        """Write a spec in another launcher's format.

        Args:
            spec: a .yaml, .yml or .json file.
            to: torchx (a component, Python), skypilot (a task, YAML) or kubernetes (objects, YAML).
            out: file to write; printed by default.
        """
        from understudy.core.files import write_text
        from understudy.launch import export as exporter
        from understudy.launch import spec_text

        text = exporter.export(spec_text.load(spec), to)
        if out is None:
            print(text, end="")
        else:
            print(f"written: {write_text(out, text)}")

    parse(command, argv, prog)
