"""Two agents whose workers die: all meet again, with a store of their own, and know it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract import job, lines, moves

from understudy.launch import worker
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.restarts import incomplete, rounds
from understudy.launch.spec_parts import Elastic, Role
from understudy.launch.states import State

REDUCES = """
import os, signal, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, again = dist.get_rank(), os.environ["UNDERSTUDY_RESUME"]
total = torch.ones(1)
for _ in range(3):
    dist.all_reduce(total)
if again == "0" and os.environ["UNDERSTUDY_REPLICA"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
for _ in range(3):
    dist.all_reduce(total)
print("again", again, "total", int(total), flush=True)
os._exit(0)
"""


@pytest.fixture
def engine(tmp_path):
    found = open_local(str(tmp_path / "home"), LocalSettings(idle_exit_s=1, poll_s=0.1))
    found.set_capacity(2)
    yield found
    for status in found.list():
        found.cancel(status.id, 0.1)
        found.wait(status.id, 30)
    found.close()


def test_a_killed_worker_of_two_agents_is_replaced(engine):
    """The agents count restarts apart: one saw a death, the other a changed membership."""
    spec = job("pair", sys.executable, "-c", REDUCES, roles=(Role(replicas=2),),
               launcher="torchrun", elastic=Elastic(min=2, max=2, max_restarts=5))  # fmt: skip
    found = engine.submit(spec)
    status = engine.wait(found, 180)
    said = lines(engine, found)
    assert (status.state, status.attempt) == (State.SUCCEEDED, 1), said
    # 1 -> 2 -> 4 -> ... -> 64 on both, and both know that they begin again.
    assert [line for line in said if line.startswith("again")] == ["again 1 total 64"] * 2
    kept = moves(engine, found)
    assert "RESTARTING" in kept
    assert kept[-2:] == ["RUNNING", "SUCCEEDED"]


def test_a_round_is_where_workers_meet(tmp_path):
    said = [(0, 0, "h:1"), (0, 1, "h:1"), (1, 0, "h:2"), (0, 1, "h:2"), (1, 1, "h:3")]
    (tmp_path / "restarts.jsonl").write_text(
        "".join(
            json.dumps({"restart": n, "rank": r, "world": 2, "meet": m}) + "\n" for n, r, m in said
        )
    )
    assert rounds(tmp_path) == {0: (2, {0, 1}), 1: (2, {0, 1}), 2: (2, {1})}
    assert incomplete(tmp_path) == 2


def start(folder: Path, meet: str, restart: int) -> str:
    host, _, port = meet.partition(":")
    env = {
        **os.environ, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": host, "MASTER_PORT": port,
        "TORCHELASTIC_RESTART_COUNT": str(restart), "UNDERSTUDY_ATTEMPT_DIR": str(folder),
        "UNDERSTUDY_RESUME": "0",
    }  # fmt: skip
    words = [sys.executable, "-I", worker.__file__, "sh", "-c", "printf $UNDERSTUDY_RESUME"]
    return subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout


def test_a_worker_knows_that_others_met_before(tmp_path):
    assert start(tmp_path, "h:1", 0) == "0"
    assert start(tmp_path, "h:1", 0) == "0"
    assert start(tmp_path, "h:2", 0) == "1"  # its own agent has counted no restart
    (tmp_path / "other").mkdir()
    assert start(tmp_path / "other", "h:1", 1) == "1"
