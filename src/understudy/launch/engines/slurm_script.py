"""The script that `sbatch` gets: resources of a job's replicas, one step that starts them all.

Every replica is a task of one `srun`, so a gang starts whole. The script itself only hands signals
on, and stays until Slurm has made up its mind: a script that ends after USR1 announced a preemption
is not queued again.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Resources

MIB = 1024 * 1024
NICE = 1000
"""One of priority in `--nice`."""
LAST_MINUTE_S = 60.0
"""Slurm's own time limit lies so much after ours, so that ours decides."""
OURS = frozenset(
    {"job-name", "output", "error", "open-mode", "chdir", "requeue", "no-requeue", "signal",
     "ntasks", "cpus-per-task", "mem", "mem-per-cpu", "gpus-per-task", "time", "array", "wrap",
     "parsable", "test-only", "hold", "export", "input", "het-group", "nice", "tmp", "wait"}
)  # fmt: skip
"""Options that follow from the spec, or that would break it."""
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
BODY = (Path(__file__).parent / "slurm_job.sh").read_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Replicas with the same resources: one part of a job in Slurm.

    Attributes:
        count: how many.
        resources: of each.
    """

    count: int
    resources: Resources


def groups(spec: JobSpec, rank: int | None = None) -> list[Group]:
    """Return the parts of a job, in order of rank; more than one makes it heterogeneous.

    Args:
        spec: the job's spec.
        rank: only this replica.
    """
    found: list[Group] = []
    ranks = spec.ranks()
    for role in ranks if rank is None else [ranks[rank]]:
        if found and found[-1].resources == role.resources:
            found[-1] = Group(count=found[-1].count + 1, resources=role.resources)
        else:
            found.append(Group(count=1, resources=role.resources))
    return found


def site_options(spec: JobSpec) -> dict[str, Any]:
    """Return `engine_options.slurm.sbatch`, names in Slurm's spelling.

    Raises:
        ConfigError: an option that the engine gives itself, or something that is no option.
    """
    given = spec.engine_options.get("slurm", {})
    for name in given:
        if name != "sbatch":
            raise ConfigError(f"engine_options.slurm.{name}: expected sbatch: {{option: value}}.")
    options = given.get("sbatch", {})
    if not isinstance(options, dict):
        raise ConfigError("engine_options.slurm.sbatch: expected options by name, such as "
                          "{account: vision, qos: long}.")  # fmt: skip
    found: dict[str, Any] = {}
    for name, value in options.items():
        plain = str(name).lstrip("-").replace("_", "-")
        if not _OPTION.fullmatch(plain):
            raise ConfigError(f"engine_options.slurm.sbatch: '{name}' is not an option.")
        if plain in OURS:
            raise ConfigError(
                f"engine_options.slurm.sbatch.{name}: the engine gives --{plain} itself, from the "
                "spec; leave it out."
            )
        if not isinstance(value, (str, int, float, bool)) or "\n" in str(value):
            raise ConfigError(
                f"engine_options.slurm.sbatch.{name}: expected a word, a number or true, got "
                f"{value!r}."
            )
        found[plain] = value
    if spec.queue and "partition" in found:
        raise ConfigError(
            f"queue is '{spec.queue}' and engine_options.slurm.sbatch.partition "
            f"'{found['partition']}'; keep one."
        )
    return found


def resource_options(group: Group) -> dict[str, Any]:
    """Return the options of `sbatch` that ask for a group's resources."""
    need = group.resources
    cores = max(1, math.ceil(need.cpu))
    found: dict[str, Any] = {"ntasks": group.count, "cpus-per-task": cores}
    memory = math.ceil(need.mem_mb * 1e6 / MIB)
    if memory and group.count == 1:
        found["mem"] = f"{memory}M"
    elif memory:
        found["mem-per-cpu"] = f"{math.ceil(memory / cores)}M"
    if need.gpu:
        found["gpus-per-task"] = f"{need.gpu_type}:{need.gpu}" if need.gpu_type else need.gpu
    if need.disk_mb:
        found["tmp"] = f"{math.ceil(need.disk_mb * 1e6 / MIB)}M"
    if need.custom:
        # counted by node, so a node takes one task
        found |= {"nodes": group.count, "ntasks-per-node": 1}
        found["gres"] = ",".join(f"{name}:{amount:g}" for name, amount in need.custom.items())
    return found


