"""How the local engine behaves, and what this machine has."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

from understudy.core.config import from_dict, to_dict
from understudy.launch import gpu
from understudy.launch.home import Home
from understudy.launch.replica_logs import SEGMENT_BYTES, SEGMENTS
from understudy.launch.spec_parts import check_range
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity

SETTINGS, CAPACITY = "local.settings", "local.capacity"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """Times and sizes of the local engine.

    Attributes:
        grace_s: from TERM to KILL when a job is stopped.
        heartbeat_s: between signs of life of a replica.
        start_deadline_s: all replicas of a gang have started by then, or all start again.
        aging_s: waiting so long counts as one more of priority.
        drain_s: a job that has waited so long and is first in line is not overtaken any more.
        idle_exit_s: the controller ends after so long without jobs.
        poll_s: how often the controller looks by itself; replicas wake it.
        segment_bytes: size of a log file.
        segments: log files kept for each replica.
    """

    grace_s: float = 15.0
    heartbeat_s: float = 5.0
    start_deadline_s: float = 600.0
    aging_s: float = 600.0
    drain_s: float = 60.0
    idle_exit_s: float = 30.0
    poll_s: float = 0.25
    segment_bytes: int = SEGMENT_BYTES
    segments: int = SEGMENTS

    def __post_init__(self) -> None:
        for name in ("grace_s", "drain_s", "idle_exit_s"):
            check_range(getattr(self, name), 0, f"settings.{name}")
        for name in ("heartbeat_s", "start_deadline_s", "aging_s", "poll_s", "segment_bytes"):
            check_range(getattr(self, name), 0, f"settings.{name}", above=True)
        check_range(self.segments, 1, "settings.segments")


def read_settings(store: JobStore) -> LocalSettings:
    """Return the settings that a home keeps."""
    return from_dict(LocalSettings, store.meta(SETTINGS, {}), where="local.settings")


def write_settings(store: JobStore, settings: LocalSettings) -> None:
    """Keep settings; a running controller takes them over."""
    store.set_meta(SETTINGS, to_dict(settings))


def detect(home: Home) -> Capacity:
    """Return what this machine has for this process, and the free disk of the home."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    types = gpu.types()
    amounts = {
        "cpu": float(cores or 1),
        "gpu": float(len(types)),
        "disk_mb": float(shutil.disk_usage(home.root).free // 1_000_000),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        amounts["mem_mb"] = float(memory // 1_000_000)
    return Capacity(amounts=amounts, gpu_types=types)


def read_capacity(store: JobStore, home: Home) -> Capacity:
    """Return what jobs may use: what was set, else what the machine has (found once)."""
    kept: dict[str, Any] | None = store.meta(CAPACITY)
    if kept is None:
        found = detect(home)
        store.set_meta(CAPACITY, to_dict(found))
        return found
    return from_dict(Capacity, kept, where=CAPACITY)
