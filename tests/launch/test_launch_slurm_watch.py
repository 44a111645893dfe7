"""What becomes of what Slurm says, without a Slurm: states, causes, signals, plans on a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from contract import until

from understudy.core.files import write_json
from understudy.launch.engines import slurm_node
from understudy.launch.engines.slurm_client import (
    SlurmClient,
    SlurmError,
    SlurmJob,
)
from understudy.launch.engines.slurm_node import completed
from understudy.launch.engines.slurm_queue import GONE, REQUEUED, Queue
from understudy.launch.engines.slurm_settings import SlurmSettings
from understudy.launch.engines.slurm_submit import begin
from understudy.launch.engines.slurm_units import Record, Unit, units
from understudy.launch.engines.slurm_watch import SlurmWatch
from understudy.launch.home import Home
from understudy.launch.outcome import Outcome
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Role
from understudy.launch.state import JobStore
from understudy.launch.states import State

NAME = "digits-3f9a2c1b"


def spec(**fields):
    return JobSpec(**{"name": "digits", "command": ("true",), **fields})


# -- states, where Slurm says one thing here and another there


class Fake(SlurmClient):
    """A Slurm that says what it is told to say."""

    def __init__(self, jobs=(), shown=None, past=None, down=False):
        super().__init__({})
        self.jobs, self.shown, self.past, self.down = list(jobs), shown or {}, past, down

    def queue(self):
        if self.down:
            raise SlurmError("squeue: Unable to contact slurm controller")
        return self.jobs

    def show(self, job):
        return self.shown.get(job)

    def history(self, job):
        if self.past is None:
            raise SlurmError("sacct: Slurm accounting storage is disabled")
        return self.past.get(job)


def asked(**facts):
    queue = Queue(Fake(**facts))
    queue.refresh()
    return queue


def slurm_job(state, number="7", base=1, reason=""):
    return SlurmJob(id=number, name=f"{NAME}.{base}", state=state, reason=reason)


def test_states_are_looked_for_in_four_places():
    assert asked(jobs=[slurm_job("RUNNING")]).state("7") == "RUNNING"
    assert asked(shown={"7": {"JobState": "FAILED"}}).state("7") == "FAILED"
    assert asked(past={"7": "TIMEOUT"}).state("7") == "TIMEOUT"
    assert asked(past={}).state("7") == GONE
    forgotten = asked()
    assert forgotten.state("7") == GONE
    assert forgotten.history is False
    assert asked(down=True).state("7") == ""  # nobody knows: not lost


def test_a_job_is_found_by_its_name_alive_rather_than_dead():
    queue = asked(jobs=[slurm_job("FAILED", "9"), slurm_job("PENDING", "8"), slurm_job("FAILED")])
    assert queue.named(f"{NAME}.1").id == "8"
    assert queue.named(f"{NAME}.2") is None


@pytest.fixture
def unit(tmp_path):
    return units(Home(tmp_path), NAME, spec())[0]


@pytest.mark.parametrize(
    ("state", "restarts", "attempt", "verdict"),
    [
        ("RUNNING", 0, 1, ""), ("COMPLETING", 0, 1, ""), ("COMPLETED", 0, 1, "COMPLETED"),
        ("PENDING", 1, 1, REQUEUED), ("COMPLETING", 1, 1, REQUEUED), ("FAILED", 1, 1, REQUEUED),
        ("FAILED", 1, 2, "FAILED"), ("TIMEOUT", 0, 1, "TIMEOUT"), ("REQUEUE_HOLD", 2, 2, REQUEUED),
    ],
)  # fmt: skip
def test_when_an_attempt_is_over(unit, state, restarts, attempt, verdict):
    queue = asked(
        jobs=[slurm_job(state)], shown={"7": {"JobState": state, "Restarts": str(restarts)}}
    )
    assert queue.verdict(unit, Record(id="7", base=1), attempt) == verdict


def test_an_attempt_is_over_when_the_next_has_begun(unit):
    queue = asked(jobs=[slurm_job("RUNNING")])
    folder = unit.home.attempt(NAME, 2)
    folder.mkdir(parents=True)
    (folder / "slurm-begun.json").write_text('{"id": "8"}')
    assert queue.verdict(unit, Record(id="7", base=1), 1) == ""  # another submission
    (folder / "slurm-begun.json").write_text('{"id": "7"}')
    assert queue.verdict(unit, Record(id="7", base=1), 1) == REQUEUED


@pytest.mark.parametrize(
    ("verdicts", "outside", "cause"),
    [
        ([REQUEUED], True, "preemption"), ([REQUEUED], False, "node_loss"),
        (["PREEMPTED"], False, "preemption"), (["TIMEOUT"], True, "timeout"),
        (["CANCELLED"], True, "cancel"), (["OUT_OF_MEMORY"], False, "failure"),
        (["NODE_FAIL"], False, "node_loss"), (["FAILED"], False, "node_loss"), ([GONE], False,
        "node_loss"),
    ],
)  # fmt: skip
def test_causes(verdicts, outside, cause):
    lost = Outcome("node_loss", "rank 0 is gone without a word")
    assert SlurmWatch._after(None, verdicts, lost, outside).cause == cause


@pytest.fixture
def gang(tmp_path):
    """Return (watch, its queue's Slurm, end): a gang of two that runs as job 7 in Slurm."""
    store, home = JobStore(tmp_path / "jobs.db"), Home(tmp_path)
    found, _ = store.submit(spec(roles=(Role(replicas=2),)), engine="slurm")
    store.move(found.id, State.QUEUED)
    (one,) = units(home, found.id, found.spec)
    one.keep(1, Record(id="7", base=1))
    begin(store, store.job(found.id), [one], [one], time.time())
    said = Fake(jobs=[SlurmJob(id="7", name=one.name(1), state="RUNNING")])
    queue = Queue(said)
    queue.refresh()
    watch = SlurmWatch(store, home, store.job(found.id), queue, SlurmSettings())

    def end(rank, code, stopped_by=""):
        facts = {"code": code, "stopped_by": stopped_by, "reason": f"exit code {code}",
                 "end": time.time()}  # fmt: skip
        for name in ("start", "exit"):
            folder = home.rank(found.id, 1, rank)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{name}.json", {**facts, "time": 0.0, "host": "n"})

    return watch, said, end


def requeued(watch, said):
    one = watch.units[0]
    said.jobs = [SlurmJob(id="7", name=one.name(1), state="PENDING", reason="BeginTime")]
    said.shown = {"7": {"JobState": "PENDING", "Restarts": "1"}}
    watch.queue.refresh()


def step(watch):
    goes_on = watch.step(SlurmSettings(), time.time())
    return goes_on, watch.store.job(watch.job_id)


def test_what_slurm_ends_is_not_stopped_by_us(gang):
    # replicas hear of it a moment before the script notes it, and one of them ends first
    watch, said, end = gang
    end(1, 143, "TERM")
    goes_on, seen = step(watch)
    assert (goes_on, seen.wish) == (True, "")
    end(0, 0, "TERM")  # saved, and ended well: not done all the same
    goes_on, seen = step(watch)
    assert (goes_on, seen.state) == (True, State.RUNNING)  # Slurm has not made up its mind
    requeued(watch, said)
    goes_on, seen = step(watch)
    assert (goes_on, seen.state, seen.attempt) == (False, State.QUEUED, 2)
    assert watch.store.attempts(seen.id)[0].cause == "preemption"
    assert watch.units[0].record(2) == Record(id="7", base=1)


def test_one_of_a_gang_that_ends_in_its_handler_does_not_end_the_others(gang):
    watch, said, end = gang
    (watch.folder / "slurm-told").write_text("USR1 preempt\n")
    end(1, 1)
    assert step(watch)[1].wish == ""
    end(0, 143, "TERM")
    requeued(watch, said)
    assert step(watch)[1].attempt == 2
    assert watch.store.attempts(watch.job_id)[0].cause == "preemption"


def test_one_of_a_gang_that_fails_by_itself_ends_the_others(gang):
    watch, _, end = gang
    end(1, 1)
    assert step(watch)[1].wish == "stop"
    end(0, 143, "TERM")
    assert step(watch)[1].state is State.RESTARTING
    assert watch.store.attempts(watch.job_id)[0].cause == "failure"
    assert watch.units[0].record(2) is None  # a new submission


def test_a_job_that_slurm_has_forgotten_is_lost_after_a_while(gang, monkeypatch):
    watch, said, _ = gang
    for rank in (0, 1):
        folder = watch.home.rank(watch.job_id, 1, rank)
        folder.mkdir(parents=True)
        write_json(folder / "start.json", {"time": 0.0, "host": "n", "pid": 1})
    said.down = True
    watch.queue.refresh()
    said.jobs = []
    assert step(watch)[1].state is State.RUNNING  # nobody answers: nobody knows
    said.down = False
    watch.queue.refresh()
    assert step(watch)[1].state is State.RUNNING  # its files may be late
    watch.exit_grace_s = 0.0
    assert step(watch)[1].state is State.QUEUED
    texts = [e.facts["text"] for e in watch.store.events(watch.job_id) if e.kind == "warning"]
    assert any("sacct history is not available" in text for text in texts)
    assert [e.facts["to"] for e in watch.store.events(watch.job_id) if e.kind == "move"][-2:] == [
        "LOST", "QUEUED",
    ]  # fmt: skip


def test_units():
    home = Home.open("/tmp")
    many = spec(roles=(Role(replicas=3),))
    assert [u.ranks for u in units(home, NAME, many)] == [(0, 1, 2)]
    loose = spec(roles=(Role(replicas=3),), gang=False)
    assert [u.name(2) for u in units(home, NAME, loose)] == [f"{NAME}.2.r{r}" for r in range(3)]


def test_records_are_kept_and_broken_ones_are_none(tmp_path):
    one = Unit(Home(tmp_path), NAME, (4,), 4)
    assert one.record(1) is None
    one.keep(1, Record(id="7", base=1))
    assert one.record(1) == Record(id="7", base=1)
    (tmp_path / "jobs" / NAME / "attempt-1" / "slurm-r4.json").write_text("[]")
    assert one.record(1) is None
    assert one.told(1) == ""


# -- on the node


def test_a_plan_is_completed_with_what_the_node_knows(tmp_path):
    torchrun = [
        "python", "-m", "torch.distributed.run", "--nnodes=1:2", "--rdzv-endpoint=127.0.0.1:1",
        "--rdzv-id=j-1", "--local-addr=127.0.0.1", "--no-python", "echo", "--master-port=mine",
    ]  # fmt: skip
    plan = {
        "job": "j", "attempt": 1, "command": torchrun,
        "env": {"A": "1", "UNDERSTUDY_ATTEMPT": "1", "UNDERSTUDY_RESUME": "0", "SLURM_X": "set"},
    }  # fmt: skip
    folder = tmp_path / "attempt-3" / "rank-0"
    node = {"SLURM_JOB_ID": "7", "SLURM_X": "node", "CUDA_VISIBLE_DEVICES": "3", "B": "2"}
    found = completed(plan, folder, 3, {"host": "n1", "port": 99}, node)
    env = found["env"]
    assert (env["SLURM_JOB_ID"], env["CUDA_VISIBLE_DEVICES"], env["A"]) == ("7", "3", "1")
    assert "B" not in env
    assert env["SLURM_X"] == "set"  # the spec's own word
    assert (env["UNDERSTUDY_ATTEMPT"], env["UNDERSTUDY_RESUME"]) == ("3", "1")
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("n1", "99")
    assert env["UNDERSTUDY_METRICS"] == str(folder / "metrics.jsonl")
    assert found["command"][4:6] == ["--rdzv-endpoint=n1:99", "--rdzv-id=j-3"]
    assert found["command"][-1] == "--master-port=mine"
    assert completed(found, folder, 3, {"host": "n1", "port": 99}, node) == found
    first = completed(plan, folder, 1, None, {})
    assert (first["env"]["UNDERSTUDY_RESUME"], first["command"]) == ("0", torchrun)


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurm_node, "SEEN_S", 0.0)
    assert slurm_node.task(tmp_path, 1, tmp_path / "attempt-1", 1) == slurm_node.UNSEEN
    assert "the folder of jobs is not shared with the nodes" in capsys.readouterr().err


