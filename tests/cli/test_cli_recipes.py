"""`understudy recipes|run|verify|plan` for the reinforcement recipes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from understudy import models
from understudy.cli import main
from understudy.data import scenes
from understudy.evaluate.claims import AtLeast
from understudy.recipes import dataset_reinforcement, mobileclip


def test_recipes_are_listed_with_their_papers(capsys):
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert "dataset-reinforcement" in text
    assert "2311.17049" in text
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name": "mobileclip", "arxiv": "2311.17049"}.items() <= next(
        entry for entry in listed if entry["name"] == "mobileclip"
    ).items()


@pytest.mark.parametrize("name", ["dataset-reinforcement", "mobileclip"])
def test_a_recipe_explains_itself(capsys, name):
    assert main(["recipes", "show", name]) == 0
    text = capsys.readouterr().out
    assert f"understudy run {name} STORE" in text
    assert f"understudy verify {name}" in text
    assert "seeds:   11, 12, 13, 14, 15" in text
    assert "failure:" in text


def test_plan_prints_the_published_parameters(capsys):
    assert main(["plan", "mobileclip", "--model", "mobileclip-s0", "--scale", "paper"]) == 0
    text = capsys.readouterr().out
    assert "11,356,992" in text
    assert "42,435,072" in text
    assert main(["plan", "dataset-reinforcement", "--json", "--price-per-hour", "0"]) == 0
    plan = json.loads(capsys.readouterr().out)
    rows = {row["label"]: row["value"] for row in plan["rows"]}
    assert rows["records"] == 512_466_800
    assert rows["money"] == 0


def test_bad_input_recipe(capsys):
    assert main(["plan", "mobileclipp"]) == 2
    assert "Did you mean mobileclip" in capsys.readouterr().err
    assert main(["plan", "mobileclip", "--scale", "huge"]) == 2
    assert "'huge' is not one of paper" in capsys.readouterr().err
    assert main(["run"]) == 2
    assert "name a recipe first" in capsys.readouterr().err


def test_run_says_what_is_missing(capsys, tmp_path):
    scenes.to_store("digits", tmp_path / "store")
    words = ["run", "dataset-reinforcement", str(tmp_path / "store"), "--out", str(tmp_path / "o")]
    assert main(words) == 2
    assert "name trained classifiers (--teachers" in capsys.readouterr().err


def test_run_counts_first_then_writes_a_page_with_classes_and_latency(capsys, tmp_path):
    scenes.to_store("digits", tmp_path / "store")
    teacher = models.save(models.create("cnn-tiny", seed=0).eval(), tmp_path / "t.safetensors")
    words = ["run", "dataset-reinforcement", str(tmp_path / "store"), "--teachers", str(teacher)]
    words += [
        "--out",
        str(tmp_path / "out"),
        "--model",
        "cnn-tiny",
        "--num-views",
        "2",
        "--no-flip",
    ]
    words += ["--kept", "3", "--rows", "split = 'student'", "--train.steps", "4"]
    words += ["--train.batch-size", "16", "--train.warmup-steps", "0", "--train.device", "cpu"]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "dataset-reinforcement, scale this run" in text
    assert "images shown to t0" in text
    assert "nothing has been written" in text
    assert not (tmp_path / "out").exists()
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["result"]["stored"]["kept"] == {"t0": 3}
    page = Path(printed["report"]).read_text()
    assert "Latency" in page
    assert "reinforce once" in page
    assert re.search(r"view 0\. t0: \w+ 0\.\d\d, \w+ 0\.\d\d, \w+ 0\.\d\d", page)
    # without teachers the cards decide, and the command says what they say
    alone = [w for w in words if w not in ("--teachers", str(teacher))]
    alone = [w for w in alone if w not in ("--num-views", "2", "--kept", "3")]
    alone[alone.index("--out") + 1] = str(tmp_path / "alone")
    assert main(alone) == 0
    assert "stored: 2 views (random_resized_crop, " in capsys.readouterr().err
    assert main([*alone, "--num-views", "5"]) == 2
    assert "num_views: 5 asked for, but view set 'main' has 2" in capsys.readouterr().err


def test_bad_input_recipe_without_a_preview(capsys, monkeypatch):
    monkeypatch.delattr(mobileclip, "preview")
    assert main(["run", "mobileclip", "store", "--dry-run"]) == 2
    assert "this recipe cannot tell beforehand" in capsys.readouterr().err


def _score(arm, seed, context):
    """Score without training; importable by name."""
    return {"top1": 0.9 if arm == "dr" else 0.8, "ece": 0.1}


def test_verify_writes_verdict_and_page(capsys, tmp_path, monkeypatch):
    claim = replace(
        dataset_reinforcement.CLAIM,
        checks=(AtLeast(name="good", metric="top1", arm="dr", limit=0.85),),
        run_arm=_score,
        prepare=None,
        scales={"laptop": {}},
    )
    monkeypatch.setattr(dataset_reinforcement, "CLAIM", claim)
    words = ["verify", "dataset-reinforcement", "--seeds", "1000", "1001", "--out",
             str(tmp_path / "out"), "--workdir", str(tmp_path / "work")]  # fmt: skip
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "verdict: PASS" in captured.out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    assert main([*words, "--scale", "gpu"]) == 2
    assert "no scale 'gpu'; it is tested at laptop" in capsys.readouterr().err
    assert (tmp_path / "out" / "laptop" / "dataset-reinforcement.json").exists()
    worse = replace(claim, checks=(AtLeast(name="good", metric="top1", arm="dr", limit=0.95),))
    monkeypatch.setattr(dataset_reinforcement, "CLAIM", worse)
    assert main(words) == 1
    assert "verdict: FAIL" in capsys.readouterr().out
    assert main([*words, "--scale", "paper"]) == 2
    assert "'understudy plan dataset-reinforcement' counts that size" in capsys.readouterr().err


def test_recipes_keep_to_themselves():
    assert mobileclip.CLAIM.recipe == "mobileclip"
    assert mobileclip.PLAN is not dataset_reinforcement.PLAN
