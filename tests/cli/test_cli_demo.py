"""The demo from nothing to a report, at a size for tests."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from understudy.cli import demo_data, main
from understudy.data import scenes
from understudy.data.store import Store
from understudy.data.views import ViewPipeline
from understudy.reinforce.teachers.shipped import NAMES, card, shipped

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from browser import browser, drawn, opened


def small_store(path, seed):
    made = {"train": 130, "teacher": 0, "test": 40, "num_captions": 2, "masks": False}
    return scenes.to_store("pairs", path, seed=seed, **made)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    plan = replace(demo_data.SCENES, prepare=small_store, num_views=2, pairs=130)
    said = []
    return demo_data.run(plan, folder, steps=20, seed=3, say=said.append), folder, said


def test_it_ends_with_scores_of_two_students_a_report_and_an_export(made):
    result, folder, said = made
    assert result.students == ("plain", "reinforced")
    assert all(len(values) == 2 for values in result.scores.values())
    assert result.report == folder / "report.html"
    assert {"image.onnx", "text.onnx"} <= {p.name for p in folder.joinpath("export").iterdir()}
    assert any("asking clip-teacher-a, clip-teacher-b" in line for line in said)


def test_students_have_equal_budgets(made):
    result = json.loads((made[1] / "students" / "result.json").read_text())
    configs = [
        json.loads((Path(s["run"]) / "config.json").read_text())["config"]
        for s in result["students"].values()
    ]
    for name in ("steps", "batch_size", "lr", "weight_decay", "seed"):
        assert configs[0][name] == configs[1][name]


def test_the_same_command_again_trains_nothing(made):
    _, folder, _ = made
    weights = folder / "students" / "reinforced" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    plan = replace(demo_data.SCENES, prepare=small_store, num_views=2, pairs=130)
    demo_data.run(plan, folder, steps=20, seed=3, say=lambda text: None)
    assert weights.stat().st_mtime_ns == before


@pytest.mark.browser
def test_the_report_opens_in_a_browser(made, tmp_path):
    if browser() is None:
        pytest.skip("no Chromium on this machine: install it to test the reports in a browser")
    dom, console = opened(made[0].report, tmp_path / "profile")
    plots = drawn(dom)
    assert len(plots) >= 3
    assert all(plots.values()), f"an empty plot: {plots}"
    assert console == ""
    assert "clip-teacher-a: “" in dom, "no teacher's neighbour under a view"


def test_shipped_teachers_are_small_and_have_cards():
    for name in NAMES:
        assert shipped(name).stat().st_size < 1_000_000
        assert card(name)["scores"]["retrieval.mean_r1"] > 0.3
        assert card(name)["licence"] == "Apache-2.0"


def test_dry_run_says_what_it_would_cost(capsys):
    assert main(["demo", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "40,000 teacher calls" in text
    # 5 views of 64 + 72 numbers and a real and two synthetic captions of as many, in float16
    stride = ViewPipeline(demo_data.SCENES.views).stride
    assert f"{2 * (64 + 72) * (5 + 3) + 5 * stride:,} bytes a pair" in text
    assert main(["demo", "--data", "emoji", "--dry-run"]) == 0
    found = re.search(r"([\d,]+) bytes a pair, about ([\d.]+) MB", capsys.readouterr().out)
    per_pair = int(found[1].replace(",", ""))
    assert per_pair > 2 * 2 * 384 * (3 + 5)
    assert float(found[2]) == pytest.approx(demo_data.EMOJI.pairs * per_pair / 1e6, abs=0.05)


def test_what_is_counted_is_what_is_stored(made):
    _, folder, _ = made
    store = Store.open(folder / "store")
    teachers = [c.removesuffix(".text") for c in store.columns if c.endswith(".text")]
    widths = {store.card(f"{name}.text").config["shape"][0] for name in teachers}
    assert widths == set(demo_data.SCENES.widths)
    captions = store.take([0], ["caption.template"]).column(0).to_pylist()[0]
    assert len(captions) == demo_data.SCENES.captions


def test_bad_input_steps(capsys):
    assert main(["demo", "--steps", "3"]) == 2
    assert "--steps 3: expected at least 20" in capsys.readouterr().err


def test_fresh_deletes_only_a_demo(tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    demo_data.forget(other)
    assert (other / "thesis.txt").exists()
    (other / demo_data.MARKER).touch()
    demo_data.forget(other)
    assert not other.exists()
