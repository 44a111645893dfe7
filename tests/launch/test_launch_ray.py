"""The Ray engine keeps the contract on a real head, and does what only it does."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

import pytest
from contract import LATER, EngineContract, alive, job, lines, moves, running, script, until
from ray_cluster import MARK, ray_program, start_head

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.core.lazy import installed
from understudy.launch.engines.ray import open_ray
from understudy.launch.engines.ray_link import RayJob
from understudy.launch.engines.ray_settings import RaySettings
from understudy.launch.replica_files import _read
from understudy.launch.spec_parts import Role
from understudy.launch.states import State

pytestmark = [
    pytest.mark.skipif(
        not (installed("ray") and installed("aiohttp") and ray_program().exists()),
        reason='RAY IS NOT INSTALLED, THE RAY ENGINE IS NOT TESTED: pip install "understudy[ray]"',
    ),
    pytest.mark.timeout(300),
    pytest.mark.cluster,
]
SETTINGS = RaySettings(
    grace_s=1, heartbeat_s=0.2, idle_exit_s=60, poll_s=0.1, segment_bytes=2000, segments=100,
    ask_s=0.3, settle_s=0.2, start_deadline_s=60,
)  # fmt: skip
SAVES = """
import signal, sys, time
def save(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3.6)
    print("saved", flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def kill_controller(engine):
    pid = engine.controller_pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not engine.controller_alive(), "the controller is dead")


