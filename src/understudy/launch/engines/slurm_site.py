"""What a Slurm cluster has and allows, asked before anything is queued."""

from __future__ import annotations

import difflib
import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import ConfigError
from understudy.launch.engines.slurm_client import SlurmClient, SlurmError, parse_seconds
from understudy.launch.engines.slurm_queue import NO_HISTORY
from understudy.launch.engines.slurm_script import MIB, site_options
from understudy.launch.spec import JobSpec
from understudy.launch.state_slots import Capacity, Room

NODE_FORMAT = "%N|%P|%a|%T|%l|%c|%m|%d|%G"
DOWN = ("down", "drain", "fail", "error", "unknown", "maint", "power_down")
_GRES = re.compile(r"(?P<name>[^:,()]+)(?::(?P<kind>[^:,()]*[^0-9:,()][^:,()]*))?:(?P<n>\d+)[KMG]?"
                   r"(?:\([^)]*\))?")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One node in one partition.

    Attributes:
        name: its name.
        partition: the partition.
        default: whether that is the default one.
        up: whether both are usable now.
        longest_s: the most time that the partition allows; None: no limit.
        capacity: what it has.
    """

    name: str
    partition: str
    default: bool
    up: bool
    longest_s: float | None
    capacity: Capacity


def parse_gres(text: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the amounts of `sinfo`'s `%G`, such as `gpu:a100:4(S:0-1),shm:2`, and GPU models."""
    amounts: dict[str, float] = {}
    kinds: list[str] = []
    for match in _GRES.finditer(text if text != "(null)" else ""):
        name, count = match["name"], int(match["n"])
        amounts[name] = amounts.get(name, 0.0) + count
        if name == "gpu":
            kinds += [match["kind"] or ""] * count
    return amounts, tuple(kinds)


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes of `sinfo -h -N -o NODE_FORMAT`."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 9:
            continue
        name, partition, available, state, limit, cores, memory, disk, gres = parts
        amounts, kinds = parse_gres(gres)
        amounts |= {
            "cpu": float(cores.rstrip("+")),
            "mem_mb": float(int(memory.rstrip("+")) * MIB // 1_000_000),
            "disk_mb": float(int(disk.rstrip("+")) * MIB // 1_000_000),
        }
        usable = available == "up" and not state.lower().startswith(DOWN)
        found.append(
            Node(name=name, partition=partition.rstrip("*"), default=partition.endswith("*"),
                 up=usable, longest_s=parse_seconds(limit),
                 capacity=Capacity(amounts=amounts, gpu_types=kinds))
        )  # fmt: skip
    return found


def total(nodes: list[Node]) -> Capacity:
    """Return what nodes have together, each counted once."""
    amounts: dict[str, float] = {"gpu": 0.0}
    kinds: list[str] = []
    for node in {node.name: node for node in nodes}.values():
        for name, amount in node.capacity.amounts.items():
            amounts[name] = amounts.get(name, 0.0) + amount
        kinds += node.capacity.gpu_types
    return Capacity(amounts=amounts, gpu_types=tuple(kinds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A cluster, as its users see it.

    Attributes:
        nodes: one for each node and partition.
        config: of `scontrol show config`.
        rules: of each partition, of `scontrol show partition -o`.
    """

    nodes: tuple[Node, ...]
    config: Mapping[str, str]
    rules: Mapping[str, Mapping[str, str]]

    @property
    def accounting(self) -> bool:
        """Whether jobs are remembered."""
        return not self.config.get("AccountingStorageType", "").endswith("none")

    @property
    def preempts(self) -> bool:
        """Whether jobs may be stopped for others."""
        return self.config.get("PreemptMode", "OFF").upper() not in ("OFF", "GANG")

    @property
    def privileged(self) -> bool:
        """Whether this user may raise priorities."""
        operator = self.config.get("SlurmUser", "").split("(")[0]
        return os.getuid() == 0 or (bool(operator) and operator == _user())

    def partitions(self, spec: JobSpec) -> list[str]:
        """Return the partitions that a job may run in."""
        wanted = spec.queue or str(site_options(spec).get("partition", ""))
        if wanted:
            return [name.strip() for name in wanted.split(",") if name.strip()]
        return list(dict.fromkeys(n.partition for n in self.nodes if n.default))

    def longest_s(self, spec: JobSpec) -> float | None:
        """Return the most time that its partitions allow a job."""
        names = self.partitions(spec)
        limits = [n.longest_s for n in self.nodes if n.partition in names]
        return None if not limits or None in limits else max(x for x in limits if x is not None)

    def check(self, spec: JobSpec) -> list[str]:
        """Check what the site says about a job; return warnings.

        Raises:
            ConfigError: it could never run here.
        """
        options = site_options(spec)
        known = sorted({node.partition for node in self.nodes})
        names = self.partitions(spec)
        for name in names:
            if name not in known:
                where = "queue" if spec.queue else "engine_options.slurm.sbatch.partition"
                raise ConfigError(f"{where}: '{name}' is no partition of this cluster"
                                  f"{_near(name, known)}")  # fmt: skip
            self._check_rules(name, options)
        nodes = [n for n in self.nodes if n.partition in names] or list(self.nodes)
        self._check_nodes(spec, names, nodes)
        longest = self.longest_s(spec)
        if spec.timeout_s is not None and longest is not None and spec.timeout_s > longest:
            raise ConfigError(
                f"timeout_s is {spec.timeout_s:g}; partition '{','.join(names)}' allows "
                f"{longest:g} s."
            )
        return self._warnings(spec, names, nodes)

    def _check_rules(self, partition: str, options: Mapping[str, Any]) -> None:
        rules = self.rules.get(partition, {})
        for option, rule in (("qos", "AllowQos"), ("account", "AllowAccounts")):
            allowed = rules.get(rule, "ALL")
            wanted = str(options.get(option, ""))
            if wanted and allowed not in ("ALL", "", "(null)"):
                known = allowed.split(",")
                if wanted not in known:
                    raise ConfigError(
                        f"engine_options.slurm.sbatch.{option}: '{wanted}' may not use partition "
                        f"'{partition}'{_near(wanted, known)}"
                    )

    def _check_nodes(self, spec: JobSpec, names: list[str], nodes: list[Node]) -> None:
        """Raise `ConfigError` unless each replica fits one node of its partitions."""
        for role in spec.roles:
            need, kind = role.resources.vector(), role.resources.gpu_type
            if any(Room.of(n.capacity).take(need, kind) is not None for n in nodes):
                continue
            most = {k: max(n.capacity.amounts.get(k, 0.0) for n in nodes) for k in need}
            everywhere = total(list(self.nodes)).amounts
            short = [k for k, a in need.items() if a > most[k]]
            if not short or any(need[k] > everywhere.get(k, 0.0) for k in short):
                continue  # said in the same words by every engine
            detail = ", ".join(f"{k}={need[k]:g} (has {most[k]:g})" for k in short)
            raise ConfigError(
                f"role '{role.name}' asks more than any node of partition '{','.join(names)}' "
                f"has: {detail}."
            )

    def _warnings(self, spec: JobSpec, names: list[str], nodes: list[Node]) -> list[str]:
        found = [] if self.accounting else [NO_HISTORY]
        if not any(node.up for node in nodes):
            found.append(f"no node of partition '{','.join(names)}' is up now.")
        if spec.priority > 0 and not self.privileged:
            found.append(
                f"priority {spec.priority}: Slurm lets only its operators raise a job; use a "
                "partition (queue) or a qos of higher priority."
            )
        if spec.preemptible and not self.preempts:
            found.append("preemptible is true, and this Slurm preempts no jobs.")
        return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f". Did you mean {' or '.join(near)}?"
    return f" (there are {', '.join(known) or 'none'})."


def read_site(client: SlurmClient) -> Site:
    """Ask Slurm what it has.

    Raises:
        ConfigError: Slurm is not installed here, or does not answer.
    """
    try:
        nodes = parse_nodes(client.call("sinfo", "-h", "-N", "-o", NODE_FORMAT))
        lines = client.call("scontrol", "show", "config").splitlines()
        shown = client.call("scontrol", "show", "partition", "-o").splitlines()
    except SlurmError as error:
        raise ConfigError(f"engine 'slurm': Slurm does not answer ({error}).") from None
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    rules = {}
    for line in shown:
        facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
        rules[facts.get("PartitionName", "")] = facts
    return Site(nodes=tuple(nodes), config={k.strip(): v.strip() for k, v in pairs}, rules=rules)
