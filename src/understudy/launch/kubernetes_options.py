"""What a site's Kubernetes cluster is like: `engine_options.kubernetes` of a spec."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.launch.spec import JobSpec

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A persistent volume in the job's containers.

    Attributes:
        claim: name of the PersistentVolumeClaim.
        path: where it is mounted.
    """

    claim: str
    path: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.claim):
            raise ConfigError(
                f"engine_options.kubernetes.volumes.claim: '{self.claim}' is no name of a claim."
            )
        if not PurePosixPath(self.path).is_absolute():
            raise ConfigError(
                f"engine_options.kubernetes.volumes.path: expected an absolute path, got "
                f"'{self.path}'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class KubernetesOptions:
    """What the cluster calls things.

    Attributes:
        kind: `job` (batch/v1 Indexed Job) or `trainjob` (Kubeflow Trainer).
        namespace: of the objects.
        runtime: ClusterTrainingRuntime of a TrainJob.
        priority_class: of the pods; with a queue, of the Kueue workload.
        service_account: of the pods.
        secret: Secret whose keys are the spec's secrets.
        gpu_resource: what accelerators are called.
        gpu_label: label of nodes that has the accelerator's model.
        node_selector: labels that nodes must have.
        volumes: persistent volumes.
    """

    kind: Literal["job", "trainjob"] = "job"
    namespace: str = "default"
    runtime: str = "torch-distributed"
    priority_class: str = ""
    service_account: str = ""
    secret: str = "understudy-secrets"
    gpu_resource: str = "nvidia.com/gpu"
    gpu_label: str = "nvidia.com/gpu.product"
    node_selector: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.namespace):
            raise ConfigError(
                f"engine_options.kubernetes.namespace: '{self.namespace}' is no name of one."
            )


def options_of(spec: JobSpec) -> KubernetesOptions:
    """Return a spec's options.

    Raises:
        ConfigError: an unknown key, or a value that is none.
    """
    found = spec.engine_options.get("kubernetes", {})
    return from_dict(KubernetesOptions, found, where="engine_options.kubernetes")
