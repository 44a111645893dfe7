"""One Ray job as the controller sees it: submitted, asked about and stopped, never waited for."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor

from understudy.core.errors import UnderstudyError
from understudy.launch.engines.ray_link import Answer, RayJob, RayLink, UnreachableError

TRIES = 3
"""A job that Ray refuses is submitted so often."""


class Piece:
    """A Ray job: a whole gang, or one replica.

    Calls to Ray are made by threads; `look` takes their results. What a piece knows can be learnt
    again: a new controller submits it once more, which changes nothing if it is there.

    Args:
        name: its submission id.
        ranks: replicas that it runs.
        link: to the cluster.
        pool: threads for calls.
    """

    def __init__(
        self, name: str, ranks: tuple[int, ...], link: RayLink, pool: ThreadPoolExecutor
    ) -> None:
        self.name, self.ranks, self.link, self.pool = name, ranks, link, pool
        self.submitted = False
        self.trouble = ""
        self.tries = 0
        self.final_at: float | None = None
        self.silent_since: float | None = None
        self._submitting: Future[None] | None = None
        self._asking: Future[Answer] | None = None
        self._stopping: Future[None] | None = None
        self._next_at = 0.0

    @property
    def refused(self) -> bool:
        """Whether Ray does not take it."""
        return self.tries >= TRIES

    @property
    def wants(self) -> bool:
        """Whether it is time to submit it."""
        idle = not self.submitted and self._submitting is None and not self.refused
        return idle and time.monotonic() >= self._next_at

    def submit(self, job: RayJob) -> None:
        """Begin to submit it."""
        self._submitting = self.pool.submit(self.link.submit, job)

    def stop(self) -> None:
        """Begin to ask Ray to stop it, if it may be there."""
        if self.final_at is None and self._stopping is None:
            self._stopping = self.pool.submit(self._stop)

    def _stop(self) -> None:
        with contextlib.suppress(UnderstudyError):
            self.link.stop(self.name)

    def look(self, ask_s: float) -> None:
        """Take what threads have brought, and ask Ray again when it is time."""
        now = time.monotonic()
        if self._submitting is not None and self._submitting.done():
            self._take_submission(self._submitting.exception(), now, ask_s)
            self._submitting = None
        if self._asking is not None and self._asking.done():
            self._take_answer(self._asking, now)
            self._asking, self._next_at = None, now + ask_s
        ready = self.submitted and self._asking is None and self.final_at is None
        if ready and now >= self._next_at:
            self._asking = self.pool.submit(self.link.ask, self.name)

    def _take_submission(self, error: BaseException | None, now: float, ask_s: float) -> None:
        self._next_at = now + ask_s
        if error is None:
            self.submitted, self.trouble = True, ""
            return
        self.trouble = str(error)
        if not isinstance(error, UnreachableError):
            self.tries += 1

    def _take_answer(self, asked: Future[Answer], now: float) -> None:
        error = asked.exception()
        if error is not None:
            self.trouble = str(error)
            self.silent_since = self.silent_since or now
            return
        self.silent_since = None
        answer = asked.result()
        if answer.final:
            self.final_at = now
            self.trouble = answer.message
