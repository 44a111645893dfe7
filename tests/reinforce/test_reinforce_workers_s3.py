"""A store on an object store: written, reinforced by several, read, verified at an s3:// address.

The server is moto's, a program of its own: `moto_server` on the path, or `$UNDERSTUDY_MOTO_SERVER`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import workers_toys as toys
from reinforce_world import make_store, rows

from understudy.core.errors import DataError
from understudy.data.store import Store
from understudy.data.store_files import Files, s3_arguments
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce
from understudy.reinforce.shared import SharedWork

CONFIG = ReinforceConfig.from_dict(toys.plain_config())
SERVER = os.environ.get("UNDERSTUDY_MOTO_SERVER") or shutil.which(
    "moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
needs_server = pytest.mark.skipif(
    not SERVER, reason="NO S3 SERVER, s3:// STORES ARE NOT TESTED: pip install 'moto[s3,server]'"
)


def ask(url: str, method: str = "GET") -> None:
    # the server wants to see that a request is signed, not by whom
    scope = "x/20260101/us-east-1/s3/aws4_request"
    signed = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x"
    request = urllib.request.Request(url, method=method, headers={"Authorization": signed})
    urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture(scope="module")
def server():
    assert SERVER
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                ask(f"http://127.0.0.1:{port}/moto-api/")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        ask(f"http://127.0.0.1:{port}/bucket", "PUT")
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def options(server):
    return {
        "access_key_id": "x",
        "secret_access_key": "y",
        "region": "us-east-1",
        "endpoint": server,
        "allow_http": "true",
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("whole") / "s", 12)
    reinforce(store, CONFIG)
    return store.content_hash()


@pytest.mark.cluster
@needs_server
def test_a_store_on_an_object_store_has_the_same_content(options, expected):
    store = Store.create("s3://bucket/some/store", [rows(12)], storage_options=options)
    reinforce(store, CONFIG)
    opened = Store.open("s3://bucket/some/store", storage_options=options)
    assert opened.content_hash() == expected
    assert opened.verify() == []
    assert opened.info()["num_rows"] == 12
    assert "old versions removed" in opened.compact()
    assert opened.refresh().content_hash() == expected
    with pytest.raises(DataError, match="there is a store already"):
        Store.create("s3://bucket/some/store", [rows(1)], storage_options=options)
    with pytest.raises(DataError, match="s3://bucket/none: the store cannot be opened"):
        Store.open("s3://bucket/none", storage_options=options)


@pytest.mark.cluster
@needs_server
def test_several_runs_share_one_on_an_object_store(tmp_path, options, expected):
    Store.create("s3://bucket/shared", [rows(12)], storage_options=options)
    reports = []

    def run():
        store = Store.open("s3://bucket/shared", storage_options=options)
        with SharedWork(tmp_path / "share", poll_s=0.02) as filler:
            reports.append(reinforce(store, CONFIG, filler=filler))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened = Store.open("s3://bucket/shared", storage_options=options)
    assert opened.content_hash() == expected
    assert len(reports) == 2
    assert sum(report.computed for report in reports) == 3 * 12


@pytest.mark.cluster
@needs_server
def test_the_command_finds_the_server_through_the_environment(tmp_path, options, expected):
    Store.create("s3://bucket/typed", [rows(12)], storage_options=options)
    config = toys.write_config(tmp_path / "c.yaml")
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(toys.__file__).parent),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": options["endpoint"],
        "AWS_ALLOW_HTTP": "true",
    }
    words = ["reinforce", "s3://bucket/typed", "--config", str(config)]
    command = [sys.executable, "-m", "understudy", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    opened = Store.open("s3://bucket/typed", storage_options=options)
    assert opened.content_hash() == expected


@pytest.mark.cluster
@needs_server
def test_small_files(options):
    files = Files("s3://bucket/files", options=options)
    assert files.names("a") == []
    assert files.size("a/x") is None
    files.write("a/x", b"one")
    files.write("a/x", b"other")
    assert (files.names("a"), files.size("a/x"), files.read("a/x")) == (["x"], 5, b"other")
    assert files.folders("") == ["a"]
    files.delete("a/x")
    files.delete("a/x")
    assert files.names("a") == []


def test_arguments_of_both_clients_mean_the_same():
    assert s3_arguments(
        {"aws_access_key_id": "a", "AWS_SECRET_ACCESS_KEY": "b", "endpoint": "http://h:9/"},
        {"AWS_ENDPOINT_URL": "https://other", "AWS_DEFAULT_REGION": "r", "AWS_SESSION_TOKEN": "t"},
    ) == {
        "access_key": "a",
        "secret_key": "b",
        "session_token": "t",
        "region": "r",
        "scheme": "http",
        "endpoint_override": "h:9",
    }
    # Arrow refuses half of a pair; without one it looks for credentials itself
    assert s3_arguments({"access_key_id": "a"}, {}) == {}
    assert s3_arguments({}, {"AWS_ENDPOINT_URL": "h:9"}) == {"endpoint_override": "h:9"}
