"""`understudy ui` as a process: what it prints, who gets in, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest


@pytest.fixture
def started(tmp_path):
    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "understudy", "ui", "--home", str(tmp_path), "--port", "0",
             *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        made.append(process)
        return process

    made: list[subprocess.Popen] = []
    yield start
    for process in made:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_lets_in_who_has_the_address_and_ends_well(started, how):
    process = started("--json")
    facts = json.loads(process.stdout.readline())
    assert facts["url"].startswith("http://127.0.0.1:")
    with pytest.raises(HTTPError) as error:
        urllib.request.urlopen(facts["url"] + "/jobs", timeout=10)
    assert error.value.code == 401
    answer = urllib.request.urlopen(facts["login"], timeout=10)
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    request = urllib.request.Request(facts["url"] + "/jobs", headers={"Cookie": cookie})
    assert "<h1>Jobs</h1>" in urllib.request.urlopen(request, timeout=10).read().decode()
    process.send_signal(how)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert err.strip() == "stopped"
    assert "token" not in out + err


def test_the_address_is_printed_once_and_only_loopback_listens(started):
    process = started()
    line = process.stdout.readline()
    found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/login\?token=[\w-]{43})\n", line)
    assert found
    port = urlsplit(found[1]).port
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    assert connection.getresponse().read() == b"ok\n"
    listening = "".join(open(f"/proc/{process.pid}/net/tcp").readlines())
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_bad_options_are_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "ui", "--home", str(tmp_path), "--stores", "/none"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "understudy: stores: there is no folder '/none'.\n"
