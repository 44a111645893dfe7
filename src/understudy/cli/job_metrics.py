"""`understudy job metrics`: a job's numbers, printed or handed to other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from understudy.cli.common import parse, show, table
from understudy.cli.job import of_job
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional


def metrics(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job metrics`."""

    def command(
        job: Positional[str],
        to: str = "",
        out: str = "",
        home: Path | None = None,
        json: bool = False,
    ) -> None:
        """Show the last value of each of a job's numbers, or write all of them for another tool.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            to: tensorboard, mlflow or csv; printed by default.
            out: a folder (tensorboard), a tracking URI such as sqlite:///mlflow.db (mlflow), or a
                file (csv).
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        from understudy.launch.metric_export import export_metrics
        from understudy.launch.metric_query import last_values

        if bool(to) != bool(out):
            raise ConfigError("--to and --out belong together: the tool, and where to write.")
        engine, found = of_job(job, home)
        try:
            if to:
                written = export_metrics(engine.store, engine.store.job(found), to, out)
                show({"written": written}, json, lambda _: f"written: {written}")
                return
            newest = {(v.name, v.rank): v for v in last_values(engine.store, found)}
        finally:
            engine.close()
        facts = [v._asdict() for v in newest.values()]
        rows = [[v.name, v.rank, v.step, v.value] for v in newest.values()]
        header = ["name", "rank", "step", "value"]
        show(facts, json, lambda _: table(rows, header) if rows else "no numbers")

    parse(command, argv, prog)
