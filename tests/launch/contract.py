"""What every engine must do. An engine's test module subclasses `EngineContract`.

It gives a fixture `engine` (two slots of one core, short times) and `crash_controller`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import ClassVar

import pytest

from understudy.core.errors import ConfigError
from understudy.launch.engines.base import Engine
from understudy.launch.engines.status import Filter
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Checkpoint, Output, Resources, Retry, Role
from understudy.launch.states import FINAL, State

WAIT_S = 30.0
ONCE = Retry(max_failures=0)
LATER = Retry(max_failures=1, backoff_s=0.05)
RESUMES = """
import os, signal, sys, time, pathlib
folder = pathlib.Path(os.environ["UNDERSTUDY_CKPT_DIR"])
print("resume", os.environ["UNDERSTUDY_RESUME"], "attempt", os.environ["UNDERSTUDY_ATTEMPT"])
if (folder / "saved").exists():
    sys.exit(0)
def save(*_):
    (folder / "saved").touch()
    print("saved", flush=True)
signal.signal(signal.SIGUSR1, save)
print("ready", flush=True)
time.sleep(60)
"""


def job(name: str, *command: str, **fields) -> JobSpec:
    """Return a spec of its own: the key is new each time."""
    words = ("sh", "-c", command[0]) if len(command) == 1 else command
    return JobSpec(
        **{"name": name, "command": words, "key": uuid.uuid4().hex, "retry": ONCE, **fields}
    )


def script(name: str, text: str, **fields) -> JobSpec:
    return job(name, sys.executable, "-c", text, **fields)


def until(check, what: str = "", timeout_s: float = WAIT_S):
    """Wait until `check()` is true and return what it gave."""
    end = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)
    return found


def moves(engine: Engine, job_id: str) -> list[str]:
    """Return the states a job went through."""
    found = [e.facts["to"] for e in engine.store.events(job_id) if e.kind == "move"]
    return ["CREATED", *found]


def lines(engine: Engine, job_id: str, **query) -> list[str]:
    return [line.text for line in engine.logs(job_id, **query)]


def alive(process: int) -> bool:
    """Say whether a process runs; one that nobody has fetched does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def running(engine: Engine, job_id: str) -> None:
    until(lambda: engine.store.job(job_id).state is State.RUNNING, f"{job_id} runs")


def free(engine: Engine) -> None:
    """Wait until no job is left."""
    until(lambda: all(s.state in FINAL for s in engine.list()), "all jobs end")


