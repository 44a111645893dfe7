"""`--on local|local-job|ray|ray://HOST:PORT|slurm`: where a command runs; the result is the same.

`train`, `run`, `verify` and `demo` are sent as they were typed, as a job that runs in the same
folder. `reinforce` and `curate` divide their work over workers. Options that begin with `--on.` say
what is asked of the engine.
"""

from __future__ import annotations

import difflib
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.common import note, take_option
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.launch.engines.base import Engine
    from understudy.launch.replica_logs import LogLine
    from understudy.launch.spec import JobSpec

ENGINES = {"local-job": "local", "ray": "ray", "slurm": "slurm"}
"""What `--on` says, and the engine whose job a command becomes."""
_NUMBERS: dict[str, Callable[[str], float]] = {
    "cpus": float,
    "gpus": int,
    "mem-mb": int,
    "timeout-s": float,
}
_WORDS = ("queue", "spec")
_OWN = ("command", "entrypoint", "args", "workdir", "include", "exclude", "key", "roles")
"""Fields of a spec that the command line gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class On:
    """Where a command runs.

    Attributes:
        where: `local`, `local-job`, `ray` or `slurm`.
        address: `ray://host:port`, if one is given.
        cpus: cores of each worker.
        gpus: accelerators of each worker.
        mem_mb: memory of each worker, MB; 0 asks for none.
        timeout_s: longest attempt; 0 for no limit.
        queue: the site's queue.
        spec: file with other fields of the job's spec.
    """

    where: str = "local"
    address: str = ""
    cpus: float = 1.0
    gpus: int = 0
    mem_mb: int = 0
    timeout_s: float = 0.0
    queue: str = ""
    spec: str = ""

    @property
    def here(self) -> bool:
        """Whether the command runs in this process."""
        return self.where == "local"


def take(argv: Sequence[str]) -> tuple[On, list[str]]:
    """Take `--on` and its options off `argv`.

    Raises:
        ConfigError: no such place or option, or options without a place that takes them.
    """
    where, rest = take_option(argv, "--on")
    found: dict[str, Any] = {}
    for name in [word[5:].partition("=")[0] for word in rest if word.startswith("--on.")]:
        if name not in (*_NUMBERS, *_WORDS):
            near = difflib.get_close_matches(name, [*_NUMBERS, *_WORDS], n=1)
            known = ", ".join(f"--on.{n}" for n in (*_NUMBERS, *_WORDS))
            hint = f"did you mean --on.{near[0]}?" if near else f"there are {known}."
            raise ConfigError(f"--on.{name}: no such option; {hint}")
        value, rest = take_option(rest, f"--on.{name}")
        if value is None:
            raise ConfigError(f"--on.{name} is given twice.")
        found[name.replace("-", "_")] = _number(name, value) if name in _NUMBERS else value
    where = where or "local"
    address = where if where.startswith("ray://") else ""
    if not address and where not in ("local", *ENGINES):
        raise ConfigError(
            f"--on: expected local, local-job, ray, ray://HOST:PORT or slurm, got '{where}'."
        )
    if where == "local" and found:
        name = next(iter(found)).replace("_", "-")
        raise ConfigError(f"--on.{name} is for --on local-job, ray or slurm; give one of them.")
    return On(where="ray" if address else where, address=address, **found), rest


def _number(name: str, value: str) -> float:
    try:
        number = _NUMBERS[name](value)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigError(f"--on.{name}: expected a number of at least 0, got '{value}'.")
    return number


def take_workers(argv: Sequence[str]) -> tuple[tuple[int, int] | None, list[str]]:
    """Take `--workers N` or `--workers LEAST:MOST` off `argv`.

    Raises:
        ConfigError: something else.
    """
    text, rest = take_option(argv, "--workers")
    if text is None:
        return None, rest
    least, colon, most = text.partition(":")
    numbers = [least, most] if colon else [least, least]
    if not all(n.isdecimal() and int(n) >= 1 for n in numbers) or int(numbers[0]) > int(numbers[1]):
        raise ConfigError(
            f"--workers: expected a number from 1, or LEAST:MOST such as 1:8, got '{text}'."
        )
    return (int(numbers[0]), int(numbers[1])), rest


def job_spec(on: On, words: Sequence[str], *, replicas: int = 1, env: Any = None) -> JobSpec:
    """Return the job that runs a command in this folder.

    Args:
        on: where.
        words: of the command, after `understudy`.
        replicas: how many run it, as there is room.
        env: variables.

    Raises:
        ConfigError: `--on.spec` says what the command line says, or something wrong.
    """
    from understudy.core.config import from_dict
    from understudy.launch import spec_yaml
    from understudy.launch.spec import JobSpec

    plain: dict[str, Any] = spec_yaml.read_file(on.spec)[0] if on.spec else {}
    for name in _OWN:
        if name in plain:
            raise ConfigError(
                f"--on.spec {on.spec}: '{name}' is given by the command line; leave it out."
            )
    if on.address:
        engine_options = dict(plain.get("engine_options", {}))
        given = {**engine_options.get("ray", {}), "address": _job_server(on.address)}
        plain["engine_options"] = {**engine_options, "ray": given}
    resources = {"cpu": on.cpus, "gpu": on.gpus, "mem_mb": on.mem_mb}
    command = [Path(sys.executable).name, "-m", "understudy.cli.there", str(Path.cwd()), *words]
    own: dict[str, Any] = {
        "name": _name(words),
        "command": command,
        "roles": [{"replicas": replicas, "resources": resources, "env": env or {}}],
    }
    if replicas > 1:
        # a worker that was killed left its work to the others: a second look finds it done
        own |= {"gang": False, "retry": {"max_failures": 1, "backoff_s": 1.0}}
    else:
        own["retry"] = {"on": ["preemption", "node_loss"]}
    own |= {"queue": on.queue} if on.queue else {}
    own |= {"timeout_s": on.timeout_s} if on.timeout_s else {}
    return from_dict(JobSpec, {**own, **plain}, where=on.spec or "job")


def _job_server(address: str) -> str:
    """Return the address that takes jobs of the cluster whose client server is given."""
    from understudy.core.ray_session import RaySession

    with RaySession(address) as session:
        return session.dashboard()


def _name(words: Sequence[str]) -> str:
    """Return a job's name: the command, and what it is about."""
    about = [word for word in words[:2] if not word.startswith("-")]
    if len(about) == 2:
        about[1] = Path(about[1]).name
    text = "-".join(about)
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return safe[:63].strip("._-") or "understudy"


