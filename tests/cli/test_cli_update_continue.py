"""`understudy update continue`: the last checkpoint, the new period, the state beside the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.data import scenes
from understudy.train.config import TrainConfig
from understudy.train.student import train_clip
from understudy.train.student_config import StudentConfig


@pytest.fixture
def world(tmp_path):
    store = scenes.to_store(
        "drifting-digits", tmp_path / "pairs", steps=3, train=30, test=6, size=16
    )
    config = StudentConfig(
        model="clip-conv-nano",
        changes={"image.image_size": 16},
        captions="real",
        lam=0.0,
        rows="time = 0 and split = 'train'",
        train=TrainConfig(steps=3, batch_size=8, lr=1e-3, device="cpu", checkpoint_every=3),
        vocab_size=520,
        workers=0,
    )
    run = train_clip(store, None, config, tmp_path / "runs" / "first").path
    return store.path, str(run)


def test_two_periods_and_the_state(world, capsys):
    store, run = world
    base = [store, "--method", "cumulative-exp", "--memory", "2"]
    assert main(["update", "continue", run, *base, "--period", "1"]) == 0
    out = capsys.readouterr().out
    second = Path(run).parent / "step-02-1"
    assert f"written: {second}" in out
    assert "stream.json" in out
    assert "retrieval" in out
    assert (second / "model.safetensors").exists()
    assert main(["update", "continue", str(second), *base, "--period", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(second.parent / "step-03-2")
    assert found["iterations"] == 3
    assert found["replayed"] == {"0": 30, "1": 30}
    assert set(found["scores"]["retrieval"]) == {"0", "1", "2"}
    state = json.loads((second.parent / "stream.json").read_text())
    assert [step["name"] for step in state["steps"]] == ["0", "1", "2"]
    # the same command again has nothing to do
    assert main(["update", "continue", str(second), *base, "--period", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_dry_run_prints_the_cost(world, capsys):
    store, run = world
    argv = ["update", "continue", run, store, "--period", "2", "--dry-run"]
    assert main([*argv, "--method", "cumulative-all", "--budget", "2"]) == 0
    out = capsys.readouterr().out
    assert "rows of the period" in out
    assert "rows replayed" in out
    assert "FLOP" in out
    assert "nothing has been written" in out
    assert not (Path(run).parent / "stream.json").exists()
    assert main([*argv, "--json", "--memory", "0.5"]) == 0
    rows = {r["label"]: r["value"] for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["iterations"] == 3
    assert rows["rows replayed"] == rows["capacity for old rows"] == 15


def test_bad_input(world, capsys):
    store, run = world

    def refused(*argv):
        assert main(["update", "continue", *argv]) == 2
        return capsys.readouterr().err

    assert "name the last run and the store first" in refused(run)
    assert "no time step '7'; the stream has 0, 1, 2" in refused(run, store, "--period", "7")
    assert "'fancy' is not one of oracle" in refused(
        run, store, "--period", "1", "--method", "fancy"
    )
    assert "no column 'date'" in refused(run, store, "--period", "1", "--column", "date")
    assert "30 rows are fewer than a batch of 512" in refused(
        run, store, "--period", "1", "--batch-size", "512"
    )
    assert "a capacity of 1 samples for 2 old steps" in refused(
        run, store, "--period", "2", "--capacity", "1"
    )
    assert "no such run's folder" in refused(run + "x", store, "--period", "1", "--dry-run")
    (Path(run) / "model.safetensors").unlink()
    assert "it has no finished weights" in refused(run, store, "--period", "1")


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["update", "continue", "--help"])
    text = capsys.readouterr().out
    assert "--period" in text
    assert "--memory" in text
