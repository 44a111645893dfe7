"""Talking to a cluster's job server, and nothing else of Ray's in this process."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.core.lazy import require
from understudy.launch.engines.ray_settings import ADDRESS_VARIABLES, Cluster, node_amounts

FINAL = ("STOPPED", "SUCCEEDED", "FAILED")
UNKNOWN = "UNKNOWN"
"""Ray has never heard of a job, or has forgotten it: jobs die with their cluster."""
NODES_MOST = 10_000
NODES_WAIT_S = 15
MESSAGE_MOST = 300
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Ray kills what it stops after 3 s unless this variable of the job says otherwise."""
_lock = threading.Lock()


class UnreachableError(UnderstudyError):
    """The job server does not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayJob:
    """What is submitted.

    Attributes:
        id: its submission id, chosen by us, so that submitting twice submits once.
        words: the entrypoint.
        needs: what Ray reserves for the entrypoint, by Ray's names; memory in bytes.
        labels: of nodes that may run it.
        metadata: for Ray's lists.
        stop_wait_s: from TERM to KILL when Ray itself is asked to stop it.
    """

    id: str
    words: tuple[str, ...]
    needs: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    stop_wait_s: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What Ray says about a job.

    Attributes:
        state: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED`, `FAILED` or `UNKNOWN`.
        message: why.
    """

    state: str
    message: str = ""

    @property
    def final(self) -> bool:
        """Whether Ray does no more about it."""
        return self.state in FINAL or self.state == UNKNOWN


class RayLink:
    """The job server of one cluster. May be used by several threads.

    Args:
        address: `http://host:8265`, or another address that Ray understands.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._made: Any = None

    def submit(self, job: RayJob) -> None:
        """Submit a job; one with its id that is there already is the same job.

        Raises:
            UnreachableError: the server does not answer.
            UnderstudyError: Ray refuses it.
        """
        needs = dict(job.needs)
        memory = needs.pop("memory", None)
        given: dict[str, Any] = {
            "entrypoint_num_cpus": needs.pop("CPU", None),
            "entrypoint_num_gpus": needs.pop("GPU", None),
            "entrypoint_memory": None if memory is None else int(memory),
            "entrypoint_resources": needs or None,
            "entrypoint_label_selector": job.labels or None,
        }
        # the shell that Ray starts becomes the program, so that nothing stands between them
        line = f"exec {shlex.join(job.words)}"
        try:
            with self._trouble():
                self._client().submit_job(
                    entrypoint=line,
                    submission_id=job.id,
                    runtime_env={"env_vars": {STOP_WAIT: str(job.stop_wait_s)}},
                    metadata=job.metadata or None,
                    **{k: v for k, v in given.items() if v is not None},
                )
        except RuntimeError as error:
            # HTTP 500, whatever the reason: ask whether it is there
            if self.ask(job.id).state == UNKNOWN:
                raise UnderstudyError(f"Ray refuses job {job.id}: {_short(error)}") from None

    def ask(self, job_id: str) -> Answer:
        """Return what Ray says about a job.

        Raises:
            UnreachableError: the server does not answer.
        """
        try:
            with self._trouble():
                found = self._client().get_job_info(job_id)
        except RuntimeError as error:
            if "status code 404" in str(error):
                return Answer(UNKNOWN, "Ray does not know the job")
            raise self._silent(error) from None
        return Answer(str(getattr(found.status, "value", found.status)), _short(found.message))

    def stop(self, job_id: str) -> None:
        """Ask Ray to stop a job; one that has ended or is not there stays so.

        Raises:
            UnreachableError: the server does not answer.
        """
        try:
            with self._trouble():
                self._client().stop_job(job_id)
        except RuntimeError:
            return  # it has ended, or Ray does not know it

    def cluster(self) -> Cluster:
        """Return what the nodes that are there have.

        Raises:
            UnreachableError: the server does not answer.
        """
        state = require("ray.util.state", "ray", "engine 'ray'")
        self._client()  # says best what is wrong with an address
        try:
            with self._trouble(), _own_address():
                nodes = state.list_nodes(
                    address=self.address,
                    filters=[("state", "=", "ALIVE")],
                    detail=True,
                    limit=NODES_MOST,
                    timeout=NODES_WAIT_S,
                )
        except UnderstudyError:
            raise
        except Exception as error:  # Ray has many kinds for "does not answer"
            raise self._silent(error) from None
        found = [node_amounts(dict(node.resources_total)) for node in nodes]
        return Cluster(
            nodes=tuple(amounts for amounts, _ in found), gpu_types=tuple(kind for _, kind in found)
        )

    def _client(self) -> Any:
        if self._made is None:
            require("aiohttp", "ray", "the job server of engine 'ray'")
            jobs = require("ray.job_submission", "ray", "engine 'ray'")
            with self._trouble(), _own_address():
                self._made = jobs.JobSubmissionClient(self.address)
        return self._made

    def _silent(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"Ray's job server at {self.address} does not answer ({_short(error)}); start a "
            "cluster, or set engine_options.ray.address or RAY_ADDRESS to its dashboard, such as "
            "http://head:8265."
        )

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """Say in our words what is wrong with the connection."""
        try:
            yield
        except OSError as error:  # requests' errors are OSErrors
            raise self._silent(error) from None
        except Exception as error:
            if type(error).__name__ == "AuthenticationError":
                raise ConfigError(
                    f"Ray at {self.address} wants a token: set RAY_AUTH_MODE=token, and "
                    "RAY_AUTH_TOKEN_PATH to the file that has it."
                ) from None
            raise


@contextmanager
def _own_address() -> Iterator[None]:
    """Hide the variables by which Ray overrides the address that it is given."""
    with _lock:
        hidden = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(hidden)


def _short(what: object) -> str:
    """Return the first words of a message; Ray's have tracebacks and logs in them."""
    lines = [line.strip() for line in str(what or "").splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else "")
    return told[:MESSAGE_MOST]
