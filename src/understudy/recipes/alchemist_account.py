"""What a job did with its time and money, from its record, its numbers and its files."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.core.checkpoints import steps as checkpoint_steps
from understudy.core.config import to_dict
from understudy.launch.cost import MONTH_S, kept_cost, overhead, spent, useful_fraction
from understudy.launch.engines.base import Engine
from understudy.launch.metric_query import values
from understudy.launch.spec_parts import Rates


def account(
    engine: Engine,
    job_id: str,
    save_s: float | None,
    between_failures_s: float | None,
    prices: Mapping[str, float],
) -> dict[str, Any]:
    """Return the account of a job that has ended, as plain data.

    Args:
        engine: where it ran.
        job_id: which.
        save_s: what a checkpoint takes, where it is known.
        between_failures_s: mean time between failures that was expected.
        prices: `cpu_hour`, `mem_gb_hour`, `gpu_hour` and `storage_gb_month`.
    """
    job = engine.store.job(job_id)
    rates = Rates(
        cpu=prices["cpu_hour"],
        mem_gb=prices["mem_gb_hour"],
        gpu={"": prices["gpu_hour"]},
        storage_gb_month=prices["storage_gb_month"],
    )
    events = engine.store.events(job_id)
    restarts = [e for e in events if e.kind == "restart"]
    attempts = engine.store.attempts(job_id)
    end = job.ended or events[-1].t
    artefacts = engine.store.artefacts(job_id)
    stored = sum(a.bytes for a in artefacts)
    found: dict[str, Any] = {
        "id": job.id,
        "engine": job.engine,
        "state": str(job.state),
        "reason": job.reason,
        "exit_code": job.exit_code,
        "folder": str(engine.home.job(job.id)),
        "workers": job.spec.replicas,
        "states": ["CREATED", *(e.facts["to"] for e in events if e.kind == "move")],
        "attempts": [to_dict(a) for a in attempts],
        "restarts": len(restarts),
        "failures": len(restarts) + sum(a.cause not in ("success", "") for a in attempts),
        "waited_s": (job.started or end) - job.created,
        "ran_s": end - (job.started or end),
        "artefacts": [to_dict(a) for a in artefacts],
        "checkpoints": checkpoint_steps(engine.home.job(job.id) / "checkpoints"),
        "cost": spent(engine.store.replicas(job.id), rates, end),
        "kept_cost_month": kept_cost(rates, stored_bytes=stored, stored_s=MONTH_S),
        "kept_bytes": stored,
    }
    found |= progress(_steps(engine, job_id))
    if found["failures"] and found["ran_s"]:
        found["between_failures_s"] = found["ran_s"] / found["failures"]
    every = job.spec.checkpoint.every_s
    if save_s is not None and between_failures_s is not None and every is not None:
        found["young"] = {
            "save_s": save_s,
            "interval_s": every,
            "between_failures_s": between_failures_s,
            "overhead": overhead(every, save_s, between_failures_s),
        }
    return found


def _steps(engine: Engine, job_id: str) -> list[tuple[int, float]]:
    """Return (step, time) of every line of numbers of rank 0, in the order of writing."""
    rows = [value for value in values(engine.store, job_id) if value.rank == 0]
    return [(row.step, row.t) for row in rows if row.name == rows[0].name]


def progress(lines: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return what the steps that a script told of add up to.

    Goodput is the time that the kept steps take at their usual pace over the time from the first
    to the last; a step that was computed twice is kept once.

    Args:
        lines: (step, seconds since 1970) in the order of computing.
    """
    if len(lines) < 3:
        return {"goodput": None, "useful_fraction": None, "steps": {"kept": 0, "computed": 0}}
    kept = {step for step, _ in lines}
    paces = [
        (b[1] - a[1]) / (b[0] - a[0])
        for a, b in itertools.pairwise(lines)
        if b[0] > a[0] and b[1] > a[1]
    ]
    wall = lines[-1][1] - lines[0][1]
    pace = statistics.median(paces) if paces else 0.0
    spread = max(kept) - min(kept)
    return {
        "goodput": min(1.0, pace * spread / wall) if wall > 0 else None,
        "useful_fraction": useful_fraction(len(kept), len(lines)),
        "steps": {"kept": len(kept), "computed": len(lines), "last": max(kept)},
        "step_s": pace,
        "line": [[step, t - lines[0][1]] for step, t in _thin(lines)],
    }


def _thin(lines: Sequence[tuple[int, float]], most: int = 2000) -> Sequence[tuple[int, float]]:
    return lines[:: max(1, len(lines) // most)]
