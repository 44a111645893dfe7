"""A job's numbers over steps, as JSON that the page draws."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from understudy.launch.metric_query import metric_names, thinned
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import curve
from understudy.ui.job import find
from understudy.ui.site import site_of

NAMES = 24
RANKS = 8
POINTS = 800
"""Most metrics, replicas of each and points of a curve that are drawn."""


def curves(request: Request) -> Response:
    """Answer `/jobs/ID/curves`: `{final, left_out, curves: [{name, lines: [{rank, points}]}]}`."""
    with JobStore(site_of(request).config.home.database) as store:
        job = find(store, request.path_params["job"])
        names = metric_names(store, job.id)
        found: list[dict[str, Any]] = []
        for name, ranks in list(names.items())[:NAMES]:
            lines = [
                {"rank": rank, "points": thinned(curve(store, job.id, name, rank), POINTS)}
                for rank in ranks[:RANKS]
            ]
            found.append({"name": name, "lines": lines})
    return JSONResponse(
        {"final": job.final, "left_out": max(0, len(names) - NAMES), "curves": found}
    )
