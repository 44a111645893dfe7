"""The page of all jobs: counted by state, searched by words, a page at a time."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from understudy.launch.job_pages import job_page
from understudy.launch.state import JobStore
from understudy.launch.states import State
from understudy.ui.site import RefusedError, site_of, whole

PER_PAGE = 50


def _address(state: str, text: str, page: int) -> str:
    chosen = {"state": state, "text": text, "page": page if page > 1 else ""}
    query = urlencode({k: v for k, v in chosen.items() if v})
    return f"/jobs?{query}" if query else "/jobs"


def page(request: Request) -> Response:
    """Answer `/jobs?state=&text=&page=`."""
    site = site_of(request)
    state = request.query_params.get("state", "").upper()
    text = request.query_params.get("text", "").strip()[:200]
    number = whole(request, "page", 1, 1, 10_000_000)
    if state and state not in list(State):
        raise RefusedError(400, f"state: expected one of {', '.join(State)}, got '{state[:40]}'.")
    with JobStore(site.config.home.database) as store:
        found = job_page(
            store,
            site.config.home,
            states=(State(state),) if state else (),
            text=text,
            offset=(number - 1) * PER_PAGE,
            limit=PER_PAGE,
        )
    last = max(1, -(-found.total // PER_PAGE))
    tabs = [("", "all", sum(found.counts.values()))]
    tabs += [(s, s.lower().replace("_", " "), found.counts[s]) for s in State if s in found.counts]
    return site.render(
        request,
        "jobs",
        jobs=found.jobs,
        total=found.total,
        first=(number - 1) * PER_PAGE + 1,
        number=number,
        last=last,
        state=state,
        text=text,
        now=time.time(),
        tabs=[(name, label, n, _address(name, text, 1)) for name, label, n in tabs],
        before=_address(state, text, number - 1) if number > 1 else "",
        after=_address(state, text, number + 1) if number < last else "",
    )
