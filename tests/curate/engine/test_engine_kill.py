"""Runs that fail, are killed, or meet another one: nothing half is left, and they go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from engine_steps import write_input

from understudy.core.errors import DataError
from understudy.curate.engine.pipeline import Pipeline
from understudy.curate.engine.workplace import Workplace
from understudy.data.store import Store

HERE = Path(__file__).parent
STEPS = [
    {"name": "engine_steps:measure"},
    {"name": "engine_steps:AtLeast", "chars": 7},
    "engine_steps:FirstOnly",
    "engine_steps:upper",
    "commit",
    "engine_steps:WordCount",
]


def run(inputs, store, steps=STEPS, **options):
    return Pipeline(steps).run(inputs, store, **{"workers": 1, **options})


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("run") / "pages")


def test_removing_the_work_folder_can_be_stopped_at_any_moment(pages, tmp_path, monkeypatch):
    run([pages], tmp_path / "s", keep_work=True)
    work = tmp_path / "s.curate"
    removed, remove = [], shutil.rmtree
    for stop in range(1, 6):
        left = stop

        def stopping(path, *more, **options):
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            removed.append(path)
            remove(path, *more, **options)

        monkeypatch.setattr(shutil, "rmtree", stopping)
        try:
            run([pages], tmp_path / "s")
        except KeyboardInterrupt:
            assert (work / ".lock").exists()
        else:
            break
    assert removed
    assert not work.exists()


def test_a_failure_is_marked_and_mended(pages, tmp_path):
    steps = [*STEPS[:2], "commit", "engine_steps:breaks"]
    with pytest.raises(DataError, match="engine_steps:breaks: page .* of part-0.jsonl failed"):
        run([pages], tmp_path / "s", steps)
    state = json.loads((tmp_path / "s.curate" / "state.json").read_text())
    assert state["state"] == "failed"
    assert "engine_steps:breaks" in state["error"]
    assert not list((tmp_path / "s.curate").rglob("*.partial"))
    stats = (tmp_path / "s.curate" / "global_stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in stats] == [0, 1, 2]
    report = run([pages], tmp_path / "s", [*STEPS[:2], "commit", "engine_steps:upper"])
    assert report.resumed == 3


def test_a_full_disk_leaves_no_half_unit(pages, tmp_path, monkeypatch):
    from understudy.curate.engine import work

    def full(folder, batches, schema):
        (Path(folder) / "pages.arrow").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(work, "write_pages", full)
        with pytest.raises(DataError, match="part-0.jsonl: the disk of .* is full"):
            run([pages], tmp_path / "s")
    left = [p.name for p in (tmp_path / "s.curate").rglob("*") if p.is_file()]
    assert sorted(left) == [".lock", "state.json"]
    assert json.loads((tmp_path / "s.curate" / "state.json").read_text())["state"] == "failed"
    run([pages], tmp_path / "s")
    run([pages], tmp_path / "t")
    hashes = {Store.open(tmp_path / n).content_hash() for n in "st"}
    assert len(hashes) == 1


def test_two_runs_do_not_share_a_work_folder(pages, tmp_path):
    with Workplace(tmp_path / "s.curate"):
        with pytest.raises(DataError, match="another run is at work there"):
            run([pages], tmp_path / "s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="is not empty and no work folder"):
        run([pages], tmp_path / "s", work=str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.txt").exists()


def start(pages, store, pipeline, workers):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "understudy", "curate", pages, store, "--pipeline", pipeline]
    return subprocess.Popen(
        [*map(str, command), "--workers", str(workers)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("workers", "targets"), [(1, (6,)), (2, (1, 10))])
def test_killed_and_resumed_the_store_is_the_same(tmp_path, workers, targets):
    pages = write_input(tmp_path / "pages", files=4)
    steps = [*STEPS, {"name": "engine_steps:slow", "seconds": 0.004}]
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(yaml.safe_dump(steps))
    run([pages], tmp_path / "whole", steps)
    store, kills = tmp_path / "s", 0
    for target in targets:
        process = start(pages, store, pipeline, workers)
        while process.poll() is None:
            # walked, as folders are renamed meanwhile
            if sum("_done.json" in f for _, _, f in os.walk(tmp_path / "s.curate")) >= target:
                break
            time.sleep(0.005)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills == len(targets)
    process = start(pages, store, pipeline, workers)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert Store.open(store).content_hash() == Store.open(tmp_path / "whole").content_hash()
    assert not (tmp_path / "s.curate").exists()
