"""Replicas that do not see one folder of jobs, and clocks that differ."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from contract import until
from test_launch_replica import plan, texts

from understudy.core.errors import DataError
from understudy.core.files import write_json
from understudy.launch.clocks import clock_warnings
from understudy.launch.replica_files import START, ReplicaFiles, clock_skew_s
from understudy.launch.shared_folder import leave_token, meet, sees, token

RUN = """
import sys, pathlib
from understudy.launch import shared_folder
from understudy.launch.replica import run_replica
shared_folder.WAIT_S = float(sys.argv[2])
sys.exit(run_replica(pathlib.Path(sys.argv[1])))
"""


def start(attempt: Path, rank: int, wait_s: float = 30.0) -> subprocess.Popen:
    """Start the wrapper of one of two replicas, as a machine that sees `attempt` would."""
    folder = plan(attempt / f"rank-{rank}", "sh", "-c", "touch ../ran-$UNDERSTUDY_REPLICA",
                  rank=rank, gang=2)  # fmt: skip
    facts = (folder / "replica.json").read_text()
    mark = '"UNDERSTUDY_REPLICA": '
    (folder / "replica.json").write_text(facts.replace(f'{mark}"0"', f'{mark}"{rank}"'))
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(wait_s)])


def end(process: subprocess.Popen, attempt: Path, rank: int) -> dict:
    process.wait(30)
    found = ReplicaFiles(attempt / f"rank-{rank}").exit()
    assert found is not None
    assert process.returncode == found["code"]
    return found


def test_ranks_that_share_a_folder_meet_at_once(tmp_path):
    begun = time.monotonic()
    peers = [threading.Thread(target=meet, args=(tmp_path, "j", rank)) for rank in (2, 1, 0)]
    for peer in peers:
        peer.start()
    for peer in peers:
        peer.join()
    assert time.monotonic() - begun < 1.0
    assert all(sees(tmp_path, "j", rank) for rank in range(3))


def test_a_folder_that_is_not_shared_is_named_with_rank_and_host(tmp_path):
    meet(tmp_path / "a", "j", 0)
    words = f"rank 3 on {socket.gethostname()} does not see .* rank 0 .*{tmp_path}/b/tokens"
    with pytest.raises(DataError, match=words):
        meet(tmp_path / "b", "j", 3, wait_s=0.05)
    # told to end: no verdict
    meet(tmp_path / "b", "j", 3, wait_s=60, stopped=lambda: True)


def test_tokens_of_other_jobs_and_half_tokens_do_not_count(tmp_path):
    assert not sees(tmp_path, "j", 0)
    leave_token(tmp_path, "other", 0)
    assert not sees(tmp_path, "j", 0)
    token(tmp_path, 0).write_text('{"job": "j", "ra')
    assert not sees(tmp_path, "j", 0)
    token(tmp_path, 0).write_text("[]")
    assert not sees(tmp_path, "j", 0)
    leave_token(tmp_path, "j", 0)
    assert sees(tmp_path, "j", 0)


def test_a_replica_on_a_private_disk_fails_before_its_command(tmp_path):
    shared, private = tmp_path / "shared" / "attempt-1", tmp_path / "private" / "attempt-1"
    first, second = start(shared, 0), start(private, 1, wait_s=0.3)
    assert end(first, shared, 0)["code"] == 0
    found = end(second, private, 1)
    assert found["code"] == 127
    assert "rank 1 on" in found["reason"]
    assert f"{private}/tokens" in found["reason"]
    assert any("is not shared" in line for line in texts(private / "rank-1"))
    assert (shared / "ran-0").exists()
    assert not (private / "ran-1").exists()


def test_a_replica_waits_for_a_late_first_one_and_its_clock_is_not_blamed(tmp_path):
    late = start(tmp_path, 1)
    files = ReplicaFiles(tmp_path / "rank-1")
    until(files.begun, "begun")
    time.sleep(1.0)
    assert not (tmp_path / "ran-1").exists()
    assert end(start(tmp_path, 0), tmp_path, 0)["code"] == 0
    assert end(late, tmp_path, 1)["code"] == 0
    assert (tmp_path / "ran-1").exists()
    # start.json is written again when the command has begun, a second after the first time
    assert abs(clock_skew_s(files)[0]) < 0.5


def test_a_replica_that_waits_can_be_stopped(tmp_path):
    process = start(tmp_path, 1)
    until((tmp_path / "tokens" / "rank-1.json").exists, "it waits")
    process.send_signal(signal.SIGTERM)
    found = end(process, tmp_path, 1)
    assert (found["code"], found["stopped_by"]) == (143, "TERM")
    assert "before its command began" in found["reason"]


def off(folder: Path, host: str, skew_s: float) -> ReplicaFiles:
    """Make a replica whose clock is ahead of the file system's."""
    written = write_json(folder / START, {"time": 1000.0 + skew_s, "host": host})
    os.utime(written, (1000.0, 1000.0))
    return ReplicaFiles(folder)


@pytest.mark.parametrize(
    ("skews", "expected"),
    [
        ([0.2, -0.3], []),
        ([4.9], []),
        ([5.1, 0.0], ["the clock of h0 (rank 0) is +5.1 s off"]),
        ([-7.0, 9.0], ["clock of h0 (rank 0) is -7.0 s off", "clock of h1 (rank 1) is +9.0 s off"]),
        ([3.0, 0.0, -3.0], ["the clocks of h0 (rank 0) and h2 (rank 2) are 6.0 s apart"]),
    ],
)
def test_clocks_that_differ_are_told_of(tmp_path, skews, expected):
    replicas = {r: off(tmp_path / str(r), f"h{r}", skew) for r, skew in enumerate(skews)}
    found = clock_warnings(replicas)
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text
        assert "ordered by number, not by time" in text


def test_a_replica_that_has_not_begun_has_no_clock(tmp_path):
    assert clock_warnings({0: ReplicaFiles(tmp_path)}) == []
