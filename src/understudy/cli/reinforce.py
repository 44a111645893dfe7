"""`understudy reinforce STORE --config F`."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from understudy.cli import on
from understudy.cli.common import parse_config, show, table, take_flag, take_option
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.reinforce.config import ReinforceConfig
    from understudy.reinforce.fill import Report


def reinforce(argv: Sequence[str], prog: str) -> int:
    """Ask teachers once what they know about every sample; store it beside the sample.

    `STORE` comes first; the options are the fields of `ReinforceConfig`. `--dry-run` prints bytes
    and teacher calls, `--verify` replays stored views and teacher outputs (and exits with 1 if some
    do not, like `data verify`), `--json` prints JSON.

    `--on local-job|ray|ray://HOST:PORT|slurm` has `--workers N` (or `LEAST:MOST`) others compute;
    the content is the same. `--share FOLDER` does that without an engine: several runs of the same
    command that name the same folder divide the work.
    """
    from understudy.data.store import Store
    from understudy.reinforce.config import ReinforceConfig

    place, rest = on.take(argv)
    workers, rest = on.take_workers(rest)
    share, rest = take_option(rest, "--share")
    dry, rest = take_flag(rest, "--dry-run")
    check, rest = take_flag(rest, "--verify")
    as_json, rest = take_flag(rest, "--json")
    path, options = None, rest
    if rest and not rest[0].startswith("-"):
        path, options = rest[0], rest[1:]
    elif not {"-h", "--help"} & set(rest):
        raise ConfigError(f"{prog}: name the store first, for example '{prog} my-store'.")
    usage = f"{prog} STORE [--dry-run] [--verify] [--config F] [--on WHERE] [--workers N]"
    config = parse_config(ReinforceConfig, options, usage)
    assert path is not None
    if workers is not None and place.here:
        raise ConfigError("--workers: say where they run: --on local-job, ray or slurm.")
    if share is not None and not place.here:
        raise ConfigError("--share and --on exclude each other; give one of them.")
    store = Store.open(path)
    if dry:
        from understudy.reinforce.plan import plan

        costs = plan(store, config)
        print(json.dumps(costs, indent=2) if as_json else _facts(costs))
        return 0
    if check:
        from understudy.reinforce.verify import verify

        problems = verify(store, config)
        show({"path": str(path), "problems": problems}, as_json, _problems)
        return 1 if problems else 0
    if place.where in ("local-job", "slurm"):
        return _as_job(place, workers, ["reinforce", *rest], path, as_json)
    _tell(path, _run(store, config, place, workers, share), as_json)
    return 0


def _run(
    store: Store,
    config: ReinforceConfig,
    place: on.On,
    workers: tuple[int, int] | None,
    share: str | None,
) -> Report:
    """Reinforce here, on Ray, or with other runs."""
    from understudy.reinforce import generate

    if place.where == "ray":
        from understudy.reinforce.ray_workers import PoolConfig, RayWorkers

        least, most = workers or (1, 0)
        gpus = float(place.gpus) if place.gpus else None
        pool = PoolConfig(least=least, most=most, cpus=max(1, round(place.cpus)), gpus=gpus)
        with RayWorkers(place.address or None, pool) as filler:
            return generate.reinforce(store, config, filler=filler)
    if share is not None:
        from understudy.reinforce.shared import SharedWork

        with SharedWork(share) as filler:
            report = generate.reinforce(store, config, filler=filler)
            rank = f"{os.environ.get('UNDERSTUDY_REPLICA', 'run')}-{uuid.uuid4().hex[:8]}"
            filler.leave(report, rank)
        return report
    return generate.reinforce(store, config)


def _as_job(
    place: on.On, workers: tuple[int, int] | None, words: list[str], path: str, as_json: bool
) -> int:
    """Reinforce by the replicas of a job, and tell what all of them did."""
    from understudy.reinforce.shared import merged

    threads = str(max(1, int(place.cpus)))
    spec = on.job_spec(
        place,
        [*words, "--share", "{out}/share"],
        replicas=workers[1] if workers else 1,
        env={"OMP_NUM_THREADS": threads},
    )
    engine, job = on.send(place, spec)
    with closing(engine):
        code = on.follow(engine, job, on.numbered)
        report = merged(engine.folder(job) / "out" / "share")
    if code == 0 and report is not None:
        _tell(path, report, as_json)
    return code


def _tell(path: str, report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    rows = [(part, seconds) for part, seconds in sorted(report.seconds.items())]
    print(table(rows, ("part", "seconds")))
    print(f"{path}: {report.rows:,} rows, {len(report.columns)} columns, {report.bytes:,} bytes")


def _problems(facts: dict[str, Any]) -> str:
    problems, path = facts["problems"], facts["path"]
    if not problems:
        return f"{path}: stored views and teacher outputs replay"
    return "\n".join([*problems, f"{path}: {len(problems)} stored values do not replay"])


def _facts(costs: dict[str, object]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in costs.items())
