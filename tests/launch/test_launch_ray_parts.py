"""Parts of the Ray engine that need no Ray: sizes, options, keepers, and answers of a server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract import job, until
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.launch.engines.ray import RayEngine, check_nodes
from understudy.launch.engines.ray_gang import one_node
from understudy.launch.engines.ray_link import Answer, RayJob, RayLink, UnreachableError
from understudy.launch.engines.ray_piece import Piece
from understudy.launch.engines.ray_settings import (
    DEFAULT_ADDRESS,
    Cluster,
    RaySettings,
    bundle,
    node_amounts,
    options,
)
from understudy.launch.home import Home
from understudy.launch.replica_plan import torchrun
from understudy.launch.spec_parts import Elastic, Resources, Role
from understudy.launch.state import JobStore

# -- what a cluster has


def test_a_node_s_resources_by_our_names():
    found = node_amounts(
        {
            "CPU": 8.0, "GPU": 2.0, "memory": 16e9, "object_store_memory": 4e9,
            "node:10.0.0.1": 1.0, "accelerator_type:A100": 1.0, "licence": 3.0,
        }
    )  # fmt: skip
    assert found == ({"cpu": 8.0, "gpu": 2.0, "mem_mb": 16000.0, "licence": 3.0}, "A100")


def test_needs_by_ray_s_names():
    need = Resources(cpu=0.5, mem_mb=100, gpu=1, gpu_type="A100", custom={"licence": 2})
    assert bundle(need.vector(), "A100") == {
        "CPU": 0.5, "memory": 100e6, "GPU": 1.0, "licence": 2.0, "accelerator_type:A100": 0.001,
    }  # fmt: skip


TWO = Cluster(
    nodes=({"cpu": 4.0, "gpu": 2.0, "mem_mb": 1000.0}, {"cpu": 2.0, "gpu": 0.0}),
    gpu_types=("A100", ""),
)


def test_the_whole_cluster():
    capacity = TWO.capacity()
    assert capacity.amounts == {"cpu": 6.0, "gpu": 2.0, "mem_mb": 1000.0}
    assert capacity.gpu_types == ("A100", "A100")
    assert Cluster().capacity().amounts == {"cpu": 0.0, "gpu": 0.0, "mem_mb": 0.0}


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_how_many_replicas_fit(cores, need):
    """As many as one by one can be taken from the nodes."""
    cluster = Cluster(nodes=tuple({"cpu": float(c)} for c in cores), gpu_types=("",) * len(cores))
    left, count = list(cores), 0
    while any(c >= need for c in left):
        left[next(i for i, c in enumerate(left) if c >= need)] -= need
        count += 1
    assert cluster.fit({"cpu": float(need)}) == count


def test_what_no_node_has_is_refused():
    def check(replicas=1, **resources):
        role = Role(name="trainer", replicas=replicas, resources=Resources(**resources))
        check_nodes(job("x", "true", roles=(role,)), TWO)

    check(cpu=4, gpu=2, gpu_type="A100")
    check(replicas=3, cpu=2)
    refused = r"role 'trainer' asks cpu=5 for a replica; no node .* \(the largest of 2: cpu=4\)"
    with pytest.raises(ConfigError, match=refused):
        check(cpu=5)
    with pytest.raises(ConfigError, match=r"no node of engine 'ray' has all of it"):
        check(cpu=1, gpu=1, gpu_type="H100")
    # six cores, but not in threes
    with pytest.raises(ConfigError, match=r"gang of 2 replicas of cpu=3; the nodes .* hold 1 at"):
        check(replicas=2, cpu=3)


def test_one_node_or_several():
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0}]
    assert one_node([{"CPU": 4.0}] * 2, nodes)
    assert not one_node([{"CPU": 4.0}] * 3, nodes)
    assert not one_node([{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}], nodes)


# -- options, addresses, settings


def test_options_of_a_spec():
    spec = job("x", "true", engine_options={"ray": {"strategy": "SPREAD"}, "slurm": {"qos": "a"}})
    assert options(spec).strategy == "SPREAD"
    wrong = job("x", "true", engine_options={"ray": {"adress": "http://h:8265"}})
    with pytest.raises(ConfigError, match=r"engine_options\.ray.*'adress'.*address"):
        options(wrong)
    with pytest.raises(ConfigError, match=r"strategy"):
        options(job("x", "true", engine_options={"ray": {"strategy": "PILE"}}))


def test_where_the_address_comes_from(tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    engine = RayEngine(Home.open(tmp_path))
    assert engine.address() == DEFAULT_ADDRESS
    engine._use("http://kept:8265")
    assert engine.address() == "http://kept:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://variable:8265")
    assert engine.address() == "http://variable:8265"
    spec = job("x", "true", engine_options={"ray": {"address": "http://spec:8265"}})
    assert engine.address(spec) == "http://spec:8265"
    # the controller goes by the home, not by the variables of whoever starts it
    assert "RAY_ADDRESS" not in engine._environment()
    assert engine.link().address == "http://kept:8265"
    engine.close()


def test_nobody_there(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    engine = RayEngine(Home.open(tmp_path))
    refused = r"Ray's job server at http://127.0.0.1:1 does not answer .* RAY_ADDRESS to its dash"
    with pytest.raises(UnderstudyError, match=refused):
        engine.plan(job("x", "true"))
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
    engine.close()


@pytest.mark.parametrize("field", ["ask_s", "settle_s", "silent_s", "drain_s", "poll_s"])
def test_settings_have_a_range(field):
    with pytest.raises(ConfigError, match=rf"settings\.{field}"):
        RaySettings(**{field: -1})


# -- submitting and asking


class FakeClient:
    """Answers as the job server does."""

    def __init__(self):
        self.jobs, self.calls = {}, []

    def submit_job(self, submission_id, **more):
        self.calls.append(more)
        if "bad" in submission_id:
            raise RuntimeError("Request failed with status code 400: no.")
        if submission_id in self.jobs:
            raise RuntimeError("Request failed with status code 500: ... already exists.")
        self.jobs[submission_id] = "PENDING"

    def get_job_info(self, submission_id):
        if submission_id not in self.jobs:
            raise RuntimeError("Request failed with status code 404: does not exist.")
        return type("Info", (), {"status": self.jobs[submission_id], "message": "line\n\nmore"})()

    def stop_job(self, submission_id):
        self.get_job_info(submission_id)
        self.jobs[submission_id] = "STOPPED"


@pytest.fixture
def link():
    found = RayLink("http://fake")
    found._made = FakeClient()
    return found


def ray_job(name, **more):
    return RayJob(id=name, words=("echo", "a b; rm"), stop_wait_s=20, **more)


def test_what_is_submitted(link):
    needs = bundle({"cpu": 0.5, "mem_mb": 100.0, "gpu": 1.0, "licence": 1.0}, "A100")
    link.submit(ray_job("a", needs=needs, labels={"zone": "x"}))
    assert link._made.calls == [
        {
            "entrypoint": "exec echo 'a b; rm'",
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "20"}},
            "metadata": None,
            "entrypoint_num_cpus": 0.5,
            "entrypoint_num_gpus": 1.0,
            "entrypoint_memory": 100_000_000,
            "entrypoint_resources": {"licence": 1.0, "accelerator_type:A100": 0.001},
            "entrypoint_label_selector": {"zone": "x"},
        }
    ]


def test_the_same_id_is_the_same_job(link):
    link.submit(ray_job("a"))
    link.submit(ray_job("a"))
    assert link.ask("a") == Answer("PENDING", "line")
    with pytest.raises(UnderstudyError, match="Ray refuses job bad: .*status code 400"):
        link.submit(ray_job("bad"))
    link.stop("a")
    assert link.ask("a").final
    link.stop("b")
    assert link.ask("b").final  # forgotten
    assert len(link._made.jobs) == 1


def look(piece, done):
    until(lambda: (piece.look(0.01), done(piece))[1], "the piece")


def test_a_piece_is_submitted_once_and_its_end_is_seen(link):
    with ThreadPoolExecutor(2) as pool:
        piece = Piece("a", (0,), link, pool)
        assert piece.wants
        piece.submit(ray_job("a"))
        assert not piece.wants
        look(piece, lambda p: p.submitted)
        assert not piece.wants
        assert piece.final_at is None
        link._made.jobs["a"] = "FAILED"
        look(piece, lambda p: p.final_at is not None)
        assert piece.trouble == "line"


def test_a_piece_that_ray_refuses_is_given_up(link):
    with ThreadPoolExecutor(2) as pool:
        piece = Piece("bad", (0,), link, pool)
        for _ in range(3):
            until(lambda: piece.wants, "tries again")
            piece.submit(ray_job("bad"))
            look(piece, lambda p: p._submitting is None)
        assert piece.refused
        assert not piece.wants
        assert "Ray refuses job bad" in piece.trouble


def test_a_server_that_is_away_is_not_an_end(link):
    def away(*_, **__):
        raise ConnectionError("refused")

    with ThreadPoolExecutor(2) as pool:
        piece = Piece("a", (0,), link, pool)
        piece.submit(ray_job("a"))
        look(piece, lambda p: p.submitted)
        answer, link._made.get_job_info = link._made.get_job_info, away
        with pytest.raises(UnreachableError):
            link.ask("a")
        look(piece, lambda p: p.silent_since is not None)
        assert piece.final_at is None
        link._made.get_job_info = answer
        look(piece, lambda p: p.silent_since is None)
        link._made.jobs.clear()  # another cluster at the same address
        look(piece, lambda p: p.final_at is not None)
        for _ in range(20):
            link._made.submit_job = away
            other = Piece("c", (0,), link, pool)
            other.submit(ray_job("c"))
            look(other, lambda p: p._submitting is None)
        assert not other.refused


def test_agents_on_several_nodes_are_told_who_hosts_the_rendezvous(tmp_path):
    spec = job("e", "true", launcher="torchrun", elastic=Elastic(min=1, max=3, max_restarts=1),
               roles=(Role(replicas=3),))  # fmt: skip
    store = JobStore(Home.open(tmp_path).database)
    record, _ = store.submit(spec, engine="ray")
    meet = {"host": "h1", "port": 5, "hosts": {"0": "h1", "1": "h2", "2": "h1"}}
    for rank, host, hosts_it in ((0, "h1", 1), (1, "h2", 0), (2, "h1", 0)):
        words = torchrun(spec, record, rank, 3, meet)
        assert "--rdzv-endpoint=h1:5" in words
        assert f"--local-addr={host}" in words
        assert any(w.endswith(f",is_host={hosts_it}") for w in words)
    alone = torchrun(spec, record, 1, 3, {"host": "h1", "port": 5})
    assert not any("is_host" in word for word in alone)
    store.close()
