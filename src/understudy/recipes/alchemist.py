r"""Alchemist: one description of a job, whose workers start together, die, and lose little.

"Democratizing Production-Scale Distributed Deep Learning" (2018, arXiv 1811.00143) describes a
service: an engineer keeps a training script, says how many workers it wants, and the service packs
the code, finds machines, starts all workers together, wires them, collects logs and numbers, and
keeps what they leave. Training times fell to a tenth. Its code and tables are not published; here
the service is `understudy job`, and this recipe is its shortest use.

    understudy run alchemist --script train.py --workers 2
    understudy run alchemist --script train.py --workers 4 --engine slurm --args "--lr 0.1"
    understudy verify alchemist
    understudy plan alchemist --scale paper

The algorithm, as `run` goes through it:

1. code is packed by content; the same code and settings are the same job, so that the same command
   again takes up the job that is there;
2. all workers start or none; torchrun gives them ranks and a place to meet;
3. a worker that dies ends its round: all start again inside the attempt, from the newest whole
   checkpoint, which costs less than the pause between checkpoints and a start;
4. what is asked for by name is kept with its hash;
5. a page says what it cost, which part of the time trained, and which part of the steps was kept.

A plain script goes on after a kill with four lines of `understudy.launch.checkpoints`, and shows
its steps with one of `understudy.launch.state_metrics`; `alchemist_script.py` beside this file is
such a script.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, UnderstudyError
from understudy.core.files import write_json
from understudy.evaluate.plans import Plan
from understudy.launch.spec_parts import check_range
from understudy.recipes.alchemist_claim import CLAIM
from understudy.recipes.alchemist_plan import plan as PLAN

if TYPE_CHECKING:
    from understudy.launch.spec import JobSpec

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Say what is trained, on what.

    Attributes:
        script: a Python training script; its folder is the job's code.
        args: its arguments, as in a shell; `{outputs.NAME}` and `{checkpoints}` stand for paths.
        workers: processes that train together; each is one rank under torchrun.
        fewest: go on with so few when others do not come back; None: with all.
        cpu: cores of a worker.
        mem_mb: memory of a worker, MB; 0 reserves none.
        gpu: accelerators of a worker.
        outputs: what to keep, `NAME=PATH` below the job's `out` folder.
        engine: where: a name in `understudy.launch.engines.ENGINES`.
        home: folder of the jobs; `$UNDERSTUDY_JOBS` by default.
        restarts: deaths of workers that are lived with inside one attempt; a script with a mistake
            dies every time.
        save_s: seconds that a checkpoint takes, for Young's rule.
        between_failures_s: mean time between failures; with `save_s` it gives the pause between
            checkpoints, sqrt(2 c M); without them the script's own pause holds.
        timeout_s: longest attempt; needed for a budget.
        max_cost: refuse a job that could cost more; 0: no budget.
        cpu_hour: price of a core for an hour.
        mem_gb_hour: price of 1000 MB of memory for an hour.
        gpu_hour: price of an accelerator for an hour.
        storage_gb_month: price of a GB that is kept for 30 days.
        out: folder of `result.json` and the page.
    """

    script: Path
    args: str = ""
    workers: int = 2
    fewest: int | None = None
    cpu: float = 1.0
    mem_mb: int = 0
    gpu: int = 0
    outputs: tuple[str, ...] = ()
    engine: str = "local"
    home: Path | None = None
    restarts: int = 3
    save_s: float | None = None
    between_failures_s: float | None = None
    timeout_s: float | None = None
    max_cost: float = 0.0
    cpu_hour: float = 0.0
    mem_gb_hour: float = 0.0
    gpu_hour: float = 0.0
    storage_gb_month: float = 0.0
    out: Path = Path("runs/alchemist")

    def __post_init__(self) -> None:
        check_range(self.workers, 1, "alchemist: workers")
        if self.fewest is not None and not 1 <= self.fewest <= self.workers:
            raise ConfigError(
                f"alchemist: fewest: expected 1 to workers ({self.workers}), got {self.fewest}."
            )
        if (self.save_s is None) != (self.between_failures_s is None):
            raise ConfigError(
                "alchemist: save_s and between_failures_s: Young's rule needs both; give both, or "
                "neither."
            )
        for pair in self.outputs:
            name, _, path = pair.partition("=")
            if not name or not path:
                raise ConfigError(f"alchemist: outputs: expected NAME=PATH, got '{pair}'.")
        if not self.script.is_file():
            raise ConfigError(
                f"alchemist: script: there is no file '{self.script}'; give the path of a script."
            )


