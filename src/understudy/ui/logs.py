"""A job's output in the browser: a stream of events, and pages of what came before.

Each event carries a cursor as its id. A browser that lost the connection asks again with the last
one, so that no line is lost or shown twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from understudy.launch.log_tail import Choice, Follower, earlier, read_cursor, write_cursor
from understudy.launch.replica_logs import LogLine
from understudy.launch.state import JobStore
from understudy.ui.job import find
from understudy.ui.site import RefusedError, Site, site_of, whole

POLL_S = 0.2
PING_S = 15.0
"""Without lines, a comment goes out so often: else nobody notices that a browser is gone."""
LINES = 500
"""Most lines of one event, and of one page of earlier lines."""


def _plain(line: LogLine) -> list[object]:
    return [line.attempt, line.rank, line.seq, line.t, line.stream, line.text]


def _choice(request: Request, replicas: int) -> Choice:
    stream = request.query_params.get("stream", "both")
    if stream not in ("both", "stdout", "stderr"):
        raise RefusedError(400, "stream: expected both, stdout or stderr.")
    rank = whole(request, "rank", -1, 0, replicas - 1)
    tail = whole(request, "tail", 200, 0, 10_000)
    return Choice(rank=None if rank < 0 else rank, stream=stream, tail=tail)


def _replicas(site: Site, job_id: str) -> int:
    with JobStore(site.config.home.database) as store:
        return find(store, job_id).spec.replicas


async def follow(request: Request) -> Response:
    """Answer `/jobs/ID/follow?rank=&stream=&tail=` with server-sent events.

    `data` is a list of [attempt, rank, number, time, stream, text]; the event `end` says that the
    job has ended and all was sent.
    """
    site, job_id = site_of(request), request.path_params["job"]
    replicas = await run_in_threadpool(_replicas, site, job_id)
    cursor = request.headers.get("last-event-id") or request.query_params.get("cursor", "")
    follower = Follower(site.config.home, job_id, _choice(request, replicas), read_cursor(cursor))
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(
        _events(site, follower), media_type="text/event-stream", headers=headers
    )


async def _events(site: Site, follower: Follower) -> AsyncIterator[str]:
    silent = PING_S  # something goes out at once
    try:
        while not site.stopping.is_set():
            sent = dict(follower.seen)
            lines, ended = await run_in_threadpool(follower.look)
            for start in range(0, len(lines), LINES):
                part = lines[start : start + LINES]
                sent |= {(line.attempt, line.rank): line.seq for line in part if line.seq}
                last = start + LINES >= len(lines)
                cursor = follower.cursor() if last else write_cursor(sent)
                data = json.dumps([_plain(line) for line in part])
                yield f"id: {cursor}\ndata: {data}\n\n"
            if ended:
                yield f"event: end\nid: {follower.cursor()}\ndata: []\n\n"
                return
            silent = 0.0 if lines else silent + POLL_S
            if silent >= PING_S:
                yield ": nothing new\n\n"
                silent = 0.0
            if not lines:
                await anyio.sleep(POLL_S)
    finally:
        follower.close()


def before(request: Request) -> Response:
    """Answer `/jobs/ID/earlier?before=CURSOR` with the lines before those, as JSON."""
    site, job_id = site_of(request), request.path_params["job"]
    replicas = _replicas(site, job_id)
    choice = _choice(request, replicas)
    places = read_cursor(request.query_params.get("before", ""))
    if any(rank >= replicas for _, rank in places) or len(places) > 10_000:
        raise RefusedError(400, f"before: the job's replicas are 0 to {replicas - 1}.")
    lines = earlier(site.config.home, job_id, places, LINES)
    return JSONResponse([_plain(line) for line in lines if choice.wants(line)])