def minutes(spec: JobSpec, grace_s: float, longest_s: float | None = None) -> int | None:
    """Return Slurm's time limit in minutes, somewhat after ours; None without one of ours.

    Args:
        spec: the job's spec.
        grace_s: from TERM to KILL.
        longest_s: the most that the partition allows.
    """
    if spec.timeout_s is None:
        return None
    wanted = spec.timeout_s + grace_s + LAST_MINUTE_S
    if longest_s is not None:
        wanted = min(wanted, longest_s)
    return max(1, math.ceil(wanted / 60))


def _line(name: str, value: Any) -> list[str]:
    if value is False:
        return []
    text = f"--{name}" if value is True else f"--{name}={value}"
    return [f"#SBATCH {shlex.quote(text) if re.search(r'[^ -~]|[ #]', text) else text}"]


def render(
    spec: JobSpec,
    *,
    name: str,
    folder: Path,
    base: int,
    python: str,
    rank: int | None = None,
    grace_s: float = 15.0,
    longest_s: float | None = None,
    privileged: bool = False,
) -> str:
    """Return the script of a job, or of one replica of a job without a gang.

    Args:
        spec: the job's spec.
        name: its name in Slurm.
        folder: the job's folder.
        base: number of the attempt; each requeue is the next one.
        python: the interpreter on the nodes.
        rank: of the replica.
        grace_s: from TERM to KILL.
        longest_s: the most time that the partition allows.
        privileged: whether this user may raise priorities.
    """
    alone = rank is not None
    first: dict[str, Any] = {
        "job-name": name,
        "output": str(folder).replace("%", "%%") + "/slurm-%j.out",
        "open-mode": "append",
        "chdir": str(folder),
        # a replica that is a job of its own cannot go one attempt ahead of the others
        **({"no-requeue": True} if alone else {"requeue": True}),
    }
    if spec.checkpoint.dir:
        first["signal"] = f"B:{spec.checkpoint.signal}@{math.ceil(spec.checkpoint.grace_s)}"
    if spec.priority < 0 or (spec.priority > 0 and privileged):
        first["nice"] = -spec.priority * NICE
    every: dict[str, Any] = {}
    limit = minutes(spec, grace_s, longest_s)
    if limit is not None:
        every["time"] = limit
    if spec.queue:
        every["partition"] = spec.queue
    every |= site_options(spec)
    parts = groups(spec, rank)
    lines = ["#!/bin/sh"]
    for k, group in enumerate(parts):
        lines += ["#SBATCH hetjob"] if k else []
        options = {**(first if k == 0 else {}), **resource_options(group), **every}
        for option, value in options.items():
            lines += _line(option, value)
    steps = []
    for k, group in enumerate(parts):
        het = [f"--het-group={k}", "--mem=0"] if len(parts) > 1 else []
        cores = max(1, math.ceil(group.resources.cpu))
        steps.append(shlex.join([*het, f"--cpus-per-task={cores}"]) + ' sh -c "$task"')
    suffix = "" if rank is None else f"-r{rank}"
    whole = f" --het-group=0-{len(parts) - 1}" if len(parts) > 1 else ""
    return "\n".join(
        [
            *lines,
            "",
            f"python={shlex.quote(python)}",
            f"job={shlex.quote(str(folder))}",
            f"base={base}",
            f"first={rank or 0}",
            f"suffix={suffix!r}",
            f"wire={int(spec.launcher == 'torchrun')}",
            f"parts={len(parts)}",
            f"whole={shlex.quote(whole.strip())}",
            "start() {",
            "  srun --mpi=none --input=none --kill-on-bad-exit=0 --wait=0 \\",
            "    " + " : \\\n    ".join(steps),
            "}",
            BODY(),
        ]
    )
