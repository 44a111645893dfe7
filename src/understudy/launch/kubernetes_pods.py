"""The pods of a job: command, variables, resources, volumes, and how they are asked to end."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

from understudy.core.errors import ConfigError
from understudy.launch.kubernetes_options import KubernetesOptions
from understudy.launch.replica_plan import command
from understudy.launch.spec import PLACEHOLDER, JobSpec
from understudy.launch.spec_parts import Resources

CONTAINER = "main"
PORT = 29500
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
STOP_S = 15
"""From TERM to KILL."""


def _literal(text: str) -> str:
    """Return a word in which the cluster replaces nothing: `$(` begins a variable there."""
    return text.replace("$(", "$$(")


def words(spec: JobSpec) -> list[str]:
    """Return the command of every replica.

    Raises:
        ConfigError: it has a placeholder.
    """
    found = command(spec, 0)
    for word in found:
        match = PLACEHOLDER.search(word)
        if match:
            raise ConfigError(
                f"kubernetes: the command has {match.group(0)}, a path that only engines with a "
                "shared folder know; write the path out."
            )
    return [_literal(word) for word in found]


def resources(wanted: Resources, options: KubernetesOptions) -> dict[str, Any]:
    """Return what a container asks for and gets at most.

    Raises:
        ConfigError: a resource of the site's own has a name or an amount that is none there.
    """
    requests: dict[str, str] = {}
    if wanted.cpu:
        requests["cpu"] = f"{math.ceil(wanted.cpu * 1000)}m"
    if wanted.mem_mb:
        requests["memory"] = f"{wanted.mem_mb}M"
    if wanted.disk_mb:
        requests["ephemeral-storage"] = f"{wanted.disk_mb}M"
    extended = {options.gpu_resource: float(wanted.gpu)} if wanted.gpu else {}
    for name, amount in wanted.custom.items():
        if "/" not in name or amount != int(amount):
            raise ConfigError(
                f"kubernetes: resources.custom.{name}: {amount:g}: expected a name such as "
                "'example.com/fpga' and a whole number."
            )
        extended[name] = amount
    whole = {name: str(int(amount)) for name, amount in extended.items() if amount}
    # a memory limit ends a job that takes more, as its request promised; cores are shared
    limits = {k: v for k, v in requests.items() if k != "cpu"} | whole
    found = {"requests": requests | whole, "limits": limits}
    return {k: v for k, v in found.items() if v}


def environment(
    spec: JobSpec, name: str, options: KubernetesOptions, *, index: bool
) -> list[dict[str, Any]]:
    """Return a container's variables.

    Args:
        spec: the spec.
        name: of the object.
        options: of the cluster.
        index: whether pods have a completion index of their own.
    """
    role = spec.ranks()[0]
    plain = {
        "UNDERSTUDY_JOB_ID": name,
        "UNDERSTUDY_ROLE": role.name,
        "UNDERSTUDY_REPLICAS": str(spec.replicas),
    }
    folder = spec.checkpoint.dir
    if folder:
        if not PurePosixPath(folder).is_absolute():
            raise ConfigError(
                f"kubernetes: checkpoint.dir '{folder}' is relative, and a pod has no folder of "
                "the job; give a path in a volume."
            )
        plain["UNDERSTUDY_CKPT_DIR"] = folder
    plain |= {k: _literal(v) for k, v in {**spec.env, **role.env}.items()}
    found: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in plain.items()]
    if index:
        place = {"fieldRef": {"fieldPath": INDEX}}
        found.append({"name": "UNDERSTUDY_REPLICA", "valueFrom": place})
    for key in spec.secrets:
        place = {"secretKeyRef": {"name": options.secret, "key": key}}
        found.append({"name": key, "valueFrom": place})
    return found


def container(spec: JobSpec, name: str, options: KubernetesOptions) -> dict[str, Any]:
    """Return the container of a replica of an Indexed Job."""
    role, line = spec.ranks()[0], words(spec)
    if spec.launcher == "torchrun":
        alone = [
            "--nnodes=1", "--node-rank=0", "--master-addr=localhost",
        ] if spec.replicas == 1 else [
            f"--nnodes={spec.replicas}",
            "--node-rank=$(UNDERSTUDY_REPLICA)",  # the cluster puts the pod's index here
            f"--master-addr={name}-0.{name}",
        ]  # fmt: skip
        workers = max(1, role.resources.gpu)
        line = ["torchrun", *alone, f"--master-port={PORT}", f"--nproc-per-node={workers}",
                "--no-python", *line]  # fmt: skip
    found: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "command": line,
        "env": environment(spec, name, options, index=True),
        "resources": resources(role.resources, options),
    }
    if options.volumes:
        found["volumeMounts"] = [
            {"name": f"volume-{i}", "mountPath": v.path} for i, v in enumerate(options.volumes)
        ]
    if spec.checkpoint.dir and spec.launcher == "none":
        # A first process without a handler for the signal does not get it: nothing is killed.
        grace = math.ceil(spec.checkpoint.grace_s)
        ask = f"kill -{spec.checkpoint.signal} 1; sleep {grace}"
        found["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", ask]}}}
    return {k: v for k, v in found.items() if v}


def pod(spec: JobSpec, name: str, options: KubernetesOptions) -> dict[str, Any]:
    """Return the template of a job's pods."""
    asked = math.ceil(spec.checkpoint.grace_s) if spec.checkpoint.dir else 0
    body: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": asked + STOP_S,
    }
    if spec.replicas > 1:
        body["subdomain"] = name
    if options.service_account:
        body["serviceAccountName"] = options.service_account
    if options.priority_class and not spec.queue:
        body["priorityClassName"] = options.priority_class
    kind = spec.ranks()[0].resources.gpu_type
    selector = {**options.node_selector, **({options.gpu_label: kind} if kind else {})}
    if selector:
        body["nodeSelector"] = selector
    if options.volumes:
        body["volumes"] = [
            {"name": f"volume-{i}", "persistentVolumeClaim": {"claimName": v.claim}}
            for i, v in enumerate(options.volumes)
        ]
    body["containers"] = [container(spec, name, options)]
    labels = {"app.kubernetes.io/managed-by": "understudy"}
    return {"metadata": {"labels": labels}, "spec": body}
