"""A spec as Kubernetes objects: an Indexed Job (and a Service for its ranks), or a TrainJob.

What a cluster cannot say in these objects is refused with the field's name. Code is in the image,
state and data are in volumes or object stores: a pod has no folder of the job.

References:
    Kubernetes API reference, batch/v1 Job (completionMode, podFailurePolicy) and core/v1.
    Kubeflow Trainer, pkg/apis/trainer/v1alpha1/trainjob_types.go.
    Kueue: the label kueue.x-k8s.io/queue-name; an admitted workload is no longer suspended.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from understudy.core.errors import ConfigError
from understudy.launch.kubernetes_options import KubernetesOptions, options_of
from understudy.launch.kubernetes_pods import environment, pod, resources, words
from understudy.launch.spec import JobSpec

QUEUE = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset("y n yes no on off true false null nan inf".split())
NAME_CHARS = 52
"""Of an object: pods add an index and five letters, and all of it is a host's name."""


def object_name(name: str) -> str:
    """Return a name that objects, services and hosts may have; its end is kept, it is unique."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(plain) > NAME_CHARS:
        plain = plain[: NAME_CHARS - 9].rstrip("-") + "-" + plain[-8:].lstrip("-")
    return plain if plain[:1].isalpha() else f"j-{plain}"


def _refuse(spec: JobSpec, **reasons: str) -> None:
    for name, reason in reasons.items():
        if getattr(spec, name):
            raise ConfigError(f"kubernetes: {name}: {reason}")


def check(spec: JobSpec) -> KubernetesOptions:
    """Refuse what the objects cannot say; return the options.

    Raises:
        ConfigError: a field has no counterpart; the message says what to do instead.
    """
    _refuse(
        spec,
        workdir="pods run an image; put the code into it and leave workdir out.",
        python="pods run an image; put the packages into it and leave python out.",
        inputs="a pod does not see this machine's paths; name them in the command.",
        outputs="nobody collects them from a pod; write to a volume or an object store.",
        elastic="neither a Job nor a TrainJob changes its size; leave it out.",
    )
    options = options_of(spec)
    if not spec.image:
        raise ConfigError("kubernetes: image is empty; name the image that has the job's code.")
    if len(spec.roles) > 1:
        raise ConfigError(
            f"kubernetes: a job has one role there, the spec has "
            f"{', '.join(role.name for role in spec.roles)}."
        )
    if spec.launcher not in ("none", "torchrun"):
        raise ConfigError(f"kubernetes: launcher '{spec.launcher}' has no counterpart there.")
    if spec.priority and not options.priority_class:
        raise ConfigError(
            f"kubernetes: priority is {spec.priority}; priorities have names there: set "
            "engine_options.kubernetes.priority_class and leave priority out."
        )
    for key, value in spec.labels.items():
        if not key or not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
            raise ConfigError(f"kubernetes: labels: '{key}: {value}' cannot be a label there.")
    if options.kind == "trainjob":
        _check_trainjob(spec, options)
    return options


def _check_trainjob(spec: JobSpec, options: KubernetesOptions) -> None:
    if spec.launcher != "torchrun":
        raise ConfigError(
            "kubernetes: kind 'trainjob' needs launcher: torchrun; use kind: job for others."
        )
    for name in ("service_account", "node_selector", "volumes"):
        if getattr(options, name):
            raise ConfigError(
                f"kubernetes: {name} of a TrainJob stands in its training runtime "
                f"('{options.runtime}'); leave it out."
            )
    if spec.ranks()[0].resources.gpu_type:
        raise ConfigError(
            "kubernetes: resources.gpu_type of a TrainJob stands in its training runtime "
            f"('{options.runtime}'); leave it out."
        )
    if options.priority_class and not spec.queue:
        raise ConfigError("kubernetes: priority_class of a TrainJob needs a queue (Kueue).")


def warnings(spec: JobSpec) -> list[str]:
    """Return what is allowed and probably not meant."""
    found = []
    if spec.replicas > 1 and options_of(spec).kind == "job":
        if spec.retry.max_failures and "failure" in spec.retry.on and spec.is_gang:
            found.append(
                "a gang as an Indexed Job is not tried again after a failure, which would restart "
                "one pod only; `job retry` runs all of it again."
            )
        if spec.is_gang and not spec.queue:
            found.append("without a queue (Kueue) pods of a gang may start one by one.")
    return found


def _metadata(spec: JobSpec, name: str, options: KubernetesOptions) -> dict[str, Any]:
    labels = {
        **spec.labels,
        "app.kubernetes.io/name": spec.name,
        "app.kubernetes.io/part-of": spec.project,
        "app.kubernetes.io/managed-by": "understudy",
    }
    if spec.queue:
        labels[QUEUE] = spec.queue
        if options.priority_class:
            labels[QUEUE_PRIORITY] = options.priority_class
    return {"name": name, "namespace": options.namespace, "labels": labels}


def _service(name: str, options: KubernetesOptions) -> dict[str, Any]:
    """Return what gives the pods of a job names that the others find."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": {"app.kubernetes.io/managed-by": "understudy"},
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
        },
    }


def _job(spec: JobSpec, name: str, options: KubernetesOptions) -> dict[str, Any]:
    alone = spec.replicas == 1 or not spec.is_gang
    tries = spec.retry.max_failures if alone and "failure" in spec.retry.on else 0
    body: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": spec.replicas,
        "parallelism": spec.replicas,
        "backoffLimit": tries,
    }
    if alone and "preemption" in spec.retry.on:  # one pod of a gang cannot come back alone
        moved = {"type": "DisruptionTarget", "status": "True"}
        body["podFailurePolicy"] = {"rules": [{"action": "Ignore", "onPodConditions": [moved]}]}
    if spec.timeout_s is not None:
        body["activeDeadlineSeconds"] = math.ceil(spec.timeout_s)
    if spec.queue:
        body["suspend"] = True
    body["template"] = pod(spec, name, options)
    metadata = _metadata(spec, name, options)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


def _trainjob(spec: JobSpec, name: str, options: KubernetesOptions) -> dict[str, Any]:
    role = spec.ranks()[0]
    trainer = {
        "image": spec.image,
        "command": ["torchrun", "--no-python", *words(spec)],
        "env": environment(spec, name, options, index=False),
        "numNodes": spec.replicas,
        "numProcPerNode": max(1, role.resources.gpu),
        "resourcesPerNode": resources(role.resources, options),
    }
    body: dict[str, Any] = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
            "name": options.runtime,
        },
        "trainer": {k: v for k, v in trainer.items() if v},
    }
    if spec.timeout_s is not None:
        body["activeDeadlineSeconds"] = math.ceil(spec.timeout_s)
    if spec.queue:
        body["suspend"] = True
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(spec, name, options),
        "spec": body,
    }


def manifests(spec: JobSpec, name: str) -> list[dict[str, Any]]:
    """Return the objects of a job, the Job or TrainJob last.

    Args:
        spec: what to run.
        name: of the objects; made one that they may have.

    Raises:
        ConfigError: a field has no counterpart.
    """
    options, name = check(spec), object_name(name)
    if options.kind == "trainjob":
        return [_trainjob(spec, name, options)]
    job = _job(spec, name, options)
    return [_service(name, options), job] if spec.replicas > 1 else [job]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some reader of YAML takes for something else."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def kubernetes(spec: JobSpec) -> str:
    """Return a job's objects as YAML for `kubectl create`.

    Raises:
        ConfigError: the spec has what the objects cannot say.
    """
    _refuse(spec, budget="nobody counts it there; leave it out.")
    found = manifests(spec, spec.name)
    return yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=False)
