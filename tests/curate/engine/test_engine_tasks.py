"""Tasks: once each, whole or not at all, by any executor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.executors import Here, Processes, executor
from understudy.curate.engine.tasks import DONE, Task, run_task, run_tasks

HERE = str(Path(__file__).parent)


def numbered(folder, count=4, **args):
    return [
        Task(
            key=f"number {i}",
            call="engine_steps:write_number",
            args={"number": i, **args},
            out=folder / f"{i}",
        )
        for i in range(count)
    ]


def calls(folder, i):
    path = folder / f"calls-{i}"
    return len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_run_once_and_return_records_in_order(tmp_path, workers):
    tasks = numbered(tmp_path)
    first = run_tasks(tasks, workers=workers)
    assert [r["stats"]["number"] for r in first] == [0, 1, 2, 3]
    assert run_tasks(tasks, workers=workers) == first
    assert [calls(tmp_path, i) for i in range(4)] == [1, 1, 1, 1]


def test_content_hash_leaves_out_names_with_underscore(tmp_path):
    (a,) = run_tasks(numbered(tmp_path / "a", 1), workers=1)
    time.sleep(0.01)
    (b,) = run_tasks(numbered(tmp_path / "b", 1), workers=1)
    assert a["hash"] == b["hash"]  # though _when.txt differs
    times = [(tmp_path / x / "0" / "_when.txt").read_text() for x in "ab"]
    assert times[0] != times[1]
    (c,) = run_tasks(numbered(tmp_path / "c", 2)[1:], workers=1)
    assert c["hash"] != a["hash"]


def test_other_arguments_compute_again(tmp_path):
    run_tasks(numbered(tmp_path, 1), workers=1)
    (record,) = run_tasks(numbered(tmp_path, 1, wait=0.001), workers=1)
    assert calls(tmp_path, 0) == 2
    assert record["identity"] == numbered(tmp_path, 1, wait=0.001)[0].identity


def test_what_killed_attempts_left_is_removed(tmp_path):
    (task,) = numbered(tmp_path, 1)
    partial = tmp_path / ".0.abcdef.partial"
    partial.mkdir()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / DONE).write_text("")  # as a power cut can leave it
    other = tmp_path / ".01.abcdef.partial"
    other.mkdir()
    run_tasks([task], workers=1)
    assert not partial.exists()
    assert other.exists()
    assert task.record() is not None


def test_two_attempts_at_once_leave_one_whole_folder(tmp_path, monkeypatch):
    (task,) = numbered(tmp_path, 1)
    rename = Path.rename

    def beaten(self, target):
        # another attempt ends just before ours is renamed
        monkeypatch.setattr(Path, "rename", rename)
        run_task(task)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", beaten)
    record = run_task(task)
    assert record == task.record()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_names_the_task_and_keeps_the_others(tmp_path, workers):
    bad = Task(key="bad", call="engine_steps:fail", args={"message": "oh"}, out=tmp_path / "bad")
    with pytest.raises(DataError, match=r"^bad: failed \(RuntimeError: oh\)"):
        run_tasks([*numbered(tmp_path, 2), bad], workers=workers)
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob(".*.partial"))
    assert all(task.record() for task in numbered(tmp_path, 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, workers):
    full = Task(key="unit 7", call="engine_steps:fill_disk", out=tmp_path / "full")
    with pytest.raises(DataError, match="unit 7: the disk of .* is full.*same command again"):
        run_tasks([full], workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_a_sentence_and_the_next_call_goes_on(tmp_path):
    dies = Task(key="heavy", call="engine_steps:die", out=tmp_path / "dies")
    with Processes(2) as runs:
        with pytest.raises(DataError, match="worker process died.*fewer --workers"):
            run_tasks([dies], on=runs)
        # the same executor starts new workers
        assert len(run_tasks(numbered(tmp_path, 2), on=runs)) == 2
    with pytest.raises(DataError, match="worker process died"):
        run_tasks([dies], workers=2)
    assert not (tmp_path / "dies").exists()


def test_folders_must_differ(tmp_path):
    task = numbered(tmp_path, 1)[0]
    with pytest.raises(ConfigError, match="two tasks write to"):
        run_tasks([task, task])


@pytest.mark.parametrize("on", ["spark", "ray:/x", ""])
def test_unknown_executors_are_named(on):
    with pytest.raises(ConfigError, match="expected local, ray or ray://host:port"):
        executor(on)


def test_workers_below_zero_are_refused():
    with pytest.raises(ConfigError, match="workers: expected 0"):
        executor("local", -1)
    assert isinstance(executor("local", 1), Here)


PARENT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from understudy.curate.engine.tasks import Task, run_tasks
if __name__ == "__main__":
    folder = Path({folder!r})
    run_tasks([Task(key=str(i), call="engine_steps:write_number", args={{"number": i, "wait": 60}},
               out=folder / str(i)) for i in range(2)], workers=2)
"""


def test_workers_leave_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=HERE, folder=str(tmp_path / "out")))
    process = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "out").glob("*.partial"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = _children(process.pid)
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while any(_alive(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()


def _children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_plain_form_returns():
    task = Task(key="k", call="a:b", args={"x": [1, 2]}, out=Path("there"))
    assert Task.from_plain(json.loads(json.dumps(task.to_plain()))) == task
