"""Ray, started where a stage first needs it and gone when the stage ends."""

from __future__ import annotations

import logging
import os
import signal
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import require

OWNER = "UNDERSTUDY_RAY_OWNER"
"""Environment variable by which processes of a Ray that we started are told from others."""
START_WAIT_S = 120
"""How long Ray's node may take to come up; its own 30 s are too short on a busy machine."""


class RaySession:
    """Ray with Ray Data, opened at the first use, unless the program has started it.

    Args:
        address: `ray://host:port` of a cluster, or None for this machine.
        cpus: cores of a Ray on this machine; 0 leaves it to Ray.
    """

    def __init__(self, address: str | None, cpus: int = 0) -> None:
        self.address, self.cpus = address, cpus
        self._ray: Any = None
        self._context: Any = None
        self._started = False
        self._owner = ""

    def open(self) -> Any:
        """Return the module `ray`, connected and quiet.

        Raises:
            ConfigError: Ray could not be started or reached.
            MissingExtraError: it is not installed.
        """
        if self._ray is not None:
            return self._ray
        os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_WAIT_S))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = require("ray", "ray", "running on Ray")
        require("ray.data", "ray", "running on Ray")
        if not ray.is_initialized():
            self._start(ray)
        self._ray = ray
        return ray

    def stream(self, pipeline: Callable[..., Any], *arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a Ray Data pipeline.

        Through a client (`ray://`) Ray Data does not run: the pipeline is then made and run in the
        cluster, and its rows come all at once.

        Args:
            pipeline: a function of a module; given the module `ray.data` and the arguments, it
                returns a data set.
            *arguments: plain data and what Ray can pickle.
        """
        ray = self.open()
        if not ray.util.client.ray.is_connected():
            yield from pipeline(quiet_data(), *arguments).iter_rows()
            return
        inside = ray.remote(num_cpus=0, max_retries=0)(_inside)
        try:
            rows = ray.get(inside.remote(pipeline, arguments))
        except ray.exceptions.RayError as error:
            text = str(error).strip().splitlines()
            raise DataError(
                f"Ray at {self.address} failed ({text[-1] if text else error!r})."
            ) from error
        yield from rows

    def dashboard(self) -> str:
        """Return the address of the job server of a cluster that was reached by `ray://`.

        Raises:
            ConfigError: the cluster has none.
        """
        self.open()
        found = str(getattr(self._context, "dashboard_url", "") or "")
        host, _, port = found.removeprefix("http://").rpartition(":")
        if not port.isdecimal():
            raise ConfigError(f"on: the Ray cluster at {self.address} has no job server.")
        if host in ("127.0.0.1", "localhost", "0.0.0.0"):  # as its own head calls it
            host = str(self.address).removeprefix("ray://").rpartition(":")[0]
        return f"http://{host}:{port}"

    def _start(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False}
        if self.address is not None:
            options["address"] = self.address
        else:
            options |= {"address": "local", "include_dashboard": False, "logging_level": "warning"}
            if self.cpus:
                options["num_cpus"] = self.cpus
            self._owner = os.environ[OWNER] = uuid.uuid4().hex
        try:
            with warnings.catch_warnings():
                # what Ray forks becomes another program at once, so Lance's warning is idle
                warnings.filterwarnings("ignore", "lance is not fork-safe")
                self._context = ray.init(**options)
        except BaseException as error:
            self._stop(ray)
            if not isinstance(error, Exception):
                raise
            first = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"on: Ray could not be started at {self.address or 'this machine'} "
                f"({type(error).__name__}: {first})."
            ) from error
        self._started = True

    def close(self) -> None:
        """Stop Ray if it was started here."""
        ray, self._ray = self._ray, None
        if ray is not None and self._started:
            self._started = False
            self._stop(ray)

    def _stop(self, ray: Any) -> None:
        try:
            ray.shutdown()
        finally:
            if self._owner:
                os.environ.pop(OWNER, None)
                _end_processes(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def quiet_data() -> Any:
    """Return the module `ray.data` without its bars and its chatter."""
    import ray.data  # pyright: ignore[reportMissingImports]

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data


def _inside(pipeline: Callable[..., Any], arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Run a pipeline where this function runs: on a worker of the cluster."""
    return list(pipeline(quiet_data(), *arguments).iter_rows())


def _end_processes(owner: str) -> None:
    """End what a failed start left: agents that outlive their node, wherever they hang."""
    mark = f"{OWNER}={owner}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid():
                continue
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:  # ended by itself, or someone else's
            continue
