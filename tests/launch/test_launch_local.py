"""The local engine keeps the contract, and does what only it does."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from contract import EngineContract, job, lines, moves, running, until

from understudy.core.errors import ConfigError
from understudy.launch.engines import ENGINES, open_engine
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.spec_parts import Budget, Checkpoint, Rates, Resources, Retry, Role
from understudy.launch.states import State

SETTINGS = LocalSettings(
    grace_s=1, heartbeat_s=0.2, idle_exit_s=60, poll_s=0.1, segment_bytes=2000, segments=100
)


def kill_controller(engine):
    pid = engine.controller_pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not engine.controller_alive(), "the controller is dead")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    found = open_local(str(tmp_path_factory.mktemp("home")), SETTINGS)
    found.set_capacity(2)
    found.reconcile()
    yield found
    kill_controller(found)
    log = (found.home.root / "controller.log").read_text()
    found.close()
    assert "Traceback" not in log, log


class TestLocal(EngineContract):
    def crash_controller(self, engine):
        kill_controller(engine)

    def test_it_starts_within_a_second(self, engine):
        found = engine.submit(job("quick", "true"))
        status = engine.wait(found)
        # also on a busy machine: the best of three
        took = [status.started - status.created]
        for _ in range(2):
            status = engine.wait(engine.submit(job("quick", "true")))
            took.append(status.started - status.created)
        assert min(took) < 1.0

    def test_python_finds_the_submitters_environment(self, engine):
        found = engine.submit(job("which", "python", "-c", "import sys; print(sys.executable)"))
        engine.wait(found)
        assert Path(lines(engine, found)[0]).parent == Path(sys.executable).parent

    def test_a_secret_reaches_the_job_and_no_log(self, engine):
        engine.home.secrets.mkdir(exist_ok=True)
        path = engine.home.secrets / "HF_TOKEN"
        path.write_text("hunter2\n")
        spec = job("quiet", 'echo "token=$HF_TOKEN"; printf %s "$HF_TOKEN" | wc -c',
                   secrets=("HF_TOKEN",))  # fmt: skip
        path.chmod(0o644)
        with pytest.raises(ConfigError, match=r"secret 'HF_TOKEN': .* open to others; chmod 600"):
            engine.submit(spec)
        path.chmod(0o600)
        found = engine.submit(spec)
        engine.wait(found)
        assert lines(engine, found) == ["token=***", "7"]
        files = [p for p in engine.folder(found).rglob("*") if p.is_file()]
        assert not [p for p in files if b"hunter2" in p.read_bytes()]
        assert b"hunter2" not in engine.home.database.read_bytes()

    def test_a_command_that_is_not_there_fails_at_its_start(self, engine, monkeypatch):
        with pytest.raises(ConfigError, match="command 'no-such' is not a program on the job's"):
            engine.submit(job("none", "no-such", "x"))

    def test_replicas_without_a_gang_come_as_there_is_room(self, engine):
        text = "echo $UNDERSTUDY_REPLICA; sleep 0.1; [ $UNDERSTUDY_REPLICA != 1 ]"
        found = engine.submit(job("tasks", text, gang=False, roles=(Role(replicas=5),)))
        status = engine.wait(found)
        # one failed; the others ran all the same
        assert (status.state, status.reason) == (State.FAILED, "rank 1 (main): exit code 1")
        assert sorted(lines(engine, found)) == ["0", "1", "2", "3", "4"]
        rows = engine.store.replicas(found)
        events = sorted([(r.placed, 1) for r in rows] + [(r.released, -1) for r in rows])
        level = peak = 0
        for _, change in events:
            level += change
            peak = max(peak, level)
        assert peak == 2

    def test_what_a_job_leaves_behind_is_killed(self, engine):
        text = "sleep 61 & setsid sleep 62 & echo begun"
        found = engine.submit(job("litter", text))
        assert engine.wait(found).state is State.SUCCEEDED
        time.sleep(0.05)
        mark = f"UNDERSTUDY_JOB_ID={found}".encode()
        left = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes():
                    left.append(path)
            except OSError:
                continue
        assert left == []

    def test_a_job_that_ends_in_its_signal_handler_was_preempted(self, engine):
        # an engine of the site may call this a failure; ours knows why it ended
        text = "trap 'exit 1' USR1; echo ready; i=0; while [ $UNDERSTUDY_ATTEMPT = 1 ]; do sleep 0.05; done"  # noqa: E501
        low = engine.submit(
            job(
                "low",
                text,
                preemptible=True,
                checkpoint=Checkpoint(dir="c", grace_s=5),
                roles=(Role(resources=Resources(cpu=2)),),
            )
        )
        until(lambda: "ready" in lines(engine, low), "ready")
        high = engine.submit(job("high", "true", priority=1))
        engine.wait(high)
        assert engine.wait(low).state is State.SUCCEEDED
        assert "PREEMPTED" in moves(engine, low)

    def test_a_stopped_wrapper_is_silent_but_not_lost(self, engine, monkeypatch):
        found = engine.submit(job("pause", "sleep 0.5"))
        running(engine, found)
        pid = engine.status(found).replicas[0].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr("understudy.launch.engines.status.LOST_AFTER_S", 0.4)
            until(lambda: engine.status(found).replicas[0].state == "silent", "silent")
            assert engine.status(found).state is State.RUNNING
            assert "no sign of life of rank 0" in engine.status(found).warnings[0]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert engine.wait(found).state is State.SUCCEEDED

    def test_retry_goes_on_from_the_checkpoints(self, engine):
        text = (
            "ls {checkpoints} | wc -l; touch {checkpoints}/step-$UNDERSTUDY_JOB_ID; "
            "echo resume $UNDERSTUDY_RESUME; exit 1"
        )
        first = engine.submit(job("try", text))
        engine.wait(first)
        second = engine.retry(first)
        assert second != first
        engine.wait(second)
        assert [line.strip() for line in lines(engine, first)] == ["0", "resume 0"]
        assert [line.strip() for line in lines(engine, second)] == ["1", "resume 1"]
        assert engine.status(second).retry_of == first
        engine.wait(engine.retry(second))

    def test_metrics_are_taken_over_once(self, engine):
        from understudy.launch.state_metrics import curve

        text = (
            "from understudy.launch.state_metrics import log\n"
            "for i in range(250): log(i, loss=1 / (i + 1), bad=float('nan'))"
        )
        found = engine.submit(job("learn", sys.executable, "-c", text))
        engine.wait(found)
        assert curve(engine.store, found, "loss") == [(i, 1 / (i + 1)) for i in range(250)]
        assert curve(engine.store, found, "bad")[0] == (0, None)
        with pytest.raises(ConfigError, match=r"no metric 'los' \(it has bad, loss\)"):
            curve(engine.store, found, "los")

    def test_an_entrypoint_is_called(self, engine, tmp_path):
        (tmp_path / "mine.py").write_text("def f(x, y): print(x + y)")
        spec = job("call", "x").__class__(
            name="call", entrypoint="mine:f", args={"x": 2, "y": 3}, workdir=str(tmp_path)
        )
        found = engine.submit(spec)
        assert engine.wait(found).state is State.SUCCEEDED, lines(engine, found)
        assert lines(engine, found) == ["5"]

    def test_status_says_what_a_job_has_cost(self, engine):
        budget = Budget(max_cost=1.0, rate_table=Rates(cpu=100.0))
        spec = job("dear", "sleep 0.2", timeout_s=36.0, budget=budget)
        assert engine.plan(spec).cost == pytest.approx(1.0)
        status = engine.wait(engine.submit(spec))
        (replica,) = engine.store.replicas(status.id)
        assert status.cost == pytest.approx((replica.released - replica.placed) / 36, rel=1e-6)
        assert 0.2 / 36 < status.cost < 1


def test_engines_that_are_not_there_are_not_listed(tmp_path):
    assert next(iter(ENGINES)) == "local"
    with pytest.raises(ConfigError, match="there is no engine 'locl'. Did you mean local"):
        open_engine("locl", tmp_path)


def test_the_controller_ends_when_idle_and_comes_back(tmp_path):
    engine = open_local(str(tmp_path), LocalSettings(idle_exit_s=0.2, poll_s=0.05))
    engine.set_capacity(1)
    engine.wait(engine.submit(job("a", "true")))
    until(lambda: not engine.controller_alive(), "idle")
    assert engine.wait(engine.submit(job("b", "true"))).state is State.SUCCEEDED
    until(lambda: not engine.controller_alive(), "idle again")


def test_a_gang_that_does_not_start_in_time_goes_back(tmp_path):
    # a wrapper that never gets to its start: its plan is a pipe that nobody writes to
    engine = open_local(
        str(tmp_path), LocalSettings(start_deadline_s=0.5, grace_s=0.1, poll_s=0.05)
    )
    engine.set_capacity(2)
    spec = job("gang", "sleep 60", roles=(Role(replicas=2),), retry=Retry(max_failures=0))
    kill_controller(engine)
    from understudy.launch.home import Home

    found = engine.store.submit(spec, engine="local")[0]
    folder = Home(tmp_path).rank(found.id, 1, 1)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "replica.json")
    engine.prepare(engine.store.job(found.id))
    engine.ensure_controller()
    until(lambda: moves(engine, found.id)[-2:] == ["STARTING", "RUNNING"], "second attempt runs")
    assert moves(engine, found.id)[2:5] == ["STARTING", "LOST", "QUEUED"]
    engine.cancel(found.id, 0.1)
    engine.wait(found.id)
    kill_controller(engine)


def test_a_submitter_that_died_in_between_and_a_clock_that_is_off(tmp_path):
    engine = open_local(tmp_path, LocalSettings(idle_exit_s=0.2, poll_s=0.05))
    engine.set_capacity(1)
    # recorded a minute ago, and never queued
    spec = job("half", "sleep 0.3")
    found, _ = engine.store.submit(spec, engine="local", now=time.time() - 60,
                                   environment={"PATH": os.environ["PATH"]})  # fmt: skip
    engine.reconcile()
    until(lambda: engine.store.job(found.id).state is State.RUNNING, "it was queued")
    assert engine.wait(found.id).state is State.SUCCEEDED

    from understudy.core.files import read_json, write_json
    from understudy.launch.engines.local_watch import Watch

    path = engine.home.rank(found.id, 1, 0) / "start.json"
    write_json(path, {**read_json(path), "time": time.time() + 8})
    watch = Watch(engine.store, engine.home, engine.store.job(found.id), tmp_path / "wake")
    watch._check_clock(0)
    (text,) = engine.status(found.id).warnings
    assert "(rank 0) is +8.0 s off; events and lines are ordered by number" in text
    until(lambda: not engine.controller_alive(), "idle")
