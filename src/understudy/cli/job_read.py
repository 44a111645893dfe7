"""`understudy job status|logs|list`: what became of jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from understudy.cli.common import parse, show, table
from understudy.cli.job import of_job, open_

if TYPE_CHECKING:
    from understudy.launch.engines.status import Status

Positional = tyro.conf.Positional


def status(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job status`."""

    def command(
        job: Positional[str], events: bool = False, home: Path | None = None, json: bool = False
    ) -> None:
        """Show where a job is, its replicas, and what it left.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            events: also its history.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        from understudy.core.config import to_dict

        engine, found = of_job(job, home)
        now = engine.status(found)
        facts: dict[str, Any] = {
            **to_dict(now),
            "attempts": to_dict(engine.store.attempts(found)),
            "artefacts": to_dict(engine.store.artefacts(found)),
        }
        if events:
            facts["events"] = to_dict(engine.store.events(found))
        show(facts, json, lambda _: _status_text(now, facts))

    parse(command, argv, prog)


def _clock(t: float | None) -> str:
    return "-" if t is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))


def _status_text(now: Status, facts: dict[str, Any]) -> str:
    lines = [
        f"job       {now.id}",
        f"state     {now.state}{f' ({now.reason})' if now.reason else ''}",
        f"attempt   {now.attempt} on {now.engine}",
        f"times     created {_clock(now.created)}, started {_clock(now.started)}, "
        f"ended {_clock(now.ended)}",
        f"folder    {now.folder}",
    ]
    if now.wish:
        lines.append(f"doing     {now.wish}")
    if now.cost is not None:
        lines.append(f"cost      {now.cost:.2f}")
    if now.replicas:
        rows = [
            [r.rank, r.role, r.state, r.host or None, r.pid,
             r.exit and r.exit["reason"], r.exit and r.exit["max_rss_mb"]]
            for r in now.replicas
        ]  # fmt: skip
        header = ["rank", "role", "state", "host", "pid", "end", "max RSS MB"]
        lines += ["", table(rows, header)]
    if facts["artefacts"]:
        rows = [[a["name"], a["kind"], a["bytes"], a["uri"]] for a in facts["artefacts"]]
        lines += ["", table(rows, ["output", "kind", "bytes", "where"])]
    for event in facts.get("events", ()):
        detail = ", ".join(f"{k} {v}" for k, v in event["facts"].items())
        lines.append(f"{event['seq']:>4}  {_clock(event['t'])}  {event['kind']}  {detail}")
    return "\n".join([*lines, *(f"warning: {text}" for text in now.warnings)])


def logs(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job logs`."""

    def command(
        job: Positional[str],
        replica: int | None = None,
        follow: bool = False,
        since: float | None = None,
        stream: Literal["both", "stdout", "stderr"] = "both",
        stamps: bool = False,
        home: Path | None = None,
        json: bool = False,
    ) -> None:
        """Print a job's output, also after it has ended.

        Args:
            job: id, the beginning of one, or a name (its newest job).
            replica: only of this rank.
            follow: go on until the job has ended.
            since: only the last so many seconds.
            stream: stdout, stderr or both.
            stamps: begin lines with time, attempt, rank and stream.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print a JSON object a line.
        """
        import json as as_json

        from understudy.core.config import to_dict

        engine, found = of_job(job, home)
        several = engine.store.job(found).spec.replicas > 1
        begin = None if since is None else time.time() - since
        for line in engine.logs(found, replica, follow, begin, stream):
            if json:
                text = as_json.dumps(to_dict(line))
            elif stamps:
                text = f"{_clock(line.t)} {line.attempt}.{line.rank} {line.stream} {line.text}"
            else:
                text = f"[{line.rank}] {line.text}" if several and replica is None else line.text
            print(text, flush=follow)

    parse(command, argv, prog)


def list_(argv: Sequence[str], prog: str) -> None:
    """Parse and run `job list`."""

    def command(
        state: tuple[str, ...] = (),
        name: str = "",
        project: str = "",
        engine: str = "local",
        limit: int = 50,
        home: Path | None = None,
        json: bool = False,
    ) -> None:
        """List jobs, newest first.

        Args:
            state: only in these states.
            name: only of this name.
            project: only of this project.
            engine: whose jobs.
            limit: only so many; 0 is all.
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            json: print JSON.
        """
        from understudy.core.config import check_choice, to_dict
        from understudy.launch.engines.status import Filter
        from understudy.launch.states import State

        wanted = [word.upper() for word in state]
        for word in wanted:
            check_choice(word, [str(s) for s in State], "--state")
        chosen = Filter(
            states=tuple(State(word) for word in wanted),
            name=name,
            project=project,
            limit=limit or None,
        )
        found = open_(engine, home).list(chosen)
        show(to_dict(found), json, lambda _: _list_text(found))

    parse(command, argv, prog)


def _list_text(found: list[Status]) -> str:
    rows = [
        [s.id, s.project, str(s.state), s.attempt, s.priority, _clock(s.created), _took(s),
         s.reason or None]
        for s in found
    ]  # fmt: skip
    header = ["job", "project", "state", "attempt", "priority", "created", "ran s", "reason"]
    return table(rows, header) if rows else "no jobs"


def _took(s: Status) -> float | None:
    if s.started is None:
        return None
    return round((s.ended or time.time()) - s.started, 1)
