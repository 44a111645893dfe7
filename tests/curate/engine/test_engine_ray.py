"""Ray: the same store as local workers write, and nothing left of a start that fails.

Starting Ray takes half a minute of a busy machine, so this is for `make test-clusters`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from understudy.core import ray_session
from understudy.core.errors import ConfigError, MissingExtraError
from understudy.core.lazy import installed
from understudy.curate.engine.pipeline import Pipeline
from understudy.data.store import Store

sys.path.insert(0, str(Path(__file__).parent))
from engine_steps import write_input

STEPS = [
    {"name": "engine_steps:AtLeast", "chars": 7},
    "engine_steps:FirstOnly",
    "engine_steps:WordCount",
]

needs_ray = pytest.mark.skipif(
    not installed("ray"), reason="RAY IS NOT INSTALLED, --on ray IS NOT TESTED: pip install ray"
)


def ray_processes():
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{ray_session.OWNER}=".encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found - {os.getpid()}


@needs_ray
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_ray_writes_the_store_that_local_workers_write(tmp_path):
    pages = write_input(tmp_path / "pages")
    Pipeline(STEPS).run(pages, tmp_path / "local", workers=1)
    report = Pipeline(STEPS).run(pages, tmp_path / "ray", on="ray", workers=2)
    assert report.tasks == 13
    hashes = {Store.open(tmp_path / n).content_hash() for n in ("local", "ray")}
    assert len(hashes) == 1
    # errors come back as they are, and the cluster goes
    with pytest.raises(Exception, match="engine_steps:breaks: page .* failed .RuntimeError"):
        Pipeline(["engine_steps:breaks"]).run(pages, tmp_path / "bad", on="ray", workers=2)
    deadline = time.monotonic() + 60
    while ray_processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_processes()


class FakeRay:
    """A Ray whose node starts agents and then fails."""

    def __init__(self):
        self.children = []

    def is_initialized(self):
        return False

    def init(self, **options):
        # one that hangs on to the driver, and one that has lost its parent
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        self.children.append(subprocess.Popen(sleep))
        orphan = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
        subprocess.run([sys.executable, "-c", orphan, *sleep], check=True)
        assert len(ray_processes()) >= 2
        raise TimeoutError("the node did not start\nin time")

    def shutdown(self):
        pass


def test_a_start_that_fails_is_a_sentence_and_leaves_no_process(tmp_path, monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(ray_session, "require", lambda *names: fake)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        pages = write_input(tmp_path / "pages", files=1, pages=2)
        with pytest.raises(
            ConfigError,
            match=r"Ray could not be started at this machine \(TimeoutError: the node did not",
        ):
            Pipeline(["engine_steps:upper"]).run(pages, tmp_path / "s", on="ray")
        assert fake.children[0].wait(10) < 0
        deadline = time.monotonic() + 10
        while ray_processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not ray_processes()
        assert other.poll() is None  # what is not Ray's lives
        assert ray_session.OWNER not in os.environ
    finally:
        other.kill()
        for child in fake.children:
            child.kill()


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    pages = write_input(tmp_path / "pages", files=1, pages=2)
    with pytest.raises(MissingExtraError, match=r'pip install "understudy\[ray\]"'):
        Pipeline(["engine_steps:upper"]).run(pages, tmp_path / "s", on="ray")
