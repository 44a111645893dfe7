"""A server from start to stop: follows the store, answers, ends well on Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from understudy.update.gallery import ABSENT, Gallery
from understudy.update.search import index_recall
from understudy.update.serve import Service
from understudy.update.serve_http import HttpServer
from understudy.update.serve_token import Token

SWITCH_S = 0.001
"""Seconds that a thread may keep the interpreter while a query waits for it (else 0.005)."""


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on SIGINT and SIGTERM; elsewhere than in the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def run(
    service: Service,
    token: Token,
    ready: Callable[[HttpServer], None],
    stop: threading.Event | None = None,
) -> bool:
    """Serve until a signal (or `stop`) comes.

    Args:
        service: who answers.
        token: what clients must show.
        ready: called once the server listens.
        stop: ends the server when it is set.

    Returns:
        Whether every running request was answered before the end.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    stop = stop or threading.Event()
    server = HttpServer(service, token)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept", daemon=True
    )
    try:
        with _signals(stop):
            service.start()
            thread.start()
            ready(server)
            stop.wait()
            return server.stop()
    finally:
        service.stop()
        sys.setswitchinterval(interval)


def sampled_recall(gallery: Gallery, k: int = 10, num_queries: int = 32) -> float:
    """Return the recall of index search against exact search, with the gallery's rows as queries.

    Args:
        gallery: what is searched; a column of it has an index.
        k: neighbours a query.
        num_queries: rows, evenly spread.
    """
    rows = np.flatnonzero(gallery.states() != ABSENT)
    some = rows[np.linspace(0, len(rows) - 1, min(num_queries, len(rows))).astype(int)]
    queries = gallery.take(some).vectors
    return index_recall(gallery, queries, k, space=gallery.space.searched_from)
