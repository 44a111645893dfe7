"""The parts of a job's spec: resources, roles, retries, checkpoints, what goes in and out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from understudy.core.errors import ConfigError

Cause = Literal["failure", "preemption", "timeout", "node_loss"]
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""Names of jobs, roles, inputs and outputs: what every engine takes as a label."""


def check_name(value: str, where: str) -> None:
    """Raise `ConfigError` unless `value` is a name that every engine takes."""
    if not NAME.fullmatch(value):
        raise ConfigError(
            f"{where}: expected 1 to 63 letters, digits, '.', '_' or '-' that begin and end with a "
            f"letter or digit, got '{value}'."
        )


def check_range(value: float, low: float, where: str, *, above: bool = False) -> None:
    """Raise `ConfigError` unless `value` is finite and at least (or `above`) `low`."""
    if not math.isfinite(value) or value < low or (above and value == low):
        raise ConfigError(f"{where}: expected {'more than' if above else 'at least'} {low:g}, "
                          f"got {value:g}.")  # fmt: skip


def check_unique(names: list[str], where: str) -> None:
    """Raise `ConfigError` naming the first name that is there twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"{where}: the name '{name}' is there twice.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one replica needs.

    Attributes:
        cpu: cores; fractions share a core.
        mem_mb: memory, MB; 0 reserves none.
        gpu: whole accelerators.
        gpu_type: their model, as the engine names it; empty takes any.
        disk_mb: scratch space, MB; 0 asks for none.
        custom: anything else that the engine counts, by name.
    """

    cpu: float = 1.0
    mem_mb: int = 0
    gpu: int = 0
    gpu_type: str = ""
    disk_mb: int = 0
    custom: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(self.cpu, 0, "resources.cpu")
        check_range(self.mem_mb, 0, "resources.mem_mb")
        check_range(self.gpu, 0, "resources.gpu")
        check_range(self.disk_mb, 0, "resources.disk_mb")
        if self.gpu_type and not self.gpu:
            raise ConfigError(
                f"resources.gpu_type is '{self.gpu_type}' and resources.gpu is 0; ask for gpu: 1."
            )
        for name, amount in self.custom.items():
            check_range(amount, 0, f"resources.custom.{name}")
            if name in ("cpu", "mem_mb", "gpu", "disk_mb"):
                raise ConfigError(f"resources.custom.{name}: use resources.{name}.")

    def vector(self) -> dict[str, float]:
        """Return the amounts that are not zero, by resource name."""
        amounts = {
            "cpu": self.cpu,
            "mem_mb": float(self.mem_mb),
            "gpu": float(self.gpu),
            "disk_mb": float(self.disk_mb),
            **self.custom,
        }
        return {name: amount for name, amount in amounts.items() if amount}


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """Replicas that do the same.

    Attributes:
        name: unique in the job.
        replicas: how many.
        min_replicas: with how few the job may start and go on (elastic jobs); all by default.
        resources: of each.
        command: instead of the job's command.
        env: added to the job's environment.
    """

    name: str = "main"
    replicas: int = 1
    min_replicas: int | None = None
    resources: Resources = field(default_factory=Resources)
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "roles.name")
        check_range(self.replicas, 1, f"role '{self.name}': replicas")
        if self.min_replicas is not None:
            check_range(self.min_replicas, 1, f"role '{self.name}': min_replicas")
            if self.min_replicas > self.replicas:
                raise ConfigError(
                    f"role '{self.name}': min_replicas is {self.min_replicas}, more than "
                    f"replicas, {self.replicas}."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Elastic:
    """Replicas may come and go while the job runs; every change restarts all workers.

    Attributes:
        min: fewest replicas to go on with.
        max: most replicas.
        max_restarts: changes and failures that are lived with inside one attempt.
    """

    min: int
    max: int
    max_restarts: int = 3

    def __post_init__(self) -> None:
        check_range(self.min, 1, "elastic.min")
        check_range(self.max_restarts, 0, "elastic.max_restarts")
        if self.min > self.max:
            raise ConfigError(f"elastic.min is {self.min}, more than elastic.max, {self.max}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """What is tried again.

    Attributes:
        max_failures: attempts that may end by failure, timeout or node loss and are followed by
            another; preemptions do not count and have no limit.
        on: causes that are followed by another attempt.
        backoff_s: pause before the first repetition; doubled each time, 600 s at most, with 20 %
            jitter.
    """

    max_failures: int = 1
    on: tuple[Cause, ...] = ("failure", "preemption", "node_loss")
    backoff_s: float = 10.0

    def __post_init__(self) -> None:
        check_range(self.max_failures, 0, "retry.max_failures")
        check_range(self.backoff_s, 0, "retry.backoff_s")
        check_unique(list(self.on), "retry.on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """How the job keeps its state; see `understudy.launch.checkpoints`.

    Attributes:
        dir: folder; relative ones lie in the job's folder. Empty: the job keeps no state.
        every_s: pause between checkpoints; by default Young's rule, 600 s while nothing is known.
        keep: how many of the newest to keep.
        signal: what asks for a checkpoint now. The job saves and keeps running.
        grace_s: time from that signal to TERM.
    """

    dir: str = ""
    every_s: float | None = None
    keep: int = 3
    signal: Literal["USR1", "USR2"] = "USR1"
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        check_range(self.keep, 1, "checkpoint.keep")
        check_range(self.grace_s, 0, "checkpoint.grace_s")
        if self.every_s is not None:
            check_range(self.every_s, 0, "checkpoint.every_s", above=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What the job reads.

    Attributes:
        name: the command writes `{inputs.NAME}` for its path; also in `UNDERSTUDY_INPUT_<NAME>`.
        uri: a path, a URL, or in a pipeline `artefact:NAME`, an output of another job.
        sha256: of a file's bytes, or of a folder's contents; checked before queueing.
    """

    name: str
    uri: str
    sha256: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "inputs.name")
        if not self.uri:
            raise ConfigError(f"input '{self.name}': uri is empty.")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"input '{self.name}': sha256: expected 64 hexadecimal digits, got '{self.sha256}'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What the job leaves; a job without one of its outputs has failed.

    Attributes:
        name: the command writes `{outputs.NAME}` for its path.
        path: below the job's `out` folder.
        kind: free word for readers: file, store, model, ...
    """

    name: str
    path: str
    kind: str = "file"

    def __post_init__(self) -> None:
        check_name(self.name, "outputs.name")
        pure = PurePosixPath(self.path)
        if not self.path or "\0" in self.path or pure.is_absolute() or ".." in pure.parts:
            raise ConfigError(
                f"output '{self.name}': path '{self.path}' is not inside the job's out folder; "
                "give a path relative to it, without '..'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonEnv:
    """A Python environment made for the job.

    Attributes:
        lock: requirements file with pinned versions.
        wheelhouse: folder of wheels; nothing else is asked when it is given.
    """

    lock: str
    wheelhouse: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Prices, in one currency.

    Attributes:
        cpu: a core for an hour.
        mem_gb: 1000 MB of memory for an hour.
        gpu: an accelerator for an hour, by `gpu_type`; `""` is any other.
        storage_gb_month: a GB kept for 30 days.
        egress_gb: a GB sent out.
    """

    cpu: float = 0.0
    mem_gb: float = 0.0
    gpu: dict[str, float] = field(default_factory=dict)
    storage_gb_month: float = 0.0
    egress_gb: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cpu", "mem_gb", "storage_gb_month", "egress_gb"):
            check_range(getattr(self, name), 0, f"rate_table.{name}")
        for kind, price in self.gpu.items():
            check_range(price, 0, f"rate_table.gpu.{kind}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the job may cost.

    Attributes:
        max_cost: over all attempts, in the currency of the rates.
        rate_table: prices.
    """

    max_cost: float
    rate_table: Rates

    def __post_init__(self) -> None:
        check_range(self.max_cost, 0, "budget.max_cost")
