"""The Slurm engine keeps the contract on a real Slurm of one machine, and does its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from contract import LATER, RESUMES, EngineContract, job, lines, moves, running, script, until
from slurm_cluster import SETTINGS, SlurmCluster, closed, kill_controller

from understudy.core.errors import ConfigError
from understudy.launch.engines.slurm import open_slurm
from understudy.launch.spec_parts import Checkpoint, Output, Resources, Role
from understudy.launch.states import FINAL, State

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
]
BOTH = (Role(resources=Resources(cpu=2)),)
CRASHING = Path(__file__).with_name("slurm_crashing_controller.py")


@pytest.fixture(scope="module")
def cluster():
    with SlurmCluster().here() as found:
        yield found


@pytest.fixture(scope="module")
def engine(cluster, tmp_path_factory):
    found = open_slurm(str(tmp_path_factory.mktemp("home")), SETTINGS)
    found.reconcile()
    yield found
    closed(found)


def numbers(cluster, found):
    """Return the numbers of all jobs in Slurm that a job of ours has had."""
    text = cluster.call("squeue", "-h", "-t", "all", "-o", "%i|%j")
    pairs = [line.split("|") for line in text.split()]
    return [number for number, name in pairs if name.startswith(f"{found}.")]


class TestSlurm(EngineContract):
    urgent = {"queue": "urgent"}  # noqa: RUF012

    def crash_controller(self, engine):
        kill_controller(engine)

    # -- preemption by the site

    def test_a_job_that_ends_in_its_signal_handler_is_queued_again_all_the_same(
        self, engine, cluster
    ):
        # Slurm does not requeue what ends by itself; the script stays until Slurm ends it
        text = (
            "echo restarts=$SLURM_RESTART_COUNT; trap 'echo saved; exit 1' USR1; echo ready; "
            "while [ $UNDERSTUDY_ATTEMPT = 1 ]; do sleep 0.05; done"
        )
        checkpoint = Checkpoint(dir="c", grace_s=2)
        low = engine.submit(job("low", text, preemptible=True, checkpoint=checkpoint, roles=BOTH))
        until(lambda: "ready" in lines(engine, low), "ready")
        number = engine.status(low).engine_ref
        # the controller sees nothing of it: what happened is found in files and in Slurm
        kill_controller(engine)
        high = cluster.call(
            "sbatch", "--parsable", "-p", "urgent", "--ntasks=2", "--output=/dev/null",
            "--wrap", "sleep 0.1",
        )  # fmt: skip
        until(lambda: cluster.shown(high.strip())["JobState"] == "COMPLETED", "high", 60)
        shown = cluster.shown(number)
        assert (shown["Restarts"], shown["JobState"]) == ("1", "PENDING")
        engine.reconcile()
        status = engine.wait(low, 30)
        assert (status.state, status.attempt, status.engine_ref) == (State.SUCCEEDED, 2, number)
        assert moves(engine, low)[3:] == [
            "RUNNING", "PREEMPTED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED",
        ]  # fmt: skip
        causes = [(a.cause, a.exit, a.engine_ref) for a in engine.store.attempts(low)]
        assert causes == [("preemption", 1, number), ("success", 0, number)]
        assert lines(engine, low) == ["restarts=", "ready", "saved", "restarts=1", "ready"]
        assert numbers(cluster, low) == [number]

    # -- signals

    def test_before_its_time_limit_a_job_is_asked_to_save(self, engine):
        found = engine.submit(
            script("late", RESUMES, timeout_s=2.0, checkpoint=Checkpoint(dir="c", grace_s=1.2))
        )
        status = engine.wait(found, 30)
        assert (status.state, status.reason) == (State.TIMED_OUT, "timeout after 2 s")
        assert lines(engine, found)[1:] == ["ready", "saved"]

    def test_a_signal_does_not_end_what_does_not_expect_it(self, engine, cluster):
        found = engine.submit(job("deaf", "echo ready; sleep 1.5; echo done"))
        until(lambda: "ready" in lines(engine, found), "ready")
        number = engine.status(found).engine_ref
        cluster.call("scancel", "--batch", "--signal=USR1", number)
        assert engine.wait(found, 30).state is State.SUCCEEDED
        assert lines(engine, found) == ["ready", "done"]

    # -- what others do to the job in Slurm

    def test_a_job_that_is_cancelled_in_slurm(self, engine, cluster):
        first = engine.submit(job("one", "trap 'exit 3' TERM; while :; do sleep 0.05; done",
                                  roles=BOTH))  # fmt: skip
        running(engine, first)
        second = engine.submit(job("two", "true"))
        until(lambda: engine.status(second).engine_ref, "submitted")
        told = until(lambda: engine.status(second).reason, "why it waits")
        number = engine.status(second).engine_ref
        assert told.startswith(f"waits in Slurm as {number}: ")
        assert engine.status(second).state is State.QUEUED
        cluster.call("scancel", number)
        assert engine.wait(second, 30).reason == "cancelled in Slurm, by somebody else"
        assert moves(engine, second) == ["CREATED", "QUEUED", "CANCELLED"]
        cluster.call("scancel", engine.status(first).engine_ref)
        status = engine.wait(first, 30)
        assert (status.state, status.reason) == (
            State.CANCELLED, "cancelled in Slurm, by somebody else",
        )  # fmt: skip

    def test_what_slurm_says_about_a_lost_replica_is_kept(self, engine):
        # on the node there is no srun: no wrapper begins, no file tells how it ended
        found, _ = engine.store.submit(
            job("none", "true"), engine="slurm", environment={"PATH": "/none"}
        )
        engine.prepare(found)
        engine.dispatch(found)
        status = engine.wait(found.id, 30)
        assert (status.state, status.reason) == (
            State.FAILED, "rank 0 is gone without a word",
        )  # fmt: skip
        assert moves(engine, found.id)[-2:] == ["LOST", "FAILED"]
        (text,) = status.warnings
        assert "attempt 1 on Slurm:" in text
        assert "srun: not found" in text

    # -- jobs without a gang

    def test_replicas_without_a_gang_are_jobs_of_their_own(self, engine, cluster):
        text = "echo $UNDERSTUDY_REPLICA; sleep 0.2; [ $UNDERSTUDY_REPLICA != 1 ]"
        found = engine.submit(job("tasks", text, gang=False, roles=(Role(replicas=4),)))
        status = engine.wait(found, 60)
        assert (status.state, status.reason) == (State.FAILED, "rank 1 (main): exit code 1")
        assert sorted(lines(engine, found)) == ["0", "1", "2", "3"]
        assert sorted(numbers(cluster, found)) == sorted(status.engine_ref.split(","))
        assert len(status.engine_ref.split(",")) == 4
        rows = engine.store.replicas(found)
        assert max(r.placed for r in rows) > min(r.released for r in rows)

    def test_cancelling_a_job_without_a_gang_ends_what_waits_too(self, engine, cluster):
        found = engine.submit(
            job("many", "echo ran; sleep 60", gang=False, roles=(Role(replicas=4),))
        )
        until(lambda: len(lines(engine, found)) == 2, "two run")
        engine.cancel(found, 0.2)
        assert engine.wait(found, 30).state is State.CANCELLED
        until(
            lambda: not cluster.call("squeue", "-h", "-t", "PD,R", "-o", "%i").split(), "none left"
        )
        assert lines(engine, found) == ["ran", "ran"]

    # -- said before queueing

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"queue": "clam"}, r"queue: 'clam' is no partition .* Did you mean calm\?"),
            ({"timeout_s": 7200.0}, r"timeout_s is 7200; partition 'calm' allows 3600 s"),
            (
                {"engine_options": {"slurm": {"sbatch": {"partition": "urgnt"}}}},
                r"sbatch.partition: 'urgnt' is no partition .* Did you mean urgent\?",
            ),
            (
                {"engine_options": {"slurm": {"sbatch": {"constraint": "quantum"}}}},
                r"engine 'slurm' refuses the job: sbatch: .*[Ff]eature",
            ),
            (
                {"engine_options": {"slurm": {"sbatch": {"ntasks": 3}}}},
                r"slurm.sbatch.ntasks: the engine gives --ntasks itself",
            ),
        ],
    )
    def test_what_the_site_refuses_is_not_queued(self, engine, fields, message):
        before = len(engine.list())
        with pytest.raises(ConfigError, match=message):
            engine.submit(job("no", "true", **fields))
        assert len(engine.list()) == before

    def test_options_of_the_site_are_handed_through(self, engine, cluster):
        options = {"comment": "for the paper", "reservation": False, "exclusive": True}
        found = engine.submit(
            job("opts", "true", queue="urgent", engine_options={"slurm": {"sbatch": options}})
        )
        status = engine.wait(found, 30)
        text = cluster.call("scontrol", "show", "job", "-o", status.engine_ref)
        assert " Partition=urgent " in text
        assert " Comment=for the paper " in text
        assert "sacct history is not available" in status.warnings[0]


def test_a_home_with_a_name_that_shells_and_slurm_read_otherwise(cluster, tmp_path):
    engine = open_slurm(str(tmp_path / "it's 50%j of #1"), SETTINGS)
    found = engine.submit(job("odd", "pwd"))
    assert engine.wait(found, 30).state is State.SUCCEEDED
    assert lines(engine, found) == [str(engine.folder(found) / "work")]
    assert (engine.folder(found) / f"slurm-{engine.status(found).engine_ref}.out").exists()
    closed(engine)


# -- crashes


def record(engine, found):
    job_ = engine.store.job(found)
    return (
        job_.state, job_.exit_code, job_.attempt, moves(engine, found),
        [(a.n, a.cause, a.exit) for a in engine.store.attempts(found)],
        [(a.name, a.sha256) for a in engine.store.artefacts(found)],
        [(r.attempt, r.rank, r.state) for r in engine.store.replicas(found)],
        (engine.folder(found) / "out" / "runs").read_text(),
    )  # fmt: skip


def play(cluster, home, *place):
    """Run a job that fails once under a controller that is killed at a place, then another."""
    engine = open_slurm(str(home), SETTINGS)
    text = "echo $UNDERSTUDY_ATTEMPT >> $UNDERSTUDY_OUT_DIR/runs; [ $UNDERSTUDY_ATTEMPT = 2 ]"
    spec = job("play", text, retry=LATER, outputs=(Output(name="runs", path="runs"),))
    found = engine.store.submit(
        spec, engine="slurm", environment={"PATH": os.environ["PATH"]}
    )[0].id  # fmt: skip
    engine.prepare(engine.store.job(found))
    engine.configure(dataclasses.replace(SETTINGS, idle_exit_s=0.1))
    first = subprocess.run(
        [sys.executable, str(CRASHING), str(home), *map(str, place)], capture_output=True, text=True
    )
    killed = first.returncode == -signal.SIGKILL
    assert killed or first.returncode == 0, first.stderr
    engine.reconcile()
    engine.wait(found, 60)
    told, had = record(engine, found), numbers(cluster, found)
    until(lambda: not engine.controller_alive(), "idle")
    closed(engine)
    return told, had, 0 if killed else int(first.stdout.split()[-1])


@pytest.fixture(scope="module")
def unbroken(cluster, tmp_path_factory):
    told, had, writes = play(cluster, tmp_path_factory.mktemp("unbroken"), "write", 10**9)
    assert (told[0], told[2], told[-1]) == (State.SUCCEEDED, 2, "1\n2\n")
    assert len(had) == 2
    assert writes > 20
    return told, writes


def same(cluster, tmp_path, unbroken, points):
    for limit in points:
        told, had, left = play(cluster, tmp_path / str(limit), "write", limit)
        assert left == 0, "it was not killed"
        assert told == unbroken[0], f"killed at write {limit}"
        assert len(had) == 2, f"killed at write {limit}: submitted {len(had)} times"


def test_killed_at_some_writes(cluster, tmp_path, unbroken):
    same(cluster, tmp_path, unbroken, range(3, unbroken[1] - 6, unbroken[1] // 4))


@pytest.mark.slow
def test_killed_at_every_write(cluster, tmp_path, unbroken):
    same(cluster, tmp_path, unbroken, range(1, unbroken[1] - 6))


def test_a_submission_that_nobody_wrote_down_is_found_again(cluster, tmp_path, unbroken):
    told, had, left = play(cluster, tmp_path, "unrecorded")
    assert left == 0
    assert told == unbroken[0]
    assert len(had) == 2


def test_a_submission_under_way_is_waited_for(cluster, tmp_path, monkeypatch):
    # an sbatch that takes its time, and goes on when the controller has been killed
    real = shutil.which("sbatch")
    slow = tmp_path / "bin" / "sbatch"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n[ "$1" = --parsable ] && sleep 1.5\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    engine = open_slurm(str(tmp_path / "home"), SETTINGS)
    found = engine.submit(job("slow", "echo x >> $UNDERSTUDY_OUT_DIR/runs"))
    lock = engine.home.attempt(found, 1) / "sbatch.lock"
    until(lock.exists, "sbatch runs")
    time.sleep(0.3)
    kill_controller(engine)
    assert engine.status(found).engine_ref == ""
    assert engine.wait(found, 30).state is State.SUCCEEDED
    assert (engine.folder(found) / "out" / "runs").read_text() == "x\n"
    assert len(numbers(cluster, found)) == 1
    closed(engine)


def test_a_job_that_is_cancelled_while_it_is_submitted_never_runs(cluster, tmp_path, monkeypatch):
    real = shutil.which("sbatch")
    slow = tmp_path / "bin" / "sbatch"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n[ "$1" = --parsable ] && sleep 0.7\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    engine = open_slurm(str(tmp_path / "home"), SETTINGS)
    found = engine.submit(job("slow", "echo x >> $UNDERSTUDY_OUT_DIR/runs"))
    until((engine.home.attempt(found, 1) / "sbatch.lock").exists, "sbatch runs")
    assert engine.cancel(found).state is State.CANCELLED
    until(lambda: numbers(cluster, found), "it came to Slurm")
    number = numbers(cluster, found)[0]
    ended = ("CANCELLED", "COMPLETED")
    until(lambda: cluster.shown(number)["JobState"] in ended, "it is gone there")
    assert not (engine.folder(found) / "out" / "runs").exists()
    closed(engine)


@pytest.mark.slow
def test_slurms_own_two_minutes(cluster, tmp_path):
    """Without our asking, a requeued job waits for two minutes; it is the same job and goes on."""
    engine = open_slurm(str(tmp_path), dataclasses.replace(SETTINGS, requeue_at_once=False))
    low = engine.submit(
        script("low", RESUMES, preemptible=True, checkpoint=Checkpoint(dir="c"), roles=BOTH)
    )
    until(lambda: "ready" in lines(engine, low), "ready")
    number = engine.status(low).engine_ref
    engine.wait(engine.submit(job("high", "true", queue="urgent")), 60)
    until(lambda: engine.store.job(low).state is State.QUEUED, "queued again")
    until(lambda: engine.status(low).reason.endswith("BeginTime"), "its reason")
    begun = time.monotonic()
    assert cluster.shown(number)["Restarts"] == "1"
    assert engine.wait(low, 200).state in FINAL
    assert 60 < time.monotonic() - begun < 180
    assert lines(engine, low)[-2:] == ["saved", "resume 1 attempt 2"]
    closed(engine)