def job_spec(config: Config) -> JobSpec:
    """Return the job that a configuration stands for."""
    from understudy.launch.cost import best_interval_s
    from understudy.launch.spec import JobSpec
    from understudy.launch.spec_parts import (
        Budget,
        Checkpoint,
        Elastic,
        Output,
        Rates,
        Resources,
        Role,
    )

    path = config.script.absolute()
    every = None
    if config.save_s is not None:
        every = best_interval_s(config.save_s, config.between_failures_s)
    budget = None
    if config.max_cost:
        budget = Budget(
            max_cost=config.max_cost,
            rate_table=Rates(
                cpu=config.cpu_hour,
                mem_gb=config.mem_gb_hour,
                gpu={"": config.gpu_hour},
                storage_gb_month=config.storage_gb_month,
            ),
        )
    pairs = [pair.partition("=")[::2] for pair in config.outputs]
    name = "".join(c if c.isalnum() else "-" for c in path.stem).strip("-") or "train"
    return JobSpec(
        name=name[:40],
        labels={"recipe": "alchemist"},
        command=("python", path.name, *shlex.split(config.args)),
        workdir=str(path.parent),
        launcher="torchrun",
        roles=(
            Role(
                name="trainer",
                replicas=config.workers,
                resources=Resources(cpu=config.cpu, mem_mb=config.mem_mb, gpu=config.gpu),
            ),
        ),
        elastic=Elastic(
            min=config.fewest or config.workers, max=config.workers, max_restarts=config.restarts
        ),
        checkpoint=Checkpoint(dir="checkpoints", every_s=every),
        timeout_s=config.timeout_s,
        outputs=tuple(Output(name=n, path=p, kind="model") for n, p in pairs),
        budget=budget,
    )


def preview(config: Config) -> Plan:
    """Return what a run would start, without doing it.

    Raises:
        ConfigError: what would keep it from running.
    """
    from understudy.launch.engines import open_engine

    spec = job_spec(config)
    engine = open_engine(config.engine, config.home)
    try:
        found = engine.plan(spec)
    finally:
        engine.close()
    made = Plan(recipe="alchemist", scale="this run")
    made.add("engine", found.engine)
    made.add("workers", config.workers, formula=" ".join(found.commands[0]))
    for name, amount in found.resources[0].items():
        made.add(f"{name} of a worker", amount)
    made.add("files of code", found.code_files)
    made.add("code", found.code_bytes, "B")
    if spec.checkpoint.every_s is not None:
        made.add("between checkpoints", spec.checkpoint.every_s, "s", formula="sqrt(2 c M)")
    if found.cost is not None:
        made.add("an attempt of full length", found.cost, "money")
        made.add("all attempts of full length", found.worst_cost or 0.0, "money")
    made.notes += list(found.warnings)
    return made


def run(config: Config) -> Path:
    """Train as a job and account for it; the same again takes up the job that is there.

    Returns:
        the folder, with `result.json`.

    Raises:
        ConfigError: what keeps the job from running.
        UnderstudyError: it did not succeed; the account is written all the same.
    """
    from understudy.launch.engines import open_engine
    from understudy.recipes.alchemist_account import account

    engine = open_engine(config.engine, config.home)
    try:
        job = engine.submit(job_spec(config))
        status = engine.wait(job)
        found = account(engine, job, config.save_s, config.between_failures_s, _prices(config))
        result = {"recipe": "alchemist", "config": to_dict(config), "job": found}
        write_json(config.out / "result.json", result)
        if status.state != "SUCCEEDED":
            said = [line.text for line in engine.logs(job)][-1:]
            raise UnderstudyError(
                f"job {job} is {status.state} ({status.reason}){': ' + said[0] if said else ''}; "
                f"`understudy job logs {job}` has all, `understudy job retry {job}` goes on."
            )
    finally:
        engine.close()
    return config.out


def _prices(config: Config) -> dict[str, float]:
    names = ("cpu_hour", "mem_gb_hour", "gpu_hour", "storage_gb_month")
    return {name: getattr(config, name) for name in names}
