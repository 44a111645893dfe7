"""What an object's status means for a job, and which pods are its replicas.

References:
    Kubernetes API reference, batch/v1 JobStatus: conditions Complete and Failed with reason
    DeadlineExceeded; active, ready. Kubeflow Trainer, TrainJobStatus: conditions, jobsStatus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from understudy.launch.kubernetes_api import JOB, Thing
from understudy.launch.kubernetes_pods import CONTAINER

INDEX = "batch.kubernetes.io/job-completion-index"
Phase = Literal["absent", "ending", "waiting", "starting", "running", "success", "failure",
                "timeout"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster says of a job.

    Attributes:
        phase: where it is.
        reason: in words.
    """

    phase: Phase
    reason: str = ""


def _condition(conditions: Any, kind: str) -> Thing | None:
    """Return the condition of a kind that holds."""
    for condition in conditions or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            return condition
    return None


def seen(thing: Thing | None, replicas: int, gang: bool) -> Seen:
    """Return what an object says.

    Args:
        thing: the Job or TrainJob; None: there is none.
        replicas: of the job.
        gang: whether it runs when all replicas do, or when one does.
    """
    if thing is None:
        return Seen("absent")
    status = thing.get("status") or {}
    conditions = status.get("conditions")
    if _condition(conditions, "Complete"):
        return Seen("success")
    failed = _condition(conditions, "Failed")
    if failed is not None:
        reason = failed.get("reason") or "failed"
        phase: Phase = "timeout" if reason == "DeadlineExceeded" else "failure"
        return Seen(phase, f"{reason}: {failed['message']}" if failed.get("message") else reason)
    if thing["metadata"].get("deletionTimestamp"):
        return Seen("ending")
    if thing["spec"].get("suspend"):
        return Seen("waiting", "suspended by its queue")
    parts = [status] if thing["kind"] == JOB else status.get("jobsStatus") or []
    active = sum(part.get("active") or 0 for part in parts)
    ready = sum(part.get("ready") or 0 for part in parts)
    done = sum(part.get("succeeded") or 0 for part in parts)
    if ready + done >= (replicas if gang else 1):
        return Seen("running")
    return Seen("starting" if active else "waiting")


def selector(thing_kind: str, name: str) -> str:
    """Return the labels of a job's pods."""
    if thing_kind == JOB:
        return f"batch.kubernetes.io/job-name={name}"
    # the runtimes of Kubeflow Trainer call the replicated job of the trainer so
    return f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name=node"


def rank_of(pod: Thing) -> int:
    """Return the rank of a pod."""
    metadata = pod["metadata"]
    for facts in (metadata.get("labels") or {}, metadata.get("annotations") or {}):
        if str(facts.get(INDEX, "")).isdigit():
            return int(facts[INDEX])
    return 0


def container_of(pod: Thing) -> str:
    """Return the name of the container that runs the command."""
    names = [c["name"] for c in pod["spec"]["containers"]]
    return next((name for name in (CONTAINER, "node") if name in names), names[0])


def exit_code(pods: list[Thing]) -> int | None:
    """Return the exit code of the lowest rank that failed, of its newest pod."""
    for pod in sorted(pods, key=lambda p: (rank_of(p), p["metadata"].get("creationTimestamp", ""))):
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            code = ((status.get("state") or {}).get("terminated") or {}).get("exitCode")
            if code:
                return int(code)
    return None


def hindrances(pods: list[Thing]) -> list[str]:
    """Return why pods do not start, a sentence for each reason."""
    found: dict[str, None] = {}
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                found[f"a pod has no node: {condition.get('message') or 'unschedulable'}"] = None
        for part in status.get("containerStatuses") or ():
            waiting = (part.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                told = waiting.get("message") or ""
                found[f"a container does not start: {waiting['reason']} {told}".strip()] = None
    return list(found)