def test_each_wrapper_of_this_node_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    code = (
        "import signal, sys, time; from pathlib import Path\n"
        "from understudy.launch.replica_files import take_lock\n"
        "folder = Path(sys.argv[1]); handle = take_lock(folder / 'lock'); n = [0]\n"
        "signal.signal(signal.SIGUSR1, lambda *_: n.__setitem__(0, n[0] + 1))\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print(n[0], flush=True), sys.exit()))\n"
        "(folder / 'start.json').write_text('{}'); time.sleep(30)\n"
    )
    wrappers = []
    for rank, node in ((0, "n1"), (1, "n1"), (2, "n2")):
        folder = tmp_path / f"rank-{rank}"
        folder.mkdir()
        (folder / "slurm-node").write_text(node)
        wrappers.append(
            subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        )
        until((folder / "start.json").exists, "it begins")
    try:
        assert slurm_node.send(tmp_path, "USR1", "a") == 2
        assert slurm_node.send(tmp_path, "USR1", "a") == 0  # the same sending, from another task
        time.sleep(0.1)
        assert slurm_node.send(tmp_path, "USR1", "b") == 2
        time.sleep(0.1)
        for one in wrappers:
            one.send_signal(signal.SIGTERM)
        assert [one.communicate(timeout=10)[0] for one in wrappers] == [b"2\n", b"2\n", b"0\n"]
    finally:
        for one in wrappers:
            one.kill()


def test_the_meeting_place(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_HET_SIZE", raising=False)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    slurm_node.main(["wire", str(tmp_path)])
    assert json.loads((tmp_path / "wiring.json").read_text())["host"] == "127.0.0.1"
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    slurm_node.main(["wire", str(tmp_path)])
    assert json.loads((tmp_path / "wiring.json").read_text())["host"] == os.uname().nodename
