"""Jobs as objects of a Kubernetes cluster, through its API server.

There is no controller: the cluster retries and queues, and whoever asks for a status, waits or
reconciles takes over what the cluster says. The record moves by the same table as everywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from understudy.core.errors import ConfigError
from understudy.launch import kubernetes, preflight
from understudy.launch.code import Code
from understudy.launch.conclude import conclude
from understudy.launch.cost import estimate, worst_case
from understudy.launch.engines.base import GRACE_S, Engine
from understudy.launch.engines.status import Plan, Status
from understudy.launch.home import Home
from understudy.launch.kubernetes_api import JOB, SERVICE, TRAINJOB, Api, KubernetesError
from understudy.launch.kubernetes_config import find_access
from understudy.launch.kubernetes_logs import PodLogs
from understudy.launch.kubernetes_options import options_of
from understudy.launch.kubernetes_seen import Seen, exit_code, hindrances, seen, selector
from understudy.launch.outcome import Outcome
from understudy.launch.replica_logs import LogLine
from understudy.launch.replica_plan import command
from understudy.launch.spec import JobSpec
from understudy.launch.state_rows import Job
from understudy.launch.state_slots import Capacity, begin_inside, release_inside
from understudy.launch.states import FINAL, State

POLL_S = 1.0
LOST = "its object is gone: somebody has deleted it"


class KubernetesEngine(Engine):
    """Runs jobs on the cluster of the kubeconfig.

    Args:
        home: the folder of all jobs.
        api: the API server; found by the kubeconfig when it is first needed.
    """

    name = "kubernetes"

    def __init__(self, home: Home, api: Api | None = None) -> None:
        super().__init__(home)
        self._api = api

    @property
    def api(self) -> Api:
        """The API server.

        Raises:
            ConfigError: nobody says where it is.
        """
        if self._api is None:
            self._api = Api(find_access())
        return self._api

    def capabilities(self) -> frozenset[str]:
        """Return what it can do; gangs and preemption are Kueue's."""
        return frozenset(
            {"gang", "preempt", "gpu", "requeue", "queue", "options", "image", "launcher:torchrun"}
        )

    def capacity(self) -> Capacity:
        """Return nothing: a cluster grows, and who may look at nodes is the site's to say."""
        return Capacity(amounts={})

    def _plan(self, spec: JobSpec) -> tuple[Plan, Code | None, dict[str, str]]:
        kubernetes.manifests(spec, spec.name)  # says what cannot be said there
        preflight.check_budget(spec)
        budget = spec.budget
        plan = Plan(
            engine=self.name,
            spec_hash=spec.digest(),
            commands=tuple(tuple(command(spec, r)) for r in range(spec.replicas)),
            resources=tuple(r.resources.vector() for r in spec.ranks()),
            gang=spec.is_gang,
            code_files=0,
            code_bytes=0,
            cost=budget and estimate(spec, spec.timeout_s or 0.0, budget.rate_table),
            worst_cost=budget and worst_case(spec),
            warnings=(*spec.warnings(), *kubernetes.warnings(spec)),
        )
        return plan, None, {}

    # -- objects

    def _place(self, job: Job) -> tuple[str, str, str]:
        """Return kind, namespace and name of a job's object."""
        options = options_of(job.spec)
        kind = JOB if options.kind == "job" else TRAINJOB
        return kind, options.namespace, kubernetes.object_name(job.id)

    def dispatch(self, job: Job) -> None:
        """Create a job's objects unless that was done; take over what the cluster says."""
        job = self.store.job(job.id)  # `prepare` has queued it
        if job.final or job.state is State.CREATED:
            return
        if not job.engine_ref and not job.wish:
            for thing in kubernetes.manifests(job.spec, job.id):
                self.api.create(thing)
            with self.store.transaction():
                self.store.set_inside(job.id, engine_ref="/".join(self._place(job)))
        self.sync(job.id)

    def _stop(self, job: Job, grace_s: float) -> None:
        """Delete a job's objects; its pods have the grace of their template."""
        del grace_s
        kind, namespace, name = self._place(job)
        self.api.delete(kind, namespace, name)
        if kind == JOB and job.spec.replicas > 1:
            self.api.delete(SERVICE, namespace, name)

    def cancel(self, job_id: str, grace_s: float = GRACE_S) -> Status:
        """Stop a job; one that has ended stays as it is. What grace pods have, their spec says."""
        now = time.time()
        with self.store.transaction():
            job = self.store.job(job_id)
            if not job.final and job.wish != "cancel":
                self.store.set_inside(job.id, wish="cancel", wish_t=now, wish_grace_s=grace_s)
                self.store.add_event(job.id, "cancel", now, {"grace_s": grace_s})
        if not job.final:
            self._stop(job, grace_s)
        return self.status(job_id)

    def reconcile(self) -> list[str]:
        """Take over what the cluster says of every job; go on with what was begun."""
        active = [job for job in self.store.jobs(engine=self.name) if job.state not in FINAL]
        for job in active:
            if job.state is State.CREATED:
                self.prepare(job)
            if job.wish == "cancel":
                self._stop(job, GRACE_S)
            self.dispatch(self.store.job(job.id))
        return [job.id for job in active if self.store.job(job.id).state not in FINAL]

    # -- what the cluster says

    def sync(self, job_id: str) -> Job:
        """Take over what the cluster says of a job, and return its record.

        Raises:
            KubernetesError: the API server cannot be asked.
        """
        job = self.store.job(job_id)
        if job.final or (not job.engine_ref and job.wish != "cancel"):
            return job
        kind, namespace, name = self._place(job)
        found = seen(self.api.read(kind, namespace, name), job.spec.replicas, job.spec.is_gang)
        code = None
        if found.phase == "failure":
            code = exit_code(self.api.pods(namespace, selector(kind, name)))
        self._follow(job, found, code)
        now = self.store.job(job_id)
        if now.final and found.phase in ("waiting", "starting", "running"):
            self._stop(now, GRACE_S)  # preempted, and not to be tried again
        return now

    def _follow(self, job: Job, found: Seen, code: int | None) -> None:
        phase = found.phase
        if phase == "absent":
            self._gone(job)
        elif phase == "waiting":
            if self._begun(job):
                conclude(self.store, self.home, job, Outcome("preemption", found.reason))
        elif phase != "ending":
            self._begin(job)
            if phase in ("success", "failure", "timeout"):
                outcome = Outcome(phase, found.reason, 0 if phase == "success" else code)
                # the cluster has tried again as often as it may
                conclude(self.store, self.home, _once(self.store.job(job.id)), outcome)
            elif phase == "running":
                with self.store.transaction():
                    if self.store.job(job.id).state is State.STARTING:
                        self.store.move_inside(job.id, State.RUNNING)

    def _begun(self, job: Job) -> bool:
        return any(attempt.n == job.attempt for attempt in self.store.attempts(job.id))

    def _begin(self, job: Job) -> None:
        with self.store.transaction():
            now = self.store.job(job.id)
            if now.state is State.QUEUED and not self._begun(now):
                chosen: dict[int, tuple[int, ...]] = {r: () for r in range(now.spec.replicas)}
                begin_inside(self.store, now, chosen, time.time(), now.engine_ref)

    def _gone(self, job: Job) -> None:
        """End a job without an object: cancelled if that was wished, else lost."""
        now = time.time()
        with self.store.transaction() as db:
            job = self.store.job(job.id)
            if job.final:
                return
            cancelled = job.wish == "cancel"
            reason = "cancelled" if cancelled else LOST
            release_inside(self.store, job.id, job.attempt, now)
            db.execute(
                'UPDATE attempts SET "end"=?, reason=?, cause=? WHERE job=? AND n=? AND "end" IS '
                "NULL",
                (now, reason, "cancel" if cancelled else "node_loss", job.id, job.attempt),
            )
            if cancelled:
                self.store.move_inside(job.id, State.CANCELLED, now=now, reason=reason)
            else:
                self.store.move_inside(job.id, State.LOST, now=now, reason=reason)
                self.store.move_inside(job.id, State.FAILED, now=now, reason=reason)

    def status(self, job_id: str) -> Status:
        """Return where a job is, after taking over what the cluster says."""
        told: tuple[str, ...] = ()
        try:
            job = self.sync(job_id)
            if job.state is State.STARTING:
                kind, namespace, name = self._place(job)
                told = tuple(hindrances(self.api.pods(namespace, selector(kind, name))))
        except KubernetesError as error:
            told = (str(error),)
        status = super().status(job_id)
        return replace(status, warnings=(*told, *status.warnings))

    def logs(
        self,
        job_id: str,
        replica: int | None = None,
        follow: bool = False,
        since: float | None = None,
        stream: Literal["both", "stdout", "stderr"] = "both",
    ) -> Iterator[LogLine]:
        """Yield a job's output, while its pods are there; see `Engine.logs`.

        Raises:
            ConfigError: only one stream is asked for, or there is no such replica.
        """
        job = self.store.job(job_id)
        if stream != "both":
            raise ConfigError(
                f"engine 'kubernetes' gives both streams as one; leave out stream '{stream}'."
            )
        if replica is not None and not 0 <= replica < job.spec.replicas:
            raise ConfigError(
                f"job {job.id} has no replica {replica}; its replicas are 0 to "
                f"{job.spec.replicas - 1}."
            )
        return self._lines(job, replica, follow, since)

    def _lines(
        self, job: Job, replica: int | None, follow: bool, since: float | None
    ) -> Iterator[LogLine]:
        kind, namespace, name = self._place(job)
        reader = PodLogs(self.api, namespace, selector(kind, name), job.attempt)
        while True:
            # Asked before reading: what a job that has ended wrote is there.
            ended = self.sync(job.id).final
            for line in reader.read(replica):
                if since is None or line.t >= since:
                    yield line
            if ended or not follow:
                return
            time.sleep(POLL_S)


def _once(job: Job) -> Job:
    """Return a record whose job is not tried again."""
    plain: dict[str, Any] = json.loads(job.spec_json)
    plain["retry"] = {**plain["retry"], "max_failures": 0}
    return replace(job, spec_json=json.dumps(plain))