@pytest.fixture(scope="module")
def head():
    found = start_head()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def engine(head, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in head.environment.items():
            if name != MARK:
                patch.setenv(name, value)
        patch.setenv("RAY_ADDRESS", head.address)
        found = open_ray(str(tmp_path_factory.mktemp("home")), SETTINGS)
        found.reconcile()
        yield found
        kill_controller(found)
        log = found.log.read_text()
        found.close()
        assert "Traceback" not in log, log


class TestRay(EngineContract):
    def crash_controller(self, engine):
        kill_controller(engine)

    # -- what only Ray does

    def test_the_same_submission_twice_runs_once(self, engine, tmp_path):
        # Ray answers HTTP 500; a controller that died after submitting submits again
        words = ("sh", "-c", f"echo x >> {tmp_path}/runs")
        once = RayJob(id=f"twice-{tmp_path.name}-{os.getpid()}", words=words, stop_wait_s=3)
        link = engine.link()
        link.submit(once)
        link.submit(once)
        until(lambda: link.ask(once.id).final, "ended")
        link.submit(once)
        assert link.ask(once.id).state == "SUCCEEDED"
        assert (tmp_path / "runs").read_text() == "x\n"
        assert link.ask("never-heard-of").state == "UNKNOWN"
        link.stop("never-heard-of")

    def test_a_controller_that_dies_after_submitting_submits_nothing_twice(self, engine):
        found = engine.submit(job("once", "echo x >> $UNDERSTUDY_OUT_DIR/runs; sleep 0.5"))
        until(lambda: engine.link().ask(f"{found}-1").state != "UNKNOWN", "Ray has it")
        self.crash_controller(engine)
        engine.reconcile()
        status = engine.wait(found, 30)
        assert (status.state, status.attempt, status.engine_ref) == (
            State.SUCCEEDED, 1, f"{found}-1",
        )  # fmt: skip
        assert (engine.folder(found) / "out" / "runs").read_text() == "x\n"

    def test_ray_s_own_stop_leaves_the_job_its_grace(self, engine):
        # Ray kills after 3 s unless its job says otherwise
        engine.configure(replace(SETTINGS, address=engine.link().address, grace_s=8))
        try:
            found = engine.submit(script("gentle", SAVES))
            until(lambda: "ready" in lines(engine, found), "ready")
            engine.link().stop(f"{found}-1")
            asked = time.time()
            status = engine.wait(found, 30)
        finally:
            engine.configure(replace(SETTINGS, address=engine.link().address))
        assert (status.state, status.exit_code) == (State.FAILED, 5)
        assert lines(engine, found) == ["ready", "saved"]
        assert status.replicas[0].exit["end"] - asked > 3.5
        assert status.replicas[0].exit["stopped_by"] == "TERM"

    def test_a_replica_whose_keeper_is_killed_does_not_go_on(self, engine):
        text = "echo $$; [ $UNDERSTUDY_ATTEMPT = 2 ] || while :; do sleep 0.05; done"
        found = engine.submit(job("kept", text, retry=LATER))
        until(lambda: lines(engine, found), "begun")
        running(engine, found)
        wrapper = engine.status(found).replicas[0].pid
        with open(f"/proc/{wrapper}/stat") as stat:
            keeper = int(stat.read().rpartition(")")[2].split()[1])
        command = int(lines(engine, found)[0])
        os.kill(keeper, signal.SIGKILL)
        assert engine.wait(found, 30).attempt == 2
        assert not alive(wrapper)
        assert not alive(command)
        assert moves(engine, found)[3:6] == ["RUNNING", "LOST", "QUEUED"]

    def test_a_gang_that_gets_no_room_in_time_goes_back_whole(self, engine):
        # somebody else's Ray job holds a core, of which our records know nothing
        link = engine.link()
        other = RayJob(
            id=f"other-{time.time_ns()}", words=("sleep", "60"), needs={"CPU": 1}, stop_wait_s=1
        )
        link.submit(other)
        until(lambda: link.ask(other.id).state == "RUNNING", "the other runs")
        engine.configure(replace(SETTINGS, address=link.address, start_deadline_s=4))
        try:
            text = "echo $UNDERSTUDY_ATTEMPT >> $UNDERSTUDY_OUT_DIR/runs-$UNDERSTUDY_REPLICA"
            found = engine.submit(job("gang", text, roles=(Role(replicas=2),)))
            until(lambda: "LOST" in moves(engine, found), "it did not start in time")
            assert moves(engine, found)[2:5] == ["STARTING", "LOST", "QUEUED"]
            assert not list((engine.folder(found) / "attempt-1").glob("rank-*/start.json"))
            engine.configure(replace(SETTINGS, address=link.address))
            link.stop(other.id)
            status = engine.wait(found, 60)
        finally:
            engine.configure(replace(SETTINGS, address=link.address))
            link.stop(other.id)
        assert status.state is State.SUCCEEDED
        attempts = engine.store.attempts(found)
        assert [a.cause for a in attempts[:1]] == ["start_deadline"]
        # whatever Ray still had of the first attempt ran nothing
        runs = [(engine.folder(found) / "out" / f"runs-{r}").read_text() for r in (0, 1)]
        assert runs == [f"{status.attempt}\n"] * 2

    def test_a_gang_that_loses_one_ends_whole(self, engine):
        text = "echo here; sleep 60"
        found = engine.submit(job("pair", text, roles=(Role(replicas=2),)))
        running(engine, found)
        os.kill(engine.status(found).replicas[1].pid, signal.SIGKILL)
        status = engine.wait(found, 30)
        assert (status.state, status.reason) == (State.FAILED, "rank 1 is gone without a word")
        assert status.replicas[0].exit["stopped_by"] == "TERM"
        assert moves(engine, found)[-2:] == ["LOST", "FAILED"]
        until(lambda: engine.link().ask(f"{found}-1").final, "nothing is left in Ray")

    def test_agents_of_torchrun_meet(self, engine):
        # they do, before any worker starts
        spec = job("meet", "true", launcher="torchrun", roles=(Role(replicas=2),))
        found = engine.submit(replace(spec, command=("sh", "-c", "echo $RANK of $WORLD_SIZE")))
        status = engine.wait(found, 120)
        assert status.state is State.SUCCEEDED, lines(engine, found)
        assert sorted(line for line in lines(engine, found) if " of " in line) == [
            "0 of 2", "1 of 2",
        ]  # fmt: skip
        where = _read(engine.folder(found) / "attempt-1" / "wiring.json")
        assert set(where["hosts"]) == {"0", "1"}
        assert where["host"] == where["hosts"]["0"]

    def test_a_home_has_one_cluster_at_a_time(self, engine):
        found = engine.submit(job("stay", "sleep 60"))
        options = {"ray": {"address": engine.link().address.replace("127.0.0.1", "localhost")}}
        with pytest.raises(ConfigError, match=rf"job {found} is .* on the Ray cluster at"):
            engine.submit(job("elsewhere", "true", engine_options=options))
        engine.cancel(found, 0.1)

    def test_a_cluster_that_wants_a_token(self, engine, monkeypatch):
        import subprocess

        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # read once by each process
        code = (
            "from understudy.launch.engines.ray_link import RayLink\n"
            f"RayLink('{engine.link().address}').cluster()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "wants a token: set RAY_AUTH_MODE=token" in done.stderr.splitlines()[-1]


def test_jobs_die_with_their_cluster(head, tmp_path, monkeypatch):
    # the last test: it ends the head
    for name, value in head.environment.items():
        if name != MARK:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    engine = open_ray(str(tmp_path), replace(SETTINGS, silent_s=1.0))
    found = engine.submit(job("orphan", "echo $$; sleep 60"))
    until(lambda: lines(engine, found), "begun")
    running(engine, found)
    command = int(lines(engine, found)[0])
    os.killpg(head.process.pid, signal.SIGKILL)
    until(lambda: not alive(command), "nothing of it goes on")
    head.stop()
    status = engine.wait(found, 60)
    assert (status.state, status.reason) == (State.FAILED, "rank 0 is gone without a word")
    assert moves(engine, found)[-2:] == ["LOST", "FAILED"]
    refused = r"Ray's job server at .* does not answer .*RAY_ADDRESS"
    with pytest.raises(UnderstudyError, match=refused):
        engine.submit(job("late", "true"))
    kill_controller(engine)
    engine.close()
