"""Leases: one owner at a time, and none that is dead."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from understudy.core.errors import ConfigError
from understudy.core.leases import Leases


def test_a_claim_has_one_owner_until_it_is_let_go(tmp_path):
    with Leases(tmp_path) as one, Leases(tmp_path) as two:
        assert one.take("a-1")
        assert not two.take("a-1")
        assert two.take("b")
        one.release("a-1")
        assert two.take("a-1")
        assert not one.take("a-1")
    assert not list(tmp_path.iterdir())


def test_of_many_who_ask_at_once_one_gets_it(tmp_path):
    for number in range(20):
        leases = [Leases(tmp_path) for _ in range(6)]
        gate = threading.Barrier(6)
        got = []

        def ask(mine, gate=gate, got=got, number=number):
            gate.wait()
            got.append(mine.take(f"w{number}"))

        threads = [threading.Thread(target=ask, args=(mine,)) for mine in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(got) == 1
        for mine in leases:
            mine.close()


def test_a_dead_process_of_this_machine_has_no_claims(tmp_path):
    code = f"""
import os, signal
from understudy.core.leases import Leases
assert Leases({str(tmp_path)!r}).take("a")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.0"]
    with Leases(tmp_path) as mine:
        assert mine.take("a")
        with Leases(tmp_path) as other:
            assert not other.take("a")
        mine.release("a")
        assert not list(tmp_path.iterdir())  # that of the dead one went too


def test_a_silent_claim_of_another_machine_is_taken_over_after_its_lease(tmp_path):
    path = tmp_path / "a.0"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "1"}))
    with Leases(tmp_path, heartbeat_s=0.05, lease_s=0.3) as mine:
        began = time.monotonic()
        for _ in range(4):  # it lives: its file changes
            assert not mine.take("a")
            time.sleep(0.1)
            os.utime(path)
        while not mine.take("a"):
            time.sleep(0.01)
        # its clock may be off by hours: only changes count
        assert 0.6 < time.monotonic() - began < 5
        with Leases(tmp_path, heartbeat_s=0.05, lease_s=0.3) as other:
            for _ in range(10):  # ours is touched, so it stays
                assert not other.take("a")
                time.sleep(0.05)


def test_a_claim_that_is_being_written_is_respected(tmp_path):
    (tmp_path / "a.0").touch()
    with Leases(tmp_path) as mine:
        assert not mine.take("a")


def test_bad_input(tmp_path):
    with pytest.raises(ConfigError, match="lease_s: expected at least twice heartbeat_s"):
        Leases(tmp_path, heartbeat_s=10, lease_s=15)
    with Leases(tmp_path) as mine, pytest.raises(ConfigError, match="lease 'a/b'"):
        mine.take("a/b")
