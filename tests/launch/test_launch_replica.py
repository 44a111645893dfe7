"""The wrapper inside a job, and the log files that it writes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from contract import alive, until
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.files import write_json
from understudy.launch.replica_files import ReplicaFiles, take_lock
from understudy.launch.replica_logs import LogReader, LogWriter, segments


def plan(folder: Path, *command: str, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    marks = {
        "UNDERSTUDY_JOB_ID": f"j{random.random()}",
        "UNDERSTUDY_ATTEMPT": "1",
        "UNDERSTUDY_REPLICA": "0",
        "PATH": os.environ["PATH"],
    }
    facts = {
        "job": "j", "attempt": 1, "rank": 0, "role": "main", "command": list(command),
        "cwd": str(folder), "secrets": [], "secrets_folder": "", "python": None, "gpus": [],
        "grace_s": 5, "heartbeat_s": 0.1, "segment_bytes": 10_000, "segments": 4, "wake": "",
        "tee": False, "env": marks, **changes,
    }  # fmt: skip
    write_json(folder / "replica.json", facts)
    return folder


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "understudy.launch.run_replica", str(folder)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(folder: Path) -> dict:
    process = start(folder)
    process.communicate(timeout=30)
    found = ReplicaFiles(folder).exit()
    assert found is not None
    assert process.returncode == found["code"]
    return found


def shell(folder: Path, text: str, **changes) -> Path:
    return plan(folder, "sh", "-c", text, **changes)


def texts(folder: Path) -> list[str]:
    return [line.text for line in LogReader(folder).read()]


def test_it_tells_what_it_ran_and_how_it_ended(tmp_path):
    code = (
        "import sys; x = bytearray(50_000_000); print('out'); print('err', file=sys.stderr); "
        "sys.exit(3)"
    )
    found = run(plan(tmp_path, sys.executable, "-c", code))
    assert (found["code"], found["signal"], found["reason"]) == (3, "", "exit code 3")
    assert 50 < found["max_rss_mb"] < 500
    assert found["cpu_s"] > 0
    assert found["end"] >= found["start"]
    begun = ReplicaFiles(tmp_path).start()
    assert begun["host"]
    assert begun["child"] not in (None, begun["pid"])
    assert len(begun["env_hash"]) == 32
    assert sorted(texts(tmp_path)) == ["err", "out"]
    assert not ReplicaFiles(tmp_path).alive()


def test_it_runs_once_however_often_it_is_started(tmp_path):
    shell(tmp_path, "echo x >> runs; sleep 0.3")
    processes = [start(tmp_path) for _ in range(4)]
    assert [p.wait(30) for p in processes] == [0] * 4
    assert start(tmp_path).wait(30) == 0
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_replica_that_is_forbidden_never_begins(tmp_path):
    shell(tmp_path, "echo x > ran")
    assert ReplicaFiles(tmp_path).forbid()
    assert start(tmp_path).wait(30) == 0
    assert not (tmp_path / "ran").exists()
    assert ReplicaFiles(tmp_path).start() is None
    other = shell(tmp_path / "b", "true")
    run(other)
    assert not ReplicaFiles(other).forbid()
    handle = take_lock(tmp_path / "c")
    assert handle is not None
    os.close(handle)


def test_term_is_handed_on_and_then_kill(tmp_path):
    polite = shell(
        tmp_path / "a", "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.02; done"
    )
    deaf = shell(tmp_path / "b", "trap '' TERM; echo up; while :; do sleep 0.02; done", grace_s=0.3)
    processes = [start(polite), start(deaf)]
    for folder, process in zip((polite, deaf), processes, strict=True):
        until(lambda folder=folder: "up" in texts(folder))
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(30)
    end = ReplicaFiles(polite).exit()
    assert (end["code"], end["stopped_by"], end["killed"]) == (4, "TERM", False)
    assert "bye" in texts(polite)
    end = ReplicaFiles(deaf).exit()
    assert (end["code"], end["signal"], end["killed"]) == (137, "KILL", True)
    assert end["reason"] == "killed 0.3 s after TERM"


def test_what_is_stopped_before_it_can_hear_of_it_does_not_begin(tmp_path):
    folder = shell(tmp_path / "rank-0", "echo x > ran")
    (tmp_path / "stop.json").write_text('{"grace_s": 1}')
    end = run(folder)
    assert (end["code"], end["stopped_by"]) == (143, "TERM")
    assert end["reason"] == "stopped by TERM before its command began"
    assert not (folder / "ran").exists()


def test_a_signal_for_a_checkpoint_reaches_only_those_who_expect_it(tmp_path):
    # the shell in front has no handler and would end
    inner = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (os.write(1, b'saved\\n'), sys.exit(0)))\n"
        # not print: the signal may come inside of it, and a handler must not print again
        "os.write(1, b'up\\n')\n"
        "time.sleep(60)"
    )
    (tmp_path / "inner.py").write_text(inner)
    folder = shell(tmp_path / "r", f"setsid -w {sys.executable} {tmp_path}/inner.py; echo shell $?")
    process = start(folder)
    until(lambda: "up" in texts(folder))
    process.send_signal(signal.SIGUSR1)
    process.wait(30)
    assert texts(folder) == ["up", "saved", "shell 0"]


def test_the_command_dies_with_a_killed_wrapper(tmp_path):
    folder = shell(tmp_path, "echo up; exec sleep 60")
    process = start(folder)
    until(lambda: "up" in texts(folder))
    child = ReplicaFiles(folder).start()["child"]
    process.kill()
    process.wait(30)
    until(lambda: not alive(child), "the command is dead")
    assert ReplicaFiles(folder).exit() is None
    assert not ReplicaFiles(folder).alive()


def test_what_cannot_start_says_why(tmp_path):
    found = run(plan(tmp_path, "no-such-program"))
    assert found["code"] == 127
    assert "No such file or directory" in found["reason"]
    assert "the command cannot start" in texts(tmp_path)[0]
    found = run(plan(tmp_path / "s", "true", secrets=["X"], secrets_folder=str(tmp_path)))
    assert "secret 'X' has no file" in found["reason"]


def test_it_wakes_the_controller_and_beats(tmp_path):
    pipe = tmp_path / "wake"
    os.mkfifo(pipe)
    handle = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    folder = shell(tmp_path / "r", "sleep 0.5", wake=str(pipe))
    process = start(folder)
    until(lambda: (folder / "heartbeat").exists())
    first = (folder / "heartbeat").stat().st_mtime
    until(lambda: (folder / "heartbeat").stat().st_mtime > first, "another beat")
    process.wait(30)
    assert os.read(handle, 10) == b"rr"
    os.close(handle)


def test_it_may_also_print_the_output(tmp_path):
    process = start(shell(tmp_path, "echo hello", tee=True))
    assert process.communicate(timeout=30)[0] == "hello\n"


def test_a_python_environment_is_made_from_wheels_alone(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tinything-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinything.py", "VALUE = 17\n")
        info = "tinything-1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.2\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    (tmp_path / "lock.txt").write_text("tinything==1.2\n")
    python = {
        "lock": str(tmp_path / "lock.txt"),
        "wheelhouse": str(wheels),
        "root": str(tmp_path / "e"),
    }
    words = ("python", "-c", "import tinything; print(tinything.VALUE)")
    found = run(plan(tmp_path / "a", *words, python=python))
    assert found["code"] == 0, texts(tmp_path / "a")
    assert texts(tmp_path / "a")[-1] == "17"
    begun = time.monotonic()
    run(plan(tmp_path / "b", *words, python=python))  # made once
    assert texts(tmp_path / "b") == ["17"]
    assert time.monotonic() - begun < 10
    (tmp_path / "lock.txt").write_text("tinything==9\n")
    found = run(plan(tmp_path / "c", *words, python=python))
    assert "cannot be installed" in found["reason"]


# -- logs


def test_following_over_rotation_loses_and_repeats_nothing(tmp_path):
    count, writer = 5000, LogWriter(tmp_path, segment_bytes=3000, keep=10_000)

    def write():
        draw = random.Random(0)
        data = b"".join(b"line %d\n" % i for i in range(count))
        while data:
            n = draw.randrange(1, 400)
            writer.feed("o", data[:n])
            data = data[n:]
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    reader, seen = LogReader(tmp_path), []
    while thread.is_alive() or not seen or seen[-1].seq < count:
        seen += reader.read()
    thread.join()
    assert [line.text for line in seen] == [f"line {i}" for i in range(count)]
    assert [line.seq for line in seen] == list(range(1, count + 1))
    assert len(segments(tmp_path)) > 20
    assert reader.read() == []


def test_old_files_go_and_readers_are_told(tmp_path):
    writer = LogWriter(tmp_path, segment_bytes=500, keep=3)
    for i in range(200):
        writer.feed("o", b"%d\n" % i)
    writer.close()
    assert len(segments(tmp_path)) == 3
    lines = LogReader(tmp_path).read()
    assert lines[0].stream == "note"
    assert lines[0].text.startswith(f"[{lines[1].seq - 1} lines are gone")
    assert [line.text for line in lines[1:]] == [str(i) for i in range(lines[1].seq - 1, 200)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("oe"), st.binary(max_size=40)), max_size=30))
def test_streams_are_cut_into_lines_wherever_they_are_cut(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("logs")
    writer = LogWriter(folder, segment_bytes=200, keep=1000)
    for stream, data in parts:
        writer.feed(stream, data)
    writer.close()
    lines = LogReader(folder).read()
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    for stream, name in (("o", "stdout"), ("e", "stderr")):
        whole = b"".join(data for s, data in parts if s == stream)
        expected = [part.removesuffix(b"\r") for part in whole.split(b"\n")]
        if whole.endswith(b"\n") or not whole:
            expected.pop()
        found = [line.text for line in lines if line.stream == name]
        assert found == [part.decode("utf-8", "replace") for part in expected]


def test_long_lines_are_cut_and_secrets_hidden(tmp_path):
    writer = LogWriter(tmp_path)
    writer.hide(["hunter2", ""])
    writer.feed("o", b"x" * 150_000 + b"\npw=hunter2\n")
    writer.close()
    lines = texts(tmp_path)
    assert [len(line) for line in lines[:-1]] == [65_536, 65_536, 18_928]
    assert lines[-1] == "pw=***"


def test_a_full_disk_costs_lines_not_the_job(tmp_path, monkeypatch):
    writer = LogWriter(tmp_path, keep=1000)
    writer.feed("o", b"first\n")
    real = os.write

    def full(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.feed("o", b"lost\nlost\n")
    monkeypatch.setattr(os, "write", real)
    writer.feed("o", b"last\n")
    writer.close()
    assert writer.dropped == 2
    lines = LogReader(tmp_path).read()
    assert [line.text for line in lines if line.seq] == ["first", "last"]
    assert "2 lines are gone" in lines[1].text


def test_the_end_is_written_on_a_full_disk_too(tmp_path, monkeypatch):
    from understudy.launch import replica_files

    for number in (1, 2, 3):
        (tmp_path / f"log-00000{number}.txt").write_text("x")
    real, tries = replica_files.write_json, []

    def full_at_first(path, data):
        tries.append(len(list(tmp_path.glob("log-*.txt"))))
        if tries[-1] == 3:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(replica_files, "write_json", full_at_first)
    replica_files.write_exit(tmp_path, {"code": 0})
    assert tries == [3, 2]
    assert ReplicaFiles(tmp_path).exit() == {"code": 0}


def test_a_half_written_end_is_no_end(tmp_path):
    (tmp_path / "exit.json").write_text('{"code": ')
    assert ReplicaFiles(tmp_path).exit() is None
    (tmp_path / "exit.json").write_text(json.dumps({"code": 0}))
    assert ReplicaFiles(tmp_path).exit() == {"code": 0}


@pytest.mark.parametrize("rows", ["0, 1000\n1, 500\n", ""])
def test_memory_of_accelerators_is_asked_from_their_tool(tmp_path, monkeypatch, rows):
    from understudy.launch import gpu

    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f'#!/bin/sh\ncase "$1" in *=name) printf "A100\\nA100\\n";; *) printf "{rows}";; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.types() == ("A100", "A100")
    assert gpu.used_mb([1]) == (500.0 if rows else None)
