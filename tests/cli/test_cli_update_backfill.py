"""`understudy update plan`, `backfill` and `curve` from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from understudy.cli import main

sys.path.insert(0, str(Path(__file__).parent.parent / "update"))

from backfill_world import NEW_COLUMN, ToyEncoder, make_world, vector_of

from understudy.data.store import Store
from understudy.update.plan import read_plan


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A store, and the toy encoder under the name "toy"."""
    make_world(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(monkeypatch):
    import understudy.update.backfill_encoder as encoders

    def opened(store, plan, model, **options):
        assert model == "toy"
        return ToyEncoder()

    monkeypatch.setattr(encoders, "open_encoder", opened)


def test_plan_backfill_curve(world, toy, capsys):
    assert main(["update", "plan", "s", "--budget", "1.0", "--out", "p.parquet"]) == 0
    out = capsys.readouterr()
    assert "left to encode" in out.out
    assert "wrote p.parquet" in out.err
    run = ["update", "backfill", "s", "--plan", "p.parquet", "--model", "toy"]
    assert main([*run, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 60
    assert not Store.open("s").has(NEW_COLUMN)
    assert main([*run, "--limit", "25"]) == 0
    out = capsys.readouterr()
    assert "35 items of the plan are left" in out.err
    assert "wrote column 'embed.new' of s, version" in out.err
    assert main(["update", "curve", "s", "--labels", "label"]) == 2
    assert "35 of 60 labelled items have no vector" in capsys.readouterr().err
    assert main([*run, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["encoded"], result["left"], result["checked"]) == (35, 0, 25)
    draw = ["update", "curve", "s", "--labels", "label", "--plan", "p.parquet", "--points", "5"]
    assert main([*draw, "--dry-run"]) == 0
    assert not Path("curve").exists()
    assert main([*draw, "--orders", "plan", "random", "--groups", "brand"]) == 0
    out = capsys.readouterr()
    assert "AUC map" in out.out
    for name in ("curve.json", "curve.csv", "curve.png", "curve.html"):
        assert f"wrote curve/{name}" in out.err
    data = json.loads(Path("curve/curve.json").read_text())
    assert list(data["orders"]) == ["plan", "random"]
    assert data["plan"]["fingerprint"] == read_plan("p.parquet").fingerprint


def test_an_update_from_end_to_end(tmp_path, monkeypatch, capsys):
    """Encode, fit, apply, plan, backfill by a real model's name, curve."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(120) % 6
    texts = [f"item {label} number {i}" for i, label in enumerate(labels)]
    ids = [f"i{i:03d}" for i in range(120)]
    Store.create("s", [{"id": ids, "text": texts, "label": labels}])

    def run(line):
        assert main(["update", *line.split()]) == 0, capsys.readouterr().err
        return capsys.readouterr()

    run("encode s --model backfill_world:embed_old --name old --column text")
    run("encode s --model backfill_world:embed_new --name new --column text --sample 40")
    run(
        "fit s --old embed.old --new embed.new --loss l2+unc --inner 16 --epochs 6 --lr 0.01 "
        "--warmup-epochs 1 --batch-size 18 --out map"
    )
    run("apply s --map map")
    assert "80" in run("plan s").out
    backfill = "backfill s --plan plan.parquet --model backfill_world:embed_new"
    result = json.loads(run(f"{backfill} --limit 30 --json").out)
    assert (result["encoded"], result["left"], result["checked"]) == (30, 50, 32)
    assert json.loads(run(f"{backfill} --json").out)["left"] == 0
    store = Store.open("s")
    expected = np.stack([vector_of(text) for text in texts])
    assert np.array_equal(store.array(NEW_COLUMN), expected)
    assert store.card(NEW_COLUMN).rows_done == 120
    run("curve s --labels label --old embed.old --plan plan.parquet --points 5")
    data = json.loads(Path("curve/curve.json").read_text())
    assert data["items"] == 120
    assert data["cutoffs"][-1] == 80  # the sample that the map was fitted on is encoded
    assert data["old_old"]["map"] < data["orders"]["plan"]["metrics"]["map"][-1]
    wrong = ["update", *backfill.split()[:-1], "backfill_world:embed_old"]
    assert main(wrong) == 2
    assert "the plan backfills 'embed.new' in space" in capsys.readouterr().err


def test_dry_plan_writes_nothing(world, capsys):
    assert main(["update", "plan", "s", "--policy", "random", "--seed", "3", "--dry-run"]) == 0
    assert not Path("plan.parquet").exists()
    assert main(["update", "plan", "s", "--budget", "100items", "--json"]) == 0
    out = capsys.readouterr()
    assert "40 items of the budget are unspent" in out.err
    assert np.array_equal(read_plan("plan.parquet").rows.shape, [60])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("plan s --budget 50", "A budget is a fraction in [0, 1]"),
        ("plan s --budget nan", "not finite"),
        ("plan s --budget=-0.5", "negative"),
        ("plan s --policy uncertain", "Did you mean 'uncertainty'?"),
        ("plan s --new embed.none", "no column of vectors mapped to 'embed.none'"),
        ("backfill s --plan none.parquet --model toy", "no such plan"),
        ("curve s --labels label --points 1", "points must be at least 2"),
        ("curve s --labels nothing", "nothing"),
    ],
)
def test_bad_input_is_one_line(world, capsys, command, message):
    assert main(["update", *command.split()]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
