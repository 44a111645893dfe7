"""Batches made ahead of need, by threads or by spawned processes, delivered in order.

A process is never forked: Lance crashes in forked children. Which of the two is faster is measured
by `benchmarks/loader.py`; threads are the default, since reading, decoding and resizing release the
interpreter lock and nothing needs to be copied between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from understudy.core.errors import DataError

if TYPE_CHECKING:
    from understudy.data.loader import Loader, Made

_worker: Loader | None = None


def _ordered(
    submit: Callable[[Any], Future[Any]], tasks: Iterable[Any], limit: int
) -> Iterator[Any]:
    """Yield results in order, with at most `limit` tasks begun and not yet yielded."""
    waiting: deque[Future[Any]] = deque()
    rest = iter(tasks)
    try:
        for task in rest:
            waiting.append(submit(task))
            if len(waiting) >= limit:
                break
        while waiting:
            made = waiting.popleft().result()
            # Begin the next one before handing this one out, so that workers never idle.
            for task in rest:
                waiting.append(submit(task))
                break
            yield made
    finally:
        for future in waiting:
            future.cancel()


def chunks(steps: range, size: int, per_epoch: int | None) -> list[range]:
    """Cut steps into reads of at most `size` batches that lie in one epoch.

    Cuts are counted from the start of an epoch, so that reads match a sampler's windows of blocks
    wherever a run was resumed, and no read needs two views.
    """
    out: list[range] = []
    at = steps.start
    while at < steps.stop:
        place = at % per_epoch if per_epoch else at
        cut = at + size - place % size
        if per_epoch:
            cut = min(cut, at + per_epoch - place)
        out.append(range(at, min(cut, steps.stop)))
        at = out[-1].stop
    return out


def plain_batches(loader: Loader, reads: Sequence[range]) -> Iterator[Made]:
    """Yield batches made when they are asked for; each range of steps is read together."""
    for steps in reads:
        prepared = deque(loader.prepare(steps))
        while prepared:
            yield loader.finish(prepared.popleft())


def thread_batches(
    loader: Loader, reads: Sequence[range], workers: int, ahead: int
) -> Iterator[Made]:
    """Yield batches that threads make ahead; one more thread reads for them.

    Args:
        loader: reads and makes.
        reads: steps that are read together, in order.
        workers: threads.
        ahead: batches that may wait to be asked for. One read more than they need is begun.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="understudy-loader-read")
    makers = ThreadPoolExecutor(workers, thread_name_prefix="understudy-loader")
    begun: dict[int, Future[Any]] = {}

    def prepared(number: int) -> Future[Any]:
        for n in (number, number + 1):
            if n < len(reads) and n not in begun:
                begun[n] = reader.submit(loader.prepare, reads[n])
        begun.pop(number - 1, None)
        return begun[number]

    def make(read: Future[Any], place: int) -> Made:
        found = read.result()
        one, found[place] = found[place], None
        return loader.finish(one)

    def submit(task: tuple[int, int]) -> Future[Any]:
        number, place = task
        return makers.submit(make, prepared(number), place)

    tasks = ((n, place) for n, steps in enumerate(reads) for place in range(len(steps)))
    try:
        yield from _ordered(submit, tasks, ahead)
    finally:
        for read in begun.values():
            read.cancel()
        makers.shutdown(wait=True, cancel_futures=True)
        reader.shutdown(wait=True, cancel_futures=True)


def process_batches(loader: Loader, reads: Sequence[range], workers: int) -> Iterator[Made]:
    """Yield batches that spawned processes make ahead.

    Args:
        loader: sent to every worker once.
        reads: steps that are read together, in order; a worker sends their batches together.
        workers: processes; each has one read begun or waiting.

    Raises:
        DataError: a worker was killed, or the loader does not pickle.
    """
    import multiprocessing
    import pickle

    try:
        data = pickle.dumps(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"the loader cannot be sent to worker processes ({error}): use fields that pickle (a "
            "tokenizer object, no lambda), or mode='threads'."
        ) from None
    pool = ProcessPoolExecutor(
        min(workers, len(reads)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(data,),
    )
    try:
        for made in _ordered(lambda steps: pool.submit(_make, steps), reads, workers):
            for one in made:
                if isinstance(one, Exception):
                    raise one
                yield one
    except BrokenProcessPool:
        raise DataError(
            "a loader worker ended without an answer (killed, or out of memory): lower workers or "
            "the batch size, or use mode='threads'; scripts need an `if __name__ == '__main__'` "
            "guard to start processes."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(data: bytes) -> None:
    import pickle

    global _worker
    _worker = pickle.loads(data)


def _make(steps: Sequence[int]) -> list[Made | Exception]:
    """Return the batches of some steps, up to one that fails and its error."""
    assert _worker is not None
    out: list[Made | Exception] = []
    try:
        for prepared in _worker.prepare(steps):
            out.append(_worker.finish(prepared))
    except Exception as error:  # sent to the consumer, which raises it in its place
        out.append(error)
    return out
