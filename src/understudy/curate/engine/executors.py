"""Who runs tasks: this process, spawned processes, or a Ray cluster (`ray_executor`)."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self

from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.curate.engine.tasks import Task, run_task


class Executor(ABC):
    """Runs tasks; used as a context, it keeps its workers from one call to the next."""

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Run the tasks and yield the key of each one as it ends; raise at the first failure."""

    @abstractmethod
    def close(self) -> None:
        """Let the workers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def executor(on: str = "local", workers: int = 0) -> Executor:
    """Return the executor of a name.

    Args:
        on: `"local"`, `"ray"` or `"ray://host:port"`.
        workers: processes for `"local"`, tasks at a time for Ray; 0 for as many as there are cores.

    Raises:
        ConfigError: no such executor, or fewer than 0 workers.
    """
    if workers < 0:
        raise ConfigError(f"workers: expected 0 (one a core) or more, got {workers}.")
    if on == "local":
        number = workers or cores()
        return Here() if number == 1 else Processes(number)
    if on == "ray" or on.startswith("ray://"):
        from understudy.curate.engine.ray_executor import RayExecutor

        return RayExecutor(None if on == "ray" else on, workers)
    raise ConfigError(f"on: expected local, ray or ray://host:port, got '{on}'.")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def failed(key: str, error: BaseException) -> DataError:
    """Return the error for a task whose function broke."""
    return DataError(f"{key}: failed ({type(error).__name__}: {error}).")


class Here(Executor):
    """One task after the other in this process."""

    def run(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Run the tasks."""
        for task in tasks:
            try:
                run_task(task)
            except UnderstudyError:
                raise
            except Exception as error:
                raise failed(task.key, error) from error
            yield task.key

    def close(self) -> None:
        """Do nothing."""


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _prepare_worker() -> None:
    # one thread a process: pools of threads on shared cores wait for each other
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # a parent that is killed cannot tell its workers: they would write on, or wait for ever
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_leave_with_parent, daemon=True).start()


class Processes(Executor):
    """Spawned processes; never forked ones: Lance crashes in forked children.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare_worker,
            )
        return self._pool

    def run(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Run the tasks; workers start as they are needed."""
        pool = self._open()
        running: dict[Future[Any], Task] = {}
        try:
            running = {pool.submit(run_task, task): task for task in tasks}
            while running:
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    task = running.pop(future)
                    _result(future, task)
                    yield task.key
        except BaseException as error:
            if not isinstance(error, Exception | GeneratorExit):
                self._end_now(pool)  # stopped by the user: not after the tasks at work
            self.close()
            raise

    @staticmethod
    def _end_now(pool: ProcessPoolExecutor) -> None:
        for process in list((pool._processes or {}).values()):
            process.terminate()

    def close(self) -> None:
        """End the workers when they have finished what they are at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _result(future: Future[Any], task: Task) -> None:
    try:
        future.result()
    except UnderstudyError:
        raise
    except BrokenProcessPool as error:
        raise DataError(
            f"{task.key}: a worker process died while it, or a task beside it, was at work, most "
            "likely for lack of memory; use fewer --workers and run the same command again to go "
            "on."
        ) from error
    except Exception as error:
        raise failed(task.key, error) from error
