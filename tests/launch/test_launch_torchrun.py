"""Jobs of several workers under torchrun: variables, gangs, restarts inside an attempt."""

from __future__ import annotations

import json
import sys

import pytest
from contract import job, lines, moves

from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.home import Home
from understudy.launch.replica_plan import environment, torchrun
from understudy.launch.restarts import incomplete, rounds
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Elastic, Resources, Role
from understudy.launch.state import JobStore
from understudy.launch.states import State

WORKER = """
import os, socket, sys, time
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "UNDERSTUDY_RESUME", "UNDERSTUDY_REPLICA")
print(*(os.environ[k] for k in keys), flush=True)
assert os.environ["MASTER_ADDR"] and int(os.environ["MASTER_PORT"])
restart = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
sys.exit(int(FAILS and restart == 0 and os.environ["RANK"] == "0"))
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    found = open_local(tmp_path_factory.mktemp("home"), LocalSettings(idle_exit_s=1, poll_s=0.1))
    found.set_capacity(2)
    yield found
    found.close()


def test_two_replicas_are_two_ranks(engine):
    spec = job("pair", sys.executable, "-c", WORKER.replace("FAILS", "False"),
               roles=(Role(replicas=2),), launcher="torchrun")  # fmt: skip
    found = engine.submit(spec)
    status = engine.wait(found, 120)
    assert status.state is State.SUCCEEDED, lines(engine, found)
    printed = sorted(line for line in lines(engine, found, stream="stdout"))
    assert printed == ["0 2 0 0 0", "1 2 0 0 1"]
    assert moves(engine, found)[-3:] == ["STARTING", "RUNNING", "SUCCEEDED"]


def test_a_failed_worker_restarts_all_inside_the_attempt(engine):
    spec = job("elastic", sys.executable, "-c", WORKER.replace("FAILS", "True"),
               launcher="torchrun", elastic=Elastic(min=1, max=1, max_restarts=2))  # fmt: skip
    found = engine.submit(spec)
    status = engine.wait(found, 120)
    assert (status.state, status.attempt) == (State.SUCCEEDED, 1), lines(engine, found)
    assert lines(engine, found, stream="stdout") == ["0 1 0 0 0", "0 1 0 1 0"]
    assert moves(engine, found)[-4:] == ["RUNNING", "RESTARTING", "RUNNING", "SUCCEEDED"]
    restart = [e.facts for e in engine.store.events(found) if e.kind == "restart"]
    assert restart == [{"attempt": 1, "n": 1, "world": 1}]


def test_rounds_of_workers_are_counted(tmp_path):
    assert rounds(tmp_path) == {}
    said = [(0, 0, 2), (0, 1, 2), (1, 0, 2)]
    text = "".join(json.dumps({"restart": n, "rank": r, "world": w}) + "\n" for n, r, w in said)
    (tmp_path / "restarts.jsonl").write_text(text)
    assert rounds(tmp_path) == {0: (2, {0, 1}), 1: (2, {0})}
    assert incomplete(tmp_path) == 1
    (tmp_path / "restarts.jsonl").write_text(text + '{"restart": 1, "rank": 1, "world": 2}\n{"res')
    assert incomplete(tmp_path) is None


def test_the_agents_words(tmp_path):
    home = Home.open(tmp_path)
    store = JobStore(home.database)
    spec = JobSpec(
        name="e", command=("x",), launcher="torchrun", 
        elastic=Elastic(min=2, max=4, max_restarts=7),
        roles=(Role(replicas=4, resources=Resources(cpu=8, gpu=2)),), env={"A": "b"},
    )  # fmt: skip
    record, _ = store.submit(spec, engine="local", checkpoints="/c")
    words = torchrun(spec, record, 1, 3, {"host": "h", "port": 5})
    assert {"--nnodes=2:4", "--max-restarts=7", "--nproc-per-node=2", "--rdzv-endpoint=h:5"} <= set(
        words
    )
    env = environment(home, record, 1, 3, (2, 3), resume=True)
    expected = {
        "RANK": "2", "WORLD_SIZE": "6", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "UNDERSTUDY_REPLICA": "1", "UNDERSTUDY_REPLICAS": "3", "UNDERSTUDY_RESUME": "1",
        "UNDERSTUDY_CKPT_DIR": "/c", "CUDA_VISIBLE_DEVICES": "2,3", "OMP_NUM_THREADS": "4",
        "A": "b",
    }  # fmt: skip
    assert env.items() >= expected.items()
    assert environment(home, record, 0, 3, (), False)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment(home, record, 0, 3, None, False)
    assert environment(home, record, 0, 3, None, False)["MASTER_PORT"] == env["MASTER_PORT"]
