"""How the Ray engine behaves, what specs may say to it, and what its cluster has."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.config import from_dict, to_dict
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import check_range
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity

SETTINGS, CLUSTER, TROUBLE = "ray.settings", "ray.cluster", "ray.trouble"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where Ray itself looks for an address, the first one first."""
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


@dataclass(frozen=True, kw_only=True, slots=True)
class RaySettings(LocalSettings):
    """Times and sizes of the Ray engine, besides those of the local one.

    Attributes:
        address: of the cluster's job server; empty: not chosen yet.
        python: what runs wrappers on the nodes; it has this package. Empty: the submitter's.
        ask_s: between questions to Ray about a job.
        settle_s: a replica that Ray has given up may still show its last file for so long.
        silent_s: without an answer of Ray and a heartbeat for so long, a replica is gone.
    """

    address: str = ""
    python: str = ""
    ask_s: float = 2.0
    settle_s: float = 2.0
    silent_s: float = 60.0

    def __post_init__(self) -> None:
        LocalSettings.__post_init__(self)  # super() does not know classes that slots have replaced
        check_range(self.ask_s, 0, "settings.ask_s", above=True)
        check_range(self.settle_s, 0, "settings.settle_s")
        check_range(self.silent_s, 0, "settings.silent_s", above=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions:
    """What `engine_options.ray` of a spec may say.

    Attributes:
        address: of the cluster; `$RAY_ADDRESS` otherwise.
        strategy: how a gang's replicas lie on nodes; `auto` is one node if one has room for all
            of them when empty, else spread.
        labels: of the nodes that may run it (Ray's label selector).
        metadata: for Ray's own lists.
    """

    address: str = ""
    strategy: Literal["auto", "STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"] = "auto"
    labels: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def options(spec: JobSpec) -> RayOptions:
    """Return what a spec says to Ray.

    Raises:
        ConfigError: an unknown key (the nearest one is named), or a value of the wrong type.
    """
    return from_dict(RayOptions, spec.engine_options.get("ray", {}), where="engine_options.ray")


def read_settings(store: JobStore) -> RaySettings:
    """Return the settings that a home keeps."""
    return from_dict(RaySettings, store.meta(SETTINGS, {}), where=SETTINGS)


def write_settings(store: JobStore, settings: RaySettings) -> None:
    """Keep settings; a running controller takes them over."""
    store.set_meta(SETTINGS, to_dict(settings))


def address_here() -> str:
    """Return the address that this process's variables name; empty if none does."""
    return next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a cluster has.

    Attributes:
        nodes: amounts of each node that is there, by our names of resources.
        gpu_types: model of each node's accelerators; empty where Ray knows none.
    """

    nodes: tuple[dict[str, float], ...] = ()
    gpu_types: tuple[str, ...] = ()

    def capacity(self) -> Capacity:
        """Return all of it together."""
        amounts: dict[str, float] = {"cpu": 0.0, "gpu": 0.0, "mem_mb": 0.0}
        types: list[str] = []
        for node, kind in zip(self.nodes, self.gpu_types, strict=True):
            for name, amount in node.items():
                amounts[name] = amounts.get(name, 0.0) + amount
            types += [kind] * int(node.get("gpu", 0))
        return Capacity(amounts=amounts, gpu_types=tuple(types))

    def fit(self, vector: dict[str, float], gpu_type: str = "") -> int:
        """Return how many replicas that need `vector` the empty cluster holds."""
        total = 0
        for node, kind in zip(self.nodes, self.gpu_types, strict=True):
            if gpu_type and kind != gpu_type:
                continue
            ratios = [node.get(name, 0.0) / amount for name, amount in vector.items()]
            total += int(min(ratios, default=float("inf")) + 1e-9) if ratios else 1 << 20
        return total


def node_amounts(resources: dict[str, Any]) -> tuple[dict[str, float], str]:
    """Return a node's amounts by our names, and the model of its accelerators.

    Args:
        resources: what Ray says that it has: `CPU`, `GPU`, `memory` in bytes, `node:...`,
            `accelerator_type:...` and the site's own.
    """
    amounts: dict[str, float] = {}
    kind = ""
    for name, amount in resources.items():
        if name == "memory":
            amounts["mem_mb"] = float(int(amount) // 1_000_000)
        elif name in ("CPU", "GPU"):
            amounts[name.lower()] = float(amount)
        elif name.startswith("accelerator_type:"):
            kind = name.partition(":")[2]
        elif not name.startswith("node:") and name != "object_store_memory":
            amounts[name] = float(amount)
    return amounts, kind


def bundle(vector: dict[str, float], gpu_type: str) -> dict[str, float]:
    """Return what a replica needs by Ray's names; memory in bytes."""
    names = {"cpu": "CPU", "gpu": "GPU", "mem_mb": "memory"}
    found = {names.get(n, n): a * (1e6 if n == "mem_mb" else 1.0) for n, a in vector.items()}
    if gpu_type:
        found[f"accelerator_type:{gpu_type}"] = 0.001
    return found
