"""The engine against a small API server: submit, status, output, cancel, preemption, crashes."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import yaml
from kubernetes_fake import TOKEN, fake_cluster

from understudy.core.errors import ConfigError
from understudy.launch.engines import kubernetes as engine_module
from understudy.launch.engines.kubernetes import LOST, KubernetesEngine
from understudy.launch.home import Home
from understudy.launch.kubernetes_api import KubernetesError
from understudy.launch.kubernetes_config import find_access
from understudy.launch.kubernetes_logs import seconds
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Budget, Rates, Retry, Role
from understudy.launch.state_slots import Capacity, room
from understudy.launch.states import State

PAIR = (Role(replicas=2),)


def spec(**fields):
    return JobSpec(**{"name": "toy", "command": ("train",), "image": "site/toy:1",
                      "key": uuid.uuid4().hex, **fields})  # fmt: skip


def write_config(path: Path, server: str, **user) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "me"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": user or {"token": TOKEN}}],
            }
        )
    )
    return path


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "POLL_S", 0.02)
    with fake_cluster() as (found, address):
        monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path / "config", address)))
        found.address = address
        yield found


@pytest.fixture
def engine(cluster, tmp_path):
    found = KubernetesEngine(Home.open(tmp_path / "home"))
    yield found
    found.close()


def moves(engine, job):
    return [e.facts["to"] for e in engine.store.events(job) if e.kind == "move"]


def test_a_job_goes_through_its_states(engine, cluster):
    job = engine.submit(spec(roles=PAIR, queue="team"))
    assert [key[0] for key in cluster.things] == ["services", "jobs"]
    assert engine.store.job(job).engine_ref == f"Job/default/{job}"
    assert cluster.thing(job)["spec"]["suspend"] is True
    assert engine.status(job).state is State.QUEUED
    cluster.say(job, suspend=False, active=2, ready=0)
    assert engine.status(job).state is State.STARTING
    cluster.say(job, active=2, ready=1)  # a gang runs when all run
    assert engine.status(job).state is State.STARTING
    cluster.say(job, active=2, ready=2)
    assert engine.status(job).state is State.RUNNING
    cluster.say(job, active=1, ready=1, succeeded=1)
    assert engine.status(job).state is State.RUNNING
    cluster.end(job, "Complete")
    status = engine.wait(job, 5)
    assert (status.state, status.exit_code) == (State.SUCCEEDED, 0)
    assert moves(engine, job) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    (attempt,) = engine.store.attempts(job)
    assert attempt.cause == "success"
    cluster.end(job, "Failed")  # final states never change
    assert engine.status(job).state is State.SUCCEEDED


def test_submitting_again_creates_nothing(engine, cluster):
    wanted = spec()
    job = engine.submit(wanted)
    assert engine.submit(wanted) == job
    assert sum(method == "POST" for method, _ in cluster.asked) == 1


@pytest.mark.parametrize(
    ("facts", "state", "reason", "code"),
    [
        ({"reason": "BackoffLimitExceeded", "message": "too often"}, State.FAILED,
         "BackoffLimitExceeded: too often", 3),
        ({"reason": "DeadlineExceeded"}, State.TIMED_OUT, "DeadlineExceeded", None),
    ],
)  # fmt: skip
def test_a_job_that_fails_is_not_tried_again_by_us(engine, cluster, facts, state, reason, code):
    job = engine.submit(spec(retry=Retry(max_failures=5, on=("failure", "timeout"))))
    ended = {"state": {"terminated": {"exitCode": 3}}}
    cluster.pod(job, 0, containerStatuses=[ended])
    cluster.end(job, "Failed", **facts)  # begun and ended between two looks
    status = engine.status(job)
    assert (status.state, status.reason, status.exit_code) == (state, reason, code)
    assert status.attempt == 1


def test_a_queued_job_is_cancelled_and_its_objects_go(engine, cluster):
    job = engine.submit(spec(roles=PAIR, queue="team"))
    assert engine.cancel(job).state is State.CANCELLED
    assert cluster.things == {}
    assert engine.cancel(job).state is State.CANCELLED
    assert moves(engine, job) == ["QUEUED", "CANCELLED"]


def test_a_running_job_is_cancelled_when_its_pods_are_gone(engine, cluster):
    job = engine.submit(spec())
    cluster.say(job, active=1, ready=1)
    assert engine.status(job).state is State.RUNNING
    cluster.lingering = True
    status = engine.cancel(job)
    assert (status.state, status.wish) == (State.RUNNING, "cancel")
    cluster.finish(job)
    assert engine.wait(job, 5).state is State.CANCELLED
    (attempt,) = engine.store.attempts(job)
    assert attempt.cause == "cancel"
    assert attempt.end is not None
    assert all(r.state == "done" for r in engine.store.replicas(job))


def test_a_job_whose_object_somebody_deletes_has_failed(engine, cluster):
    for ready in (False, True):
        job = engine.submit(spec())
        if ready:
            cluster.say(job, active=1, ready=1)
            engine.status(job)
        cluster.finish(job)
        status = engine.status(job)
        assert (status.state, status.reason) == (State.FAILED, LOST)
        assert moves(engine, job)[-2:] == ["LOST", "FAILED"]


def test_preemption_by_the_queue_is_another_attempt(engine, cluster):
    job = engine.submit(spec(queue="team"))
    cluster.say(job, suspend=False, active=1, ready=1)
    assert engine.status(job).state is State.RUNNING
    cluster.say(job, suspend=True)
    status = engine.status(job)
    assert (status.state, status.attempt) == (State.QUEUED, 2)
    assert engine.status(job).attempt == 2  # seen again, it is not counted again
    cluster.say(job, suspend=False, active=1, ready=1)
    assert engine.status(job).state is State.RUNNING
    cluster.end(job, "Complete")
    assert engine.wait(job, 5).state is State.SUCCEEDED
    assert [a.cause for a in engine.store.attempts(job)] == ["preemption", "success"]


def test_a_job_that_must_not_be_preempted_ends_and_its_object_goes(engine, cluster):
    job = engine.submit(spec(queue="team", retry=Retry(on=("failure",))))
    cluster.say(job, suspend=False, active=1, ready=1)
    engine.status(job)
    cluster.say(job, suspend=True)
    assert engine.status(job).state is State.CANCELLED
    assert cluster.things == {}


def test_a_trainjob_and_its_pods(engine, cluster):
    options = {"kubernetes": {"kind": "trainjob", "namespace": "lab"}}
    job = engine.submit(spec(roles=PAIR, launcher="torchrun", engine_options=options))
    assert list(cluster.things) == [("trainjobs", "lab", job)]
    cluster.say(job, "trainjobs", jobsStatus=[{"name": "node", "active": 2, "ready": 2}])
    assert engine.status(job).state is State.RUNNING
    labels = {
        "jobset.sigs.k8s.io/jobset-name": job,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
    }
    for rank in (0, 1):
        pod = cluster.pod(job, rank, labels)
        cluster.pods[pod]["spec"]["containers"] = [{"name": "side"}, {"name": "node"}]
        cluster.logs[pod] = [(f"2026-01-01T00:00:0{rank}.5Z", f"from {rank}")]
    assert [(x.rank, x.text) for x in engine.logs(job)] == [(0, "from 0"), (1, "from 1")]
    cluster.end(job, "Failed", plural="trainjobs", reason="TrainingRuntimeNotSupported")
    assert engine.status(job).reason == "TrainingRuntimeNotSupported"


def test_output_follows_without_loss_or_repetition(engine, cluster):
    job = engine.submit(spec(roles=PAIR))
    cluster.say(job, active=2, ready=2)
    pods = [cluster.pod(job, rank) for rank in (0, 1)]

    def write(n, stamp):
        for rank, pod in enumerate(pods):
            cluster.logs[pod].append((stamp, f"{rank} line {n} with  spaces"))

    stamps = ["00.1", "00.1", "00.1", "00.100000001", "00.25", "01", "01", "01.000000002", "07.9"]
    seen, n = [], 0
    write(0, f"2026-01-01T00:00:{stamps[0]}Z")
    for line in engine.logs(job, follow=True):
        seen.append(line)
        if len(seen) % 2 == 0:  # both have been read: go on writing
            n += 1
            if n < len(stamps):
                write(n, f"2026-01-01T00:00:{stamps[n]}Z")
            else:
                cluster.end(job, "Complete")
    for rank in (0, 1):
        own = [x for x in seen if x.rank == rank]
        assert [x.text for x in own] == [
            f"{rank} line {i} with  spaces" for i in range(len(stamps))
        ]
        assert [x.seq for x in own] == list(range(1, len(stamps) + 1))
    again = [x.text for x in engine.logs(job, replica=1)]
    assert again == [x.text for x in seen if x.rank == 1]
    late = engine.logs(job, since=seconds("2026-01-01T00:00:02Z"))
    assert len(list(late)) == 2
    with pytest.raises(ConfigError, match="both streams as one"):
        engine.logs(job, stream="stderr")
    with pytest.raises(ConfigError, match="no replica 2"):
        engine.logs(job, replica=2)


def test_why_a_job_does_not_start_is_told(engine, cluster):
    job = engine.submit(spec())
    cluster.say(job, active=1)
    cluster.pod(
        job,
        0,
        conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: gpu"}],
        containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
    )
    assert engine.status(job).warnings[:2] == (
        "a pod has no node: 0/3 nodes: gpu",
        "a container does not start: ImagePullBackOff",
    )


def test_after_a_crash_reconciling_goes_on(engine, cluster, tmp_path, monkeypatch):
    wanted = spec(roles=PAIR)
    cluster.broken = 503
    with pytest.raises(KubernetesError, match="503 the server is unwell"):
        engine.submit(wanted)
    (record,) = engine.store.jobs()
    assert (record.state, record.engine_ref) == (State.QUEUED, "")
    cluster.broken = 0
    # killed after the objects were made and before that was written down
    for thing in engine_module.kubernetes.manifests(wanted, record.id):
        engine.api.create(thing)
    assert engine.reconcile() == [record.id]
    assert engine.store.job(record.id).engine_ref
    # killed after the wish was recorded and before anything was deleted
    with engine.store.transaction():
        engine.store.set_inside(record.id, wish="cancel", wish_t=0.0, wish_grace_s=1.0)
    assert engine.reconcile() == []
    assert engine.store.job(record.id).state is State.CANCELLED
    assert cluster.things == {}


def test_a_server_that_is_away_is_told_and_changes_nothing(engine, cluster):
    job = engine.submit(spec())
    cluster.say(job, active=1, ready=1)
    engine.status(job)
    cluster.broken = 500
    status = engine.status(job)
    assert status.state is State.RUNNING
    assert "500 the server is unwell" in status.warnings[0]


def test_the_servers_refusal_is_the_message(engine, cluster, monkeypatch):
    thing = {"kind": "Job", "metadata": {"namespace": "default", "name": "x"}}
    with pytest.raises(KubernetesError, match="POST /apis/batch/v1/namespaces/default/jobs: 422"):
        engine.api.create(thing)


def test_its_jobs_take_nothing_from_this_machine(engine, cluster):
    job = engine.submit(spec())
    cluster.say(job, active=1, ready=1)
    engine.status(job)
    capacity = Capacity(amounts={"cpu": 2.0})
    assert room(engine.store, capacity, "local").free == {"cpu": 2.0}
    assert room(engine.store, capacity, "kubernetes").free == {"cpu": 1.0}


def test_a_plan_asks_nobody_and_costs(engine, cluster):
    rates = Rates(cpu=2.0)
    found = engine.plan(spec(timeout_s=1800, budget=Budget(max_cost=9, rate_table=rates)))
    assert (found.cost, found.worst_cost) == (1.0, 2.0)
    assert cluster.asked == []
    with pytest.raises(ConfigError, match="more than budget.max_cost"):
        engine.plan(spec(timeout_s=1800, budget=Budget(max_cost=1, rate_table=rates)))
    with pytest.raises(ConfigError, match="image is empty"):
        engine.submit(spec(image=""))
    assert engine.store.jobs() == []


# -- who asks


def test_a_wrong_token_is_refused(cluster, tmp_path, monkeypatch):
    path = write_config(tmp_path / "other", cluster.address, token="wrong")
    monkeypatch.setenv("KUBECONFIG", str(path))
    engine = KubernetesEngine(Home.open(tmp_path / "home"))
    with pytest.raises(KubernetesError, match="401 Unauthorized"):
        engine.submit(spec())
    engine.close()


def test_tokens_are_not_shown(cluster):
    access = find_access()
    assert access.token == TOKEN
    assert TOKEN not in repr(access)


@pytest.mark.parametrize(
    ("server", "user", "message"),
    [
        ("http://x", {"exec": {"command": "aws"}}, "signs in by exec, which is not read"),
        ("ftp://x", {"token": "t"}, "is 'ftp://x', no address"),
        ("https://x", {"client-certificate-data": "AAAA"}, "read from files"),
    ],
)
def test_configurations_that_are_not_read(tmp_path, monkeypatch, server, user, message):
    monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path / "config", server, **user)))
    with pytest.raises(ConfigError, match=message):
        find_access()


def test_no_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        find_access()
    path = write_config(tmp_path / "config", "http://127.0.0.1:9", token="t")
    monkeypatch.setenv("KUBECONFIG", str(path))
    engine = KubernetesEngine(Home.open(tmp_path / "home"))
    with pytest.raises(KubernetesError, match=r"127\.0\.0\.1:9 cannot be reached"):
        engine.submit(spec())
    engine.close()
