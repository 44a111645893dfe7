"""What jobs cost, how often to save, what preemption wastes.

    cost = sum over replicas of hours x (cores x r_cpu + GB x r_mem + accelerators x r_gpu[type])

References:
    J. W. Young, A first order approximation to the optimum checkpoint interval, Communications of
    the ACM 17(9), 1974: the best pause between checkpoints that take c seconds, with failures every
    M seconds on average, is sqrt(2 c M).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from understudy.core.errors import ConfigError
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Rates
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Replica

HOUR_S = 3600.0
MONTH_S = 30 * 24 * HOUR_S
FALLBACK_EVERY_S = 600.0


def price_per_hour(vector: Mapping[str, float], gpu_type: str, rates: Rates) -> float:
    """Return what resources cost for an hour.

    Raises:
        ConfigError: the table has no price for that accelerator.
    """
    price = vector.get("cpu", 0.0) * rates.cpu + vector.get("mem_mb", 0.0) / 1000 * rates.mem_gb
    count = vector.get("gpu", 0.0)
    if count:
        if gpu_type not in rates.gpu and "" not in rates.gpu:
            raise ConfigError(
                f"budget.rate_table.gpu has no price for '{gpu_type or 'any'}' (it has "
                f"{', '.join(rates.gpu) or 'none'}); add it, or one under ''."
            )
        price += count * rates.gpu.get(gpu_type, rates.gpu.get("", 0.0))
    return price


def estimate(spec: JobSpec, seconds: float, rates: Rates) -> float:
    """Return what one attempt of this length costs."""
    hourly = sum(
        price_per_hour(role.resources.vector(), role.resources.gpu_type, rates) * role.replicas
        for role in spec.roles
    )
    return hourly * seconds / HOUR_S


def worst_case(spec: JobSpec) -> float:
    """Return what a job with a budget costs if every allowed attempt takes its full time.

    Preemptions are not counted: they have no limit, and what they cost is counted while it is
    spent.
    """
    assert spec.budget is not None
    assert spec.timeout_s is not None
    attempts = 1 + (spec.retry.max_failures if spec.retry.on else 0)
    return attempts * estimate(spec, spec.timeout_s, spec.budget.rate_table)


def spent(replicas: Iterable[Replica], rates: Rates, now: float) -> float:
    """Return what the reservations of a job's replicas have cost until now."""
    total = 0.0
    for replica in replicas:
        if replica.placed is None:
            continue
        end = now if replica.released is None else replica.released
        hourly = price_per_hour(replica.vector, replica.gpu_type, rates)
        total += hourly * (end - replica.placed) / HOUR_S
    return total


def kept_cost(
    rates: Rates, *, stored_bytes: float = 0, stored_s: float = 0, sent_bytes: float = 0
) -> float:
    """Return what keeping and sending bytes costs."""
    months = stored_s / MONTH_S
    return stored_bytes / 1e9 * months * rates.storage_gb_month + sent_bytes / 1e9 * rates.egress_gb


def affords_another(store: JobStore, job_id: str, now: float) -> bool:
    """Say whether a job's budget pays for one more attempt; without a budget it does."""
    spec = store.job(job_id).spec
    if spec.budget is None or spec.timeout_s is None:
        return True
    rates = spec.budget.rate_table
    so_far = spent(store.replicas(job_id), rates, now)
    return so_far + estimate(spec, spec.timeout_s, rates) <= spec.budget.max_cost * (1 + 1e-9)


def useful_fraction(steps_kept: int, steps_computed: int) -> float:
    """Return which part of the computed steps was not lost; 1 before the first.

    Raises:
        ConfigError: more steps kept than computed.
    """
    if not 0 <= steps_kept <= steps_computed:
        raise ConfigError(
            f"useful fraction: expected 0 <= steps_kept <= steps_computed, got {steps_kept} and "
            f"{steps_computed}."
        )
    return steps_kept / steps_computed if steps_computed else 1.0


def best_interval_s(save_s: float, between_failures_s: float | None) -> float:
    """Return the pause between checkpoints by Young's rule; 600 s where M is not known.

    Args:
        save_s: c, what one checkpoint takes.
        between_failures_s: M, mean time between failures; None: not known.
    """
    if between_failures_s is None or not save_s > 0:
        return FALLBACK_EVERY_S
    return math.sqrt(2 * save_s * between_failures_s)


def overhead(interval_s: float, save_s: float, between_failures_s: float) -> float:
    """Return the expected share of time lost to saving and to repeated work: c/tau + tau/(2M)."""
    return save_s / interval_s + interval_s / (2 * between_failures_s)
