"""A spec in the words of other launchers: TorchX, SkyPilot, Kubernetes; never run here."""

from __future__ import annotations

import pprint
import shlex
from collections.abc import Callable
from typing import Any

from understudy.core.errors import ConfigError
from understudy.core.lazy import LazyTable
from understudy.launch import spec_yaml
from understudy.launch.replica_plan import command
from understudy.launch.spec import PLACEHOLDER, JobSpec
from understudy.launch.spec_parts import Role

FORMATS = LazyTable(
    "format to export to",
    {
        "torchx": "understudy.launch.export:torchx",
        "skypilot": "understudy.launch.export:skypilot",
        "kubernetes": "understudy.launch.kubernetes:kubernetes",
    },
)


def export(spec: JobSpec, to: str) -> str:
    """Return a spec as text in another launcher's format.

    Raises:
        ConfigError: no such format, or the format cannot say what the spec says.
    """
    render: Callable[[JobSpec], str] = FORMATS.load(to)
    return render(spec)


def _words(spec: JobSpec, rank: int, to: str) -> list[str]:
    words = command(spec, rank)
    for word in words:
        match = PLACEHOLDER.search(word)
        if match:
            raise ConfigError(
                f"export to {to}: the command has {match.group(0)}, a path that only our engines "
                "know; write the path out."
            )
    return words


def _refuse(spec: JobSpec, to: str, *fields: str) -> None:
    for name in fields:
        if getattr(spec, name):
            raise ConfigError(f"export to {to}: {name} has no counterpart there; leave it out.")


def _torchrun(spec: JobSpec, role: Role, node: str, address: str) -> str:
    """Return the start of a torchrun command for a shell that knows `node` and `address`."""
    per_replica = max(1, role.resources.gpu)
    if spec.elastic is not None:
        shape = [
            f"--nnodes={spec.elastic.min}:{spec.elastic.max}",
            f"--max-restarts={spec.elastic.max_restarts}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={address}:29500",
        ]
    else:
        shape = [
            f"--nnodes={role.replicas}",
            f"--node-rank={node}",
            f"--master-addr={address}",
            "--master-port=29500",
        ]
    return " ".join(["torchrun", *shape, f"--nproc-per-node={per_replica}", "--no-python"])


def torchx(spec: JobSpec) -> str:
    """Return a TorchX component: a Python file with a function that gives an `AppDef`.

    Raises:
        ConfigError: the spec has what an `AppDef` cannot say.
    """
    _refuse(spec, "torchx", "python", "secrets", "budget", "timeout_s", "inputs")
    if spec.launcher not in ("none", "torchrun"):
        raise ConfigError(f"export to torchx: launcher '{spec.launcher}' has no counterpart there.")
    if spec.launcher == "torchrun" and len(spec.roles) > 1:
        raise ConfigError("export to torchx: torchrun over several roles has no counterpart there.")
    roles, first = [], 0
    for role in spec.roles:
        # $ begins a macro there
        words = [word.replace("$", "$$") for word in _words(spec, first, "torchx")]
        if spec.launcher == "torchrun":
            # a shell there knows the address of rank 0
            start = _torchrun(spec, role, "${replica_id}", "$${${rank0_env}:=localhost}")
            words = ["bash", "-c", f"{start} {shlex.join(words)}"]
        first += role.replicas
        r = role.resources
        roles.append(
            {
                "name": role.name,
                "image": spec.image,
                "entrypoint": words[0],
                "args": words[1:],
                "env": {**spec.env, **role.env},
                "num_replicas": role.replicas,
                "min_replicas": role.min_replicas or (spec.elastic.min if spec.elastic else None),
                "max_retries": spec.retry.max_failures if "failure" in spec.retry.on else 0,
                "resource": {
                    "cpu": max(1, round(r.cpu)),
                    "gpu": r.gpu,
                    "memMB": r.mem_mb or 1024,
                    "capabilities": {"gpu_type": r.gpu_type} if r.gpu_type else {},
                },
            }
        )
    return _component(spec, roles)


def _component(spec: JobSpec, roles: list[dict[str, Any]]) -> str:
    metadata = {"project": spec.project, **spec.labels}
    body = pprint.pformat(roles, width=96, sort_dicts=False)
    return (
        f'"""Job {spec.name}: torchx run FILE.py:job; the working folder is the workspace."""\n\n'
        "from torchx import specs\n\n"
        f"ROLES = {body}\n\n\n"
        "def job() -> specs.AppDef:\n"
        f'    """Return the job {spec.name}."""\n'
        "    policy = specs.RetryPolicy.APPLICATION\n"
        "    roles = [\n"
        '        specs.Role(**{**r, "resource": specs.Resource(**r["resource"])}, '
        "retry_policy=policy)\n"
        "        for r in ROLES\n"
        "    ]\n"
        f"    return specs.AppDef(name={spec.name!r}, roles=roles, metadata={metadata!r})\n"
    )


def skypilot(spec: JobSpec) -> str:
    """Return a SkyPilot task as YAML.

    Raises:
        ConfigError: the spec has what a task cannot say.
    """
    _refuse(spec, "skypilot", "python", "timeout_s", "elastic", "inputs")
    if len(spec.roles) > 1:
        raise ConfigError(
            f"export to skypilot: a task has one role, the spec has "
            f"{', '.join(r.name for r in spec.roles)}."
        )
    if spec.launcher not in ("none", "torchrun"):
        raise ConfigError(
            f"export to skypilot: launcher '{spec.launcher}' has no counterpart there."
        )
    role = spec.ranks()[0]
    r = role.resources
    resources: dict[str, Any] = {"cpus": f"{max(1, round(r.cpu))}+"}
    if r.mem_mb:
        resources["memory"] = f"{max(1, round(r.mem_mb / 1000))}+"
    if r.gpu:
        if not r.gpu_type:
            raise ConfigError(
                f"export to skypilot: role '{role.name}' asks gpu={r.gpu} of any type; "
                "accelerators have names there, set resources.gpu_type."
            )
        resources["accelerators"] = f"{r.gpu_type}:{r.gpu}"
    if r.disk_mb:
        resources["disk_size"] = max(1, round(r.disk_mb / 1000))
    if spec.preemptible:
        resources["use_spot"] = True
    if spec.image:
        resources["image_id"] = f"docker:{spec.image}"
    if spec.retry.max_failures and "failure" in spec.retry.on:
        resources["job_recovery"] = {"max_restarts_on_errors": spec.retry.max_failures}
    words = _words(spec, 0, "skypilot")
    run = shlex.join(words)
    if spec.launcher == "torchrun":
        address = '$(echo "$SKYPILOT_NODE_IPS" | head -n1)'
        run = f"{_torchrun(spec, role, '$SKYPILOT_NODE_RANK', address)} {run}"
    task: dict[str, Any] = {"name": spec.name}
    if spec.workdir:
        task["workdir"] = spec.workdir
    if role.replicas > 1:
        task["num_nodes"] = role.replicas
    task["resources"] = resources
    if spec.env or role.env:
        task["envs"] = {**spec.env, **role.env}
    if spec.secrets:
        task["secrets"] = dict.fromkeys(spec.secrets)
    task["run"] = run
    return spec_yaml.write(task)
