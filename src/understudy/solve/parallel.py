"""Ranges of work in threads, for compiled functions that release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

LEAST = 64
"""Fewer items than this are not worth a second thread."""


@lru_cache(maxsize=4)
def pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that is kept for the life of the process."""
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="understudy-solve")


def ranges(
    function: Callable[..., Any], count: int, work: np.ndarray | None, threads: int, *args: Any
) -> None:
    """Call `function(lo, hi, *args)` on ranges that cover `count` items.

    Args:
        function: compiled, without the interpreter's lock.
        count: items.
        work: [count], relative cost of each item; None means equal.
        threads: at most so many at once.
        *args: passed on.
    """
    if count == 0:
        return
    if threads < 2 or count < LEAST:
        function(0, count, *args)
        return
    parts = 2 * threads
    if work is None:
        cuts = np.linspace(0, count, parts + 1).astype(np.int64)
    else:
        total = np.cumsum(work, dtype=np.float64)
        cuts = np.searchsorted(total, np.linspace(0, total[-1], parts + 1))
        cuts[0], cuts[-1] = 0, count
    spans = [(int(a), int(b)) for a, b in pairwise(cuts) if b > a]
    for job in [pool(threads).submit(function, lo, hi, *args) for lo, hi in spans]:
        job.result()
