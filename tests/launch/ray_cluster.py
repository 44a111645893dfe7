"""A Ray head for tests: a process group of its own, found again by a mark and ended by number."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

MARK = "UNDERSTUDY_TEST_RAY_HEAD"
START_S = 180.0
WORKER_PORTS = range(10002, 20000)
"""Ray's own; a head whose port lies there is refused."""
STORE_BYTES = 80_000_000
TOKEN = secrets.token_hex(32)
"""Ray reads a token once in a process, so all heads of one have the same."""


@dataclass
class Head:
    """A running head.

    Attributes:
        address: of its job server.
        port: of the head, for more nodes.
        environment: variables that name its token; whoever talks to it needs them.
        process: the program that started it, leader of its group.
        folder: its temporary folder.
    """

    address: str
    port: int
    environment: dict[str, str]
    process: subprocess.Popen
    folder: Path

    def stop(self) -> None:
        """End all its processes, and no other Ray's."""
        mark = self.environment[MARK]
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + 10
        while (left := marked(mark)) and time.monotonic() < end:
            for number in left:
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, left


def marked(mark: str) -> list[int]:
    """Return the processes that a head has started, at whatever remove."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [n for n in found if n != os.getpid()]


def free_ports(count: int) -> list[int]:
    """Return ports that are free now and that Ray's workers do not use."""
    probes, found = [], []
    while len(found) < count:
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        probes.append(probe)
        if probe.getsockname()[1] not in WORKER_PORTS:
            found.append(probe.getsockname()[1])
    for probe in probes:
        probe.close()
    return found


def ray_program() -> Path:
    return Path(sys.executable).parent / "ray"


def start_head(cpus: int = 2, gpus: int = 0) -> Head:
    """Start a head with a token of its own and wait until its job server answers."""
    # sockets have paths of at most 107 bytes: the folder's must be short
    folder = Path(tempfile.mkdtemp(prefix="ur", dir="/tmp"))
    token = folder / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        MARK: uuid.uuid4().hex,
    }
    port, dashboard, client = free_ports(3)
    words = [
        "--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--temp-dir={folder}/t",
    ]  # fmt: skip
    process = _start(folder, own, cpus, gpus, words)
    head = Head(f"http://127.0.0.1:{dashboard}", port, own, process, folder)
    try:
        _wait(head)
    except BaseException:
        print((folder / "ray.log").read_text())
        head.stop()
        raise
    return head


def start_node(head: Head, cpus: int, gpus: int = 0) -> subprocess.Popen:
    """Start another node of a head, on this machine; `head.stop` ends it too."""
    address = f"--address={socket.gethostbyname(socket.gethostname())}:{head.port}"
    return _start(head.folder, head.environment, cpus, gpus, [address])


def _start(folder: Path, own: dict, cpus: int, gpus: int, words: list[str]) -> subprocess.Popen:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | own
    env |= {"RAY_raylet_start_wait_time_s": str(int(START_S)), "OMP_NUM_THREADS": "1"}
    agent, agent_grpc, metrics = free_ports(3)
    words = [
        str(ray_program()), "start", "--block", *words, f"--num-cpus={cpus}", f"--num-gpus={gpus}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--metrics-export-port={metrics}", f"--object-store-memory={STORE_BYTES}",
        "--disable-usage-stats",
    ]  # fmt: skip
    with open(folder / "ray.log", "ab") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd="/",
            start_new_session=True,
        )  # fmt: skip


def _wait(head: Head) -> None:
    """Wait for the job server, and for the node to be there."""
    from understudy.core.errors import UnderstudyError
    from understudy.launch.engines.ray_link import RayLink

    end = time.monotonic() + START_S
    while True:
        assert head.process.poll() is None, "the head has ended"
        assert time.monotonic() < end, "the head does not answer"
        try:
            urllib.request.urlopen(f"{head.address}/api/version", timeout=5)
        except urllib.error.HTTPError:
            break  # it wants the token, so it is there
        except OSError:
            time.sleep(0.1)
            continue
        break
    before = {k: os.environ.get(k) for k in head.environment}
    os.environ.update({k: v for k, v in head.environment.items() if k != MARK})
    try:
        link = RayLink(head.address)
        while time.monotonic() < end:
            try:
                if link.cluster().nodes:
                    return
            except UnderstudyError:
                pass
            time.sleep(0.1)
        raise AssertionError("the head has no node")
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
