"""The page of one job, and what can be done to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from understudy.core.errors import ConfigError
from understudy.launch.cost import kept_cost, spent, useful_fraction
from understudy.launch.engines import ENGINES, open_engine
from understudy.launch.engines.base import GRACE_S, Engine
from understudy.launch.engines.status import describe
from understudy.launch.job_pages import next_of
from understudy.launch.metric_query import step_counts
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job
from understudy.ui.site import RefusedError, Site, read_form, site_of

MANY = 200
"""Most events and replicas that are shown."""


def find(store: JobStore, job_id: str) -> Job:
    """Return a job's record.

    Raises:
        RefusedError: there is none with exactly this id.
    """
    try:
        return store.job(job_id)
    except ConfigError:
        raise RefusedError(404, f"there is no job '{job_id[:80]}'.") from None


def costs(store: JobStore, job: Job, now: float) -> dict[str, Any]:
    """Return what a job has cost.

    Keys: `spent`, `most`, `kept` (what its outputs have cost since), None without a budget;
    `useful` (share of the computed steps that was not lost) and `steps`, (kept, computed), None
    without numbers.
    """
    counted = step_counts(store, job.id)
    found: dict[str, Any] = {"spent": None, "most": None, "kept": None, "useful": None}
    found["steps"] = counted
    if counted[1]:
        found["useful"] = useful_fraction(*counted)
    budget = job.spec.budget
    if budget is not None:
        size = sum(artefact.bytes for artefact in store.artefacts(job.id))
        since = 0.0 if job.ended is None else max(0.0, now - job.ended)
        found["spent"] = spent(store.replicas(job.id), budget.rate_table, now)
        found["most"] = budget.max_cost
        found["kept"] = kept_cost(budget.rate_table, stored_bytes=size, stored_s=since)
    return found


def _facts(site: Site, job_id: str) -> dict[str, Any]:
    now = time.time()
    with JobStore(site.config.home.database) as store:
        job = find(store, job_id)
        events = store.events(job.id)
        return {
            "job": job,
            "status": describe(store, site.config.home, job),
            "costs": costs(store, job, now),
            "attempts": store.attempts(job.id),
            "events": events[-MANY:],
            "more_events": max(0, len(events) - MANY),
            "many": MANY,
            "artefacts": store.artefacts(job.id),
            "lineage": store.lineage(job.id),
            "retries": next_of(store, job.id),
            "spec": json.dumps(json.loads(job.spec_json), indent=2, ensure_ascii=False),
            "replicas": job.spec.replicas,
            "known_engine": job.engine in ENGINES,
            "grace": GRACE_S,
            "now": now,
        }


def page(request: Request) -> Response:
    """Answer `/jobs/ID`."""
    site = site_of(request)
    return site.render(request, "job", **_facts(site, request.path_params["job"]))


async def cancel(request: Request) -> Response:
    """Stop a job, as `job cancel` does; back to its page."""
    form = await read_form(request)
    try:
        grace = float(form.get("grace") or GRACE_S)
    except ValueError:
        grace = -1.0
    if not 0 <= grace <= 86_400:
        raise RefusedError(400, "grace: expected seconds from 0 to 86400.")
    job_id = request.path_params["job"]

    def stop(engine: Engine) -> str:
        return engine.cancel(job_id, grace).id

    return await run_in_threadpool(_do, site_of(request), job_id, stop)


async def retry(request: Request) -> Response:
    """Run a job that has ended again, as `job retry` does; to the new job's page."""
    await read_form(request)
    job_id = request.path_params["job"]
    return await run_in_threadpool(_do, site_of(request), job_id, lambda e: e.retry(job_id))


def _do(site: Site, job_id: str, action: Callable[[Engine], str]) -> Response:
    with JobStore(site.config.home.database) as store:
        name = find(store, job_id).engine
    engine = open_engine(name, site.config.home)
    try:
        return RedirectResponse(f"/jobs/{action(engine)}", 303)
    finally:
        engine.close()
