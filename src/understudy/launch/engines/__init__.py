"""Engines: where jobs run. A name each, imported when used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.core.lazy import LazyTable
from understudy.launch.home import Home

if TYPE_CHECKING:
    from understudy.launch.engines.base import Engine

ENGINES = LazyTable(
    "engine",
    {
        "local": "understudy.launch.engines.local:LocalEngine",
        "ray": "understudy.launch.engines.ray:RayEngine",
        "slurm": "understudy.launch.engines.slurm:SlurmEngine",
        "kubernetes": "understudy.launch.engines.kubernetes:KubernetesEngine",
    },
)


def open_engine(name: str = "local", home: str | Path | Home | None = None) -> Engine:
    """Return an engine over a home of jobs.

    Raises:
        ConfigError: there is no such engine; the message lists near matches.
    """
    where = home if isinstance(home, Home) else Home.open(home)
    return ENGINES.load(name)(where)
