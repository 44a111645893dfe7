"""`--on ray` and `--on ray://HOST:PORT` on a real head: the same command, the same bytes."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "launch"))
sys.path.insert(0, str(Path(__file__).parents[1] / "reinforce"))
import workers_toys as toys
from ray_cluster import MARK, ray_program, start_head
from reinforce_world import make_store

from understudy.cli import main, on
from understudy.core.lazy import installed
from understudy.data.store import Store
from understudy.launch.engines import open_engine

pytestmark = [
    pytest.mark.skipif(
        not (installed("ray") and installed("aiohttp") and ray_program().exists()),
        reason='RAY IS NOT INSTALLED, --on ray IS NOT TESTED: pip install "understudy[ray]"',
    ),
    pytest.mark.timeout(300),
    pytest.mark.cluster,
]


@pytest.fixture(scope="module")
def head():
    found = start_head()
    yield found
    found.stop()


@pytest.fixture
def place(head, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
    for name, value in head.environment.items():
        if name != MARK:
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    engine = open_engine("ray")
    pid = engine.controller_pid()
    engine.close()
    if pid is not None:
        os.kill(pid, 9)


def client(head) -> str:
    """Return the address that `--on` takes."""
    words = [str(word) for word in head.process.args]
    port = next(w.partition("=")[2] for w in words if w.startswith("--ray-client-server-port"))
    return f"ray://127.0.0.1:{port}"


def test_reinforce_through_a_client_writes_what_one_process_writes(head, place):
    whole, store = make_store(place / "whole", 8), make_store(place / "s", 8)
    toys.write_config(place / "c.yaml")
    words = ["--config", "c.yaml"]
    assert main(["reinforce", "whole", *words]) == 0
    assert main(["reinforce", "s", *words, "--on", client(head), "--workers", "1:2"]) == 0
    opened = Store.open(store.path)
    assert opened.content_hash() == whole.refresh().content_hash()
    assert opened.verify() == []


def test_curate_through_a_client_writes_what_one_process_writes(head, place):
    (place / "pages.jsonl").write_text("".join(f'{{"text": "page {i}"}}\n' for i in range(20)))
    (place / "p.yaml").write_text("steps: [{name: page-length, min_words: 1}]\n")
    for name, more in (("here", ["--workers", "1"]), ("there", ["--on", client(head)])):
        words = ["curate", "pages.jsonl", name, "--pipeline", "p.yaml", *more]
        assert main(words) == 0
    assert len({Store.open(name).content_hash() for name in ("here", "there")}) == 1


@pytest.mark.parametrize("by", ["client", "variable"])
def test_a_command_tells_there_what_it_tells_here(head, place, capfd, monkeypatch, by):
    assert main(["recipes"]) == 0
    here = capfd.readouterr().out
    address = client(head) if by == "client" else ""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    assert on.run(on.On(where="ray", address=address), ["recipes"]) == 0
    assert capfd.readouterr().out == here
