"""The keeper of a replica on a Ray node, without Ray: signals, ends, accelerators."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from contract import alive, until

from understudy.core.files import write_json
from understudy.launch.engines import ray_gang, ray_node
from understudy.launch.engines.ray_node import tell
from understudy.launch.replica_files import PLAN, ReplicaFiles


def plan(folder, *words, **env):
    folder.mkdir(parents=True)
    marks = {"UNDERSTUDY_JOB_ID": folder.name, "UNDERSTUDY_ATTEMPT": "1", "UNDERSTUDY_REPLICA": "0"}
    write_json(
        folder / PLAN,
        {
            "job": folder.name, "attempt": 1, "rank": 0, "role": "main", "command": words,
            "cwd": str(folder), "env": {"PATH": os.environ["PATH"], **marks, **env}, "secrets": [],
            "secrets_folder": str(folder), "python": None, "gpus": [], "grace_s": 5,
            "heartbeat_s": 0.1, "segment_bytes": 10000, "segments": 4, "wake": "", "tee": False,
        },
    )  # fmt: skip
    return folder


def keeper(folder, *more, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "understudy.launch.engines.ray_node", str(folder), *more],
        env={**os.environ, **env},
    )


def output(folder):
    text = "".join(p.read_text() for p in sorted(folder.glob("log-*.txt")))
    return [line.split(" ", 3)[-1] for line in text.splitlines()]


def test_a_keeper_hands_signals_on_in_their_order(tmp_path):
    text = (
        "trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; "
        "while :; do sleep 0.02; done"
    )
    folder = plan(tmp_path / "j1", "sh", "-c", text)
    tell(folder, signal.SIGUSR1)  # before it begins: it waits
    process = keeper(folder)
    until(lambda: any("usr1" in line for line in output(folder)), "usr1")
    tell(folder, signal.SIGTERM)
    tell(folder, signal.SIGTERM)
    assert process.wait(20) == 9
    assert ReplicaFiles(folder).exit()["stopped_by"] == "TERM"
    assert sum("term" in line for line in output(folder)) == 1


def test_what_ray_sends_is_handed_on(tmp_path):
    text = "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    folder = plan(tmp_path / "j2", "sh", "-c", text)
    process = keeper(folder)
    until(lambda: any("ready" in line for line in output(folder)), "ready")
    process.terminate()
    assert process.wait(20) == 9


def test_a_wrapper_that_is_stuck_is_killed_and_what_it_left_is_swept(tmp_path):
    text = "trap '' TERM; setsid sleep 71 & echo $!; while :; do sleep 0.02; done"
    folder = plan(tmp_path / "j3", "sh", "-c", text)
    process = keeper(folder)
    until(lambda: output(folder), "begun")
    left = int(output(folder)[0].split()[-1])
    os.kill(ReplicaFiles(folder).start()["pid"], signal.SIGSTOP)
    tell(folder, signal.SIGKILL)
    assert process.wait(20) == 137
    assert ReplicaFiles(folder).exit() is None
    until(lambda: not alive(left), "swept")


def test_a_keeper_ends_with_its_parent(tmp_path):
    folder = plan(tmp_path / "j4", "sleep", "72")
    code = (
        "import subprocess, sys, os, time\n"
        "subprocess.Popen([sys.executable, '-m', 'understudy.launch.engines.ray_node', "
        f"{str(folder)!r}, '--parent', str(os.getpid())])\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = until(lambda: (ReplicaFiles(folder).start() or {}).get("child"), "begun")
    parent.kill()
    parent.wait()
    until(lambda: not alive(child), "ended")
    # one whose parent is gone already does not begin
    other = plan(tmp_path / "j5", "sleep", "73")
    assert keeper(other, "--parent", "1").wait(20) == 1
    assert not ReplicaFiles(other).begun()


def test_accelerators_are_those_that_ray_gives(tmp_path):
    for name, words, seen in (("g1", ["--gpus"], "3,5"), ("g2", [], "")):
        folder = plan(
            tmp_path / name, "sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]", CUDA_VISIBLE_DEVICES=""
        )
        assert keeper(folder, *words, CUDA_VISIBLE_DEVICES="3,5").wait(20) == 0
        assert any(f"[{seen}]" in line for line in output(folder))


def test_a_home_that_a_node_does_not_see(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_node, "SHARED_S", 0.1)
    assert ray_node.main([str(tmp_path / "elsewhere")]) == ray_node.NOT_SHARED
    told = capsys.readouterr().out
    assert "elsewhere': the home of jobs must lie on a path that all nodes share" in told
    with pytest.raises(FileNotFoundError, match="the home of jobs must lie on a path"):
        ray_gang._keep(["true"], str(tmp_path / "elsewhere"), "plan", "never", 0.1)
    # what was given up while it waited for its plan does not start
    assert ray_gang._keep(["false"], str(tmp_path), str(tmp_path / "p"), str(tmp_path), 0.1) == 0


def test_a_replica_that_was_forbidden_does_not_begin(tmp_path):
    folder = plan(tmp_path / "j6", "sh", "-c", "echo no")
    assert ReplicaFiles(folder).forbid()
    begun = time.monotonic()
    assert keeper(folder).wait(20) == 0
    assert time.monotonic() - begun < 15
    assert not ReplicaFiles(folder).begun()
