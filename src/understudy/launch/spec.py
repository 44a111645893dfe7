"""A job's spec: what to run, on what, how often, what goes in and out. One schema, versioned."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_data
from understudy.launch.spec_parts import (
    Budget,
    Checkpoint,
    Elastic,
    Input,
    Output,
    PythonEnv,
    Retry,
    Role,
    check_name,
    check_range,
    check_unique,
)

SCHEMA = 1
ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLACEHOLDER = re.compile(r"\{(inputs|outputs)\.([^{}]*)\}|\{(out|checkpoints)\}")
_SECRET = re.compile(
    r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|APIKEY|API_KEY|ACCESS_KEY|"
    r"PRIVATE_KEY|SECRET_KEY)(_|$)"
)
_URL_PASSWORD = re.compile(r"://[^/\s:@]+:[^/\s@]+@")


def looks_secret(name: str, value: str = "") -> bool:
    """Say whether a variable's name, or a URL with a password in its value, gives away a secret."""
    return bool(_SECRET.search(name.upper()) or _URL_PASSWORD.search(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """One job.

    Attributes:
        schema: version of this format.
        name: for people; ids begin with it.
        project: groups jobs.
        labels: facts for people and filters.
        command: program and arguments, no shell. `{inputs.NAME}`, `{outputs.NAME}`, `{out}` and
            `{checkpoints}` stand for paths.
        entrypoint: `"package.module:function"` instead of a command.
        args: keyword arguments of the entrypoint.
        workdir: folder of the code; packed by content. Empty: no code of its own.
        include: globs of what is packed.
        exclude: globs of what is not.
        env: variables of the command.
        secrets: names of variables whose values are read when the job starts, never stored.
        python: a Python environment to make.
        image: container image, engine `kubernetes` only.
        roles: who runs.
        launcher: what wires the workers together.
        gang: all replicas start or none; by default when there are several.
        elastic: replicas may come and go.
        retry: what is tried again.
        checkpoint: how state is kept.
        timeout_s: longest attempt; none by default.
        priority: larger goes first; waiting adds to it.
        queue: the site's queue or partition.
        preemptible: may be stopped (and queued again) for a job of higher priority.
        inputs: what is read.
        outputs: what is left.
        budget: what it may cost.
        engine_options: options of the site by engine, handed through.
        key: the same key is the same job; by default a hash of spec and code.
    """

    schema: int = SCHEMA
    name: str
    project: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    entrypoint: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    workdir: str = ""
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    python: PythonEnv | None = None
    image: str = ""
    roles: tuple[Role, ...] = field(default_factory=lambda: (Role(),))
    launcher: Literal["none", "torchrun", "mpi", "ray"] = "none"
    gang: bool | None = None
    elastic: Elastic | None = None
    retry: Retry = field(default_factory=Retry)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    timeout_s: float | None = None
    priority: int = 0
    queue: str = ""
    preemptible: bool = False
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    budget: Budget | None = None
    engine_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(
                f"schema: expected {SCHEMA}, which this package reads, got {self.schema}."
            )
        check_name(self.name, "name")
        check_name(self.project, "project")
        self._check_commands()
        self._check_environment()
        self._check_roles()
        self._check_times()
        check_unique([i.name for i in self.inputs], "inputs")
        check_unique([o.name for o in self.outputs], "outputs")
        self._check_placeholders()
        if self.preemptible and "preemption" not in self.retry.on:
            raise ConfigError(
                "preemptible is true and retry.on has no 'preemption': a preempted job is queued "
                "again; add it, or set preemptible: false."
            )

    def _check_commands(self) -> None:
        if self.command and self.entrypoint:
            raise ConfigError("command and entrypoint are both given; keep one.")
        if self.entrypoint and not ENTRYPOINT.fullmatch(self.entrypoint):
            raise ConfigError(
                f"entrypoint: expected 'package.module:function', got '{self.entrypoint}'."
            )
        if self.args and not self.entrypoint:
            raise ConfigError("args belong to an entrypoint; put them into the command.")
        idle = [role.name for role in self.roles if not role.command]
        if idle and not self.command and not self.entrypoint:
            raise ConfigError(f"role '{idle[0]}' has no command, and the job has none either.")
        for word in (*self.command, *(word for role in self.roles for word in role.command)):
            if "\0" in word:
                raise ConfigError("command: a word contains a NUL byte.")

    def _check_environment(self) -> None:
        for where, env in (("env", self.env), *((f"role '{r.name}': env", r.env)
                                                for r in self.roles)):  # fmt: skip
            for name, value in env.items():
                if not VARIABLE.fullmatch(name) or "\0" in value:
                    raise ConfigError(f"{where}: '{name}' is not a variable that can be set.")
                if value and looks_secret(name, value):
                    raise ConfigError(
                        f"{where}: '{name}' looks like a secret with its value written out; name "
                        f"it under secrets: [{name}] and keep the value in the secrets folder."
                    )
                if name in self.secrets:
                    raise ConfigError(f"'{name}' is in {where} and in secrets; keep one.")
        for name in self.secrets:
            if not VARIABLE.fullmatch(name):
                raise ConfigError(
                    f"secrets: expected names of variables, got {len(name)} characters that are "
                    "none; values do not belong into a spec."
                )
        check_unique(list(self.secrets), "secrets")

    def _check_roles(self) -> None:
        if not self.roles:
            raise ConfigError("roles: expected at least one.")
        check_unique([role.name for role in self.roles], "roles")
        if self.elastic is None:
            for role in self.roles:
                if role.min_replicas not in (None, role.replicas):
                    raise ConfigError(
                        f"role '{role.name}': min_replicas {role.min_replicas} of replicas "
                        f"{role.replicas} needs elastic: {{min, max}} and launcher: torchrun."
                    )
        else:
            self._check_elastic(self.elastic)
        if self.launcher != "none" and self.gang is False:
            raise ConfigError(
                f"gang is false and launcher is '{self.launcher}', whose workers wait for each "
                "other; use gang: true or launcher: none."
            )

    def _check_elastic(self, elastic: Elastic) -> None:
        if self.launcher != "torchrun":
            raise ConfigError(
                f"elastic is given and launcher is '{self.launcher}', which cannot; use launcher: "
                "torchrun."
            )
        if len(self.roles) > 1:
            raise ConfigError("elastic is given and roles are several; an elastic job has one.")
        role = self.ranks()[0]
        if elastic.max != role.replicas:
            raise ConfigError(
                f"elastic.max is {elastic.max} and role '{role.name}' has replicas "
                f"{role.replicas}; give both the same."
            )
        if role.min_replicas not in (None, elastic.min):
            raise ConfigError(
                f"elastic.min is {elastic.min} and role '{role.name}' has min_replicas "
                f"{role.min_replicas}; give both the same, or leave min_replicas out."
            )

    def _check_times(self) -> None:
        if self.timeout_s is not None:
            check_range(self.timeout_s, 0, "timeout_s", above=True)
            grace = self.checkpoint.grace_s
            if self.checkpoint.dir and self.timeout_s <= grace:
                raise ConfigError(
                    f"timeout_s is {self.timeout_s:g} and checkpoint.grace_s {grace:g}: the job "
                    "would be asked for its last checkpoint before it starts; make timeout_s "
                    "longer or the grace shorter."
                )
        elif self.budget is not None:
            raise ConfigError(
                "budget is given without timeout_s: a job without a time limit has no cost that "
                "can be known before; give timeout_s."
            )

    def _check_placeholders(self) -> None:
        known = {
            "inputs": {i.name for i in self.inputs},
            "outputs": {o.name for o in self.outputs},
        }
        words = [*self.command, *(word for role in self.roles for word in role.command)]
        for word in words:
            for match in PLACEHOLDER.finditer(word):
                group, name = match.group(1), match.group(2)
                if group and name not in known[group]:
                    have = ", ".join(sorted(known[group])) or "none"
                    raise ConfigError(f"command: {{{group}.{name}}} is not one of its {group} "
                                      f"({have}).")  # fmt: skip

    # -- what follows from the fields

    @property
    def replicas(self) -> int:
        """All replicas of all roles."""
        return sum(role.replicas for role in self.roles)

    @property
    def is_gang(self) -> bool:
        """Whether all replicas start or none."""
        return self.replicas > 1 if self.gang is None else self.gang

    @property
    def min_replicas(self) -> int:
        """With how few replicas the job may go on."""
        return self.elastic.min if self.elastic else self.replicas

    def ranks(self) -> list[Role]:
        """Return the role of each replica; ranks count through the roles in order."""
        return [role for role in self.roles for _ in range(role.replicas)]

    def digest(self, code: str = "") -> str:
        """Return the hash of what runs.

        Neither the key nor the place of the code matters, only the code's content.

        Args:
            code: content hash of the packed code.
        """
        plain = to_dict(self)
        for name in ("key", "workdir", "include", "exclude"):
            del plain[name]
        return hash_data({**plain, "code": code})

    def warnings(self) -> list[str]:
        """Return what is allowed and probably not meant."""
        found = []
        if not self.checkpoint.dir and self.preemptible:
            found.append(
                "preemptible is true and checkpoint.dir is empty: each retry starts from step 0."
            )
        if not self.checkpoint.dir and "timeout" in self.retry.on:
            found.append(
                "retry.on has 'timeout' and checkpoint.dir is empty: each retry starts from step 0 "
                "and will take as long again."
            )
        return found
