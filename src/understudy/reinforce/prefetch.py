"""Work ahead in a background thread, so that teachers never wait for decoding."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")
_DEPTH = 3
_POLL_S = 0.2


def prefetch(items: Iterable[T], depth: int = _DEPTH) -> Generator[T, None, None]:
    """Iterate `items` in a thread, at most `depth` ahead (back-pressure), in order.

    An error of `items` is raised here, after what came before it. Leaving the loop early stops the
    thread before the next item.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[str, object]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    thread = threading.Thread(target=work, name="understudy-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


def ordered_map(function: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """Yield `function(item)` in order, over `threads` threads with a bounded look-ahead."""
    if threads <= 1:
        yield from map(function, items)
        return
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[T]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