def send(on: On, spec: JobSpec) -> tuple[Engine, str]:
    """Submit a job, or find the one that runs this very command; return its engine and its id."""
    from understudy.launch.engines import open_engine

    engine = open_engine(ENGINES[on.where])
    digest = spec.digest()
    jobs = engine.store.jobs(name=spec.name, engine=engine.name)
    same = [job for job in jobs if replace(job.spec, key="").digest() == digest]
    active = [job for job in same if not job.final]
    if active:
        note(f"{active[0].id} runs this command already and is {active[0].state}; following it")
        return engine, active[0].id
    # two who type the same at once get the same job
    job = engine.submit(replace(spec, key=f"{digest}#{len(same) + 1}"))
    note(f"{job}: submitted to {on.where}; folder {engine.folder(job)}")
    for text in engine.status(job).warnings:
        note(f"warning: {text}")
    return engine, job


def run(on: On, words: Sequence[str]) -> int:
    """Run a command as a job, show its output as its own, and return its exit status."""
    engine, job = send(on, job_spec(on, words))
    with closing(engine):
        return follow(engine, job, _as_own)


def _as_own(line: LogLine) -> None:
    print(line.text, file=sys.stdout if line.stream == "stdout" else sys.stderr, flush=True)


def numbered(line: LogLine) -> None:
    """Show a line of one of several workers on standard error."""
    print(f"[{line.rank}] {line.text}", file=sys.stderr, flush=True)


def follow(engine: Engine, job: str, show: Callable[[LogLine], None]) -> int:
    """Show a job's output until it has ended; return its exit status.

    Ctrl-C leaves the job running and says how to go on.
    """
    reader = threading.Thread(target=_read, args=(engine, job, show), daemon=True)
    try:
        reader.start()
        status = engine.wait(job)
        reader.join()
    except KeyboardInterrupt:
        note(
            f"\n{job} goes on. The same command, or 'understudy job logs {job} --follow', follows "
            f"it; 'understudy job cancel {job}' stops it."
        )
        return 130
    if status.state == "SUCCEEDED":
        return 0
    reason = f" ({status.reason})" if status.reason else ""
    note(f"{job} {status.state}{reason}; folder {status.folder}")
    return status.exit_code or 1


def _read(engine: Engine, job: str, show: Callable[[LogLine], None]) -> None:
    from understudy.launch.log_follow import LogQuery, read_logs
    from understudy.launch.state import JobStore

    # a connection belongs to the thread that opened it
    with JobStore(engine.home.database) as store:
        for line in read_logs(store, engine.home, job, LogQuery(follow=True)):
            show(line)
