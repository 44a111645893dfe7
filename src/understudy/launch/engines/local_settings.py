"""How the local engine behaves, and what this machine has."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

from understudy.core.config import from_dict, to_dict
from understudy.launch import gpu
from understudy.launch.engines.settings import Settings
from understudy.launch.home import Home
from understudy.launch.spec_parts import check_range
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity

SETTINGS, CAPACITY = "local.settings", "local.capacity"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings(Settings):
    """Times and sizes of the local engine, besides those of every engine.

    Attributes:
        aging_s: waiting so long counts as one more of priority.
        drain_s: a job that has waited so long and is first in line is not overtaken any more.
    """

    aging_s: float = 600.0
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        Settings.__post_init__(self)  # super() does not know classes that slots have replaced
        check_range(self.drain_s, 0, "settings.drain_s")
        check_range(self.aging_s, 0, "settings.aging_s", above=True)


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