class EngineContract:
    """The contract; every test leaves the engine empty."""

    urgent: ClassVar[dict] = {"priority": 5}
    """Fields of a job for which others make room."""

    def crash_controller(self, engine: Engine) -> None:
        """Kill (-9) what watches the engine's jobs from outside; it must not start by itself."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _empty_after(self, engine):
        yield
        for status in engine.list():
            if status.state not in FINAL:
                engine.cancel(status.id, 0.1)
        free(engine)

    # -- submit, status, outputs

    def test_a_job_runs_and_leaves_its_output(self, engine):
        spec = job(
            "run",
            'echo "$UNDERSTUDY_ROLE $UNDERSTUDY_REPLICA/$UNDERSTUDY_REPLICAS"; '
            "printf 42 > {outputs.answer}; echo $COLOUR >&2",
            outputs=(Output(name="answer", path="deep/answer.txt"),),
            env={"COLOUR": "blue"},
        )
        found = engine.submit(spec)
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.exit_code, status.reason) == (State.SUCCEEDED, 0, "")
        assert moves(engine, found) == ["CREATED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        (artefact,) = engine.store.artefacts(found)
        # sha256 of "42"
        assert artefact.sha256 == "73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049"
        assert artefact.bytes == 2
        assert lines(engine, found, stream="stdout") == ["main 0/1"]
        assert lines(engine, found, stream="stderr") == ["blue"]
        (replica,) = status.replicas
        assert (replica.state, replica.exit["code"]) == ("ended", 0)
        assert replica.exit["max_rss_mb"] > 0
        assert found in [s.id for s in engine.list(Filter(states=(State.SUCCEEDED,)))]

    def test_the_same_key_is_the_same_job(self, engine):
        spec = job("once", "echo x >> $UNDERSTUDY_OUT_DIR/runs")
        found = engine.submit(spec)
        assert engine.submit(spec) == found
        engine.wait(found, WAIT_S)
        assert engine.submit(spec) == found
        assert (engine.folder(found) / "out" / "runs").read_text() == "x\n"
        other = job("once", "echo y", key=spec.key)
        with pytest.raises(ConfigError, match=rf"key '{spec.key}' exists .*\(diff: command\[2\]"):
            engine.submit(other)

    def test_an_output_that_is_missing_fails_the_job(self, engine):
        found = engine.submit(job("gap", "true", outputs=(Output(name="model", path="m"),)))
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.reason) == (State.FAILED, "missing_output model")

    # -- logs

    def test_logs_follow_without_loss_or_repetition(self, engine):
        text = "for i in range(400): print(i, 'x' * 20, flush=True)"
        found = engine.submit(script("talk", text))
        seen = [line for line in engine.logs(found, follow=True)]
        assert [line.text.split()[0] for line in seen] == [str(i) for i in range(400)]
        assert [line.seq for line in seen] == list(range(1, 401))
        assert engine.store.job(found).state is State.SUCCEEDED

    # -- cancelling

    def test_a_queued_job_is_cancelled(self, engine):
        first = engine.submit(job("big", "sleep 60", roles=(Role(resources=Resources(cpu=2)),)))
        running(engine, first)
        second = engine.submit(job("small", "true"))
        assert engine.status(second).state is State.QUEUED
        assert engine.cancel(second).state is State.CANCELLED
        assert moves(engine, second) == ["CREATED", "QUEUED", "CANCELLED"]
        assert engine.store.attempts(second) == []

    def test_a_running_job_is_cancelled_once(self, engine):
        text = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
        found = engine.submit(job("loop", text))
        until(lambda: "ready" in lines(engine, found), "ready")
        engine.cancel(found, 5)
        engine.cancel(found, 5)
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.exit_code) == (State.CANCELLED, 9)
        assert lines(engine, found, stream="stdout") == ["ready", "told"]
        assert engine.cancel(found).state is State.CANCELLED
        assert moves(engine, found)[-1] == "CANCELLED"
        assert moves(engine, found).count("CANCELLED") == 1

    def test_a_job_that_ignores_term_is_killed_after_the_grace(self, engine):
        text = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
        found = engine.submit(job("deaf", text))
        until(lambda: "ready" in lines(engine, found), "ready")
        begun = time.time()
        engine.cancel(found, 0.3)
        status = engine.wait(found, WAIT_S)
        assert status.state is State.CANCELLED
        assert time.time() - begun >= 0.3
        end = status.replicas[0].exit
        assert (end["signal"], end["killed"]) == ("KILL", True)

    # -- ends

    def test_a_job_fails_with_its_exit_code(self, engine):
        found = engine.submit(job("bad", "echo why >&2; exit 3"))
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.exit_code) == (State.FAILED, 3)
        assert status.reason == "rank 0 (main): exit code 3"
        assert lines(engine, found) == ["why"]
        assert moves(engine, found)[-2:] == ["RUNNING", "FAILED"]

    def test_a_job_is_stopped_at_its_time_limit(self, engine):
        found = engine.submit(job("slow", "sleep 60", timeout_s=0.3))
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.reason) == (State.TIMED_OUT, "timeout after 0.3 s")

    def test_a_failure_is_tried_again(self, engine):
        text = (
            'echo "$UNDERSTUDY_ATTEMPT $UNDERSTUDY_RESUME"; [ $UNDERSTUDY_ATTEMPT = 2 ] || exit 7'
        )
        found = engine.submit(job("again", text, retry=LATER))
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.attempt) == (State.SUCCEEDED, 2)
        assert moves(engine, found)[-4:] == ["RUNNING", "RESTARTING", "RUNNING", "SUCCEEDED"]
        assert lines(engine, found) == ["1 0", "2 1"]
        causes = [(a.n, a.cause, a.exit) for a in engine.store.attempts(found)]
        assert causes == [(1, "failure", 7), (2, "success", 0)]

    def test_failures_are_not_tried_for_ever(self, engine):
        found = engine.submit(job("never", "exit 5", retry=LATER))
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.attempt, status.exit_code) == (State.FAILED, 2, 5)

    # -- priority and gangs

    def test_a_preempted_job_saves_goes_and_comes_back(self, engine):
        if "preempt" not in engine.capabilities():
            pytest.skip(f"engine {engine.name} leaves preemption to the site")
        low = engine.submit(
            script(
                "low",
                RESUMES,
                preemptible=True,
                checkpoint=Checkpoint(dir="checkpoints", grace_s=0.5),
                roles=(Role(resources=Resources(cpu=2)),),
            )
        )
        until(lambda: "ready" in lines(engine, low), "low is ready")
        high = engine.submit(job("high", "true", **self.urgent))
        assert engine.wait(high, WAIT_S).state is State.SUCCEEDED
        status = engine.wait(low, WAIT_S)
        assert (status.state, status.attempt) == (State.SUCCEEDED, 2)
        assert moves(engine, low)[3:6] == ["RUNNING", "PREEMPTED", "QUEUED"]
        assert lines(engine, low) == [
            "resume 0 attempt 1", "ready", "saved", "resume 1 attempt 2",
        ]  # fmt: skip

    def test_a_gang_starts_whole_and_ends_whole(self, engine):
        first = engine.submit(job("one", "sleep 60"))
        running(engine, first)
        text = "[ $UNDERSTUDY_REPLICA = 1 ] && exit 4; sleep 60"
        gang = engine.submit(job("gang", text, roles=(Role(replicas=2),)))
        time.sleep(0.3)
        assert engine.store.job(gang).state is State.QUEUED
        assert engine.store.replicas(gang) == []
        engine.cancel(first, 0.1)
        status = engine.wait(gang, WAIT_S)
        assert (status.state, status.exit_code) == (State.FAILED, 4)
        assert status.reason == "rank 1 (main): exit code 4"
        assert [r.exit["stopped_by"] for r in status.replicas] == ["TERM", ""]

    def test_what_cannot_fit_is_refused_before_queueing(self, engine):
        before = len(engine.list())
        asks = Role(name="trainer", resources=Resources(gpu=1))
        refused = rf"role 'trainer' asks gpu=1; engine '{engine.name}' has gpu=0 in total"
        with pytest.raises(ConfigError, match=refused):
            engine.submit(job("gpu", "true", roles=(asks,)))
        with pytest.raises(ConfigError, match=r"gang of 3 .* cpu needs 3, has 2"):
            engine.submit(job("wide", "true", roles=(Role(replicas=3),)))
        assert len(engine.list()) == before

    # -- crashes

    def test_a_crashed_controller_changes_nothing(self, engine):
        text = (
            "echo x >> $UNDERSTUDY_OUT_DIR/runs; echo begun; "
            "while [ ! -e $UNDERSTUDY_OUT_DIR/go ]; do sleep 0.02; done"
        )
        found = engine.submit(job("long", text))
        until(lambda: lines(engine, found) == ["begun"], "begun")
        running(engine, found)
        self.crash_controller(engine)
        queued = engine.store.job(found)
        assert engine.status(found).state is State.RUNNING
        assert found in engine.reconcile()
        assert engine.store.job(found).last_seq == queued.last_seq
        self.crash_controller(engine)
        (engine.folder(found) / "out" / "go").touch()
        until(lambda: engine.status(found).replicas[0].state == "ended", "ended unwatched")
        engine.reconcile()
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.attempt) == (State.SUCCEEDED, 1)
        assert (engine.folder(found) / "out" / "runs").read_text() == "x\n"
        assert moves(engine, found) == ["CREATED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]

    def test_a_lost_replica_is_started_again(self, engine):
        text = "echo $$; [ $UNDERSTUDY_ATTEMPT = 2 ] || while :; do sleep 0.05; done"
        found = engine.submit(job("lost", text, retry=LATER))
        until(lambda: lines(engine, found), "begun")
        running(engine, found)
        command = int(lines(engine, found)[0])
        os.kill(engine.status(found).replicas[0].pid, signal.SIGKILL)
        status = engine.wait(found, WAIT_S)
        assert (status.state, status.attempt) == (State.SUCCEEDED, 2)
        assert moves(engine, found)[3:6] == ["RUNNING", "LOST", "QUEUED"]
        assert not alive(command)
