"""Dataset reinforcement: the plan's numbers, the claim's wiring, a run on a small store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from understudy import models
from understudy.core.errors import ConfigError, DataError
from understudy.data import scenes
from understudy.data.store import Store
from understudy.evaluate.claims import verify
from understudy.recipes import PAPERS, RECIPES
from understudy.recipes import dataset_reinforcement as recipe
from understudy.recipes.dataset_reinforcement_claim import ARMS, SETTINGS, student
from understudy.train.config import TrainConfig

TINY = {
    **SETTINGS,
    "steps": 6,
    "batch": 20,
    "views": 3,
    "kept": 3,
    "teachers": 2,
    "teacher_steps": 4,
    "timing_rounds": 2,
}


@pytest.fixture
def store(tmp_path):
    return scenes.to_store("digits", tmp_path / "store", division=1)


def _config(store, tmp_path, **changes) -> recipe.Config:
    base = {
        "store": store.path,
        "out": tmp_path / "out",
        "model": "cnn-tiny",
        "num_views": 2,
        "kept": 3,
        "flip": False,
        "rows": "split = 'student'",
        "train": TrainConfig(steps=20, batch_size=16, optimizer="sgd", lr=0.05, device="cpu"),
    }
    return recipe.Config(**{**base, **changes})


def test_every_recipe_has_a_paper():
    assert set(RECIPES) == set(PAPERS)
    assert RECIPES.load("dataset-reinforcement") is recipe


def test_the_plan_counts_the_published_set():
    plan = recipe.PLAN(scale="paper", price_per_hour=2.0, model="mci0")
    assert plan.value("records") == 1_281_167 * 400
    assert plan.value("bytes per record: targets") == 40
    # 37.5 GB over all records is 73 B of gzipped pickle; ours are uncompressed and smaller
    assert 60 <= plan.value("bytes per record") <= 66
    assert plan.value("bytes in all") == plan.value("records") * plan.value("bytes per record")
    assert plan.value("bytes in all") < 37.5e9
    assert plan.value("parameters, folded") == 11_357_704 + 500_000
    assert plan.value("samples seen") == 300 * 1_281_167
    hours = [plan.value(f"device hours: {part}") for part in ("generation", "one student")]
    assert plan.value("device hours: total") == pytest.approx(sum(hours))
    assert plan.value("money") == pytest.approx(2 * sum(hours))
    shared = [plan.value(f"device hours per student, {n} of them") for n in (1, 5, 20)]
    assert shared == sorted(shared, reverse=True)
    assert shared[2] == pytest.approx((hours[0] + 20 * hours[1]) / 20)
    assert "[paper: 37,500,000,000]" in plan.text()


def test_smaller_published_sets_take_fewer_bytes():
    small = recipe.PLAN(scale="paper-small")
    assert small.value("bytes per record: targets") == 20
    assert small.value("records") == 1_281_167 * 100
    assert recipe.PLAN(scale="paper-mini").value("records") == 1_281_167 * 50


def test_bad_input_plan():
    with pytest.raises(ConfigError, match="'papper' is not one of paper"):
        recipe.PLAN(scale="papper")
    with pytest.raises(ConfigError, match="'mobileclip-s0' is no classifier"):
        recipe.PLAN(model="mobileclip-s0")


def test_published_views_hold_their_transforms():
    assert list(recipe.views("ra-re", 224).transforms) == [
        "random_resized_crop", "random_horizontal_flip", "rand_augment", "random_erase",
    ]  # fmt: skip
    assert recipe.views("mix", 224).mixes
    assert list(recipe.views("rrc", 32, random_horizontal_flip=None).transforms) == [
        "random_resized_crop"
    ]
    with pytest.raises(ConfigError, match="'ra' is not one of"):
        recipe.views("ra", 32)


def test_run_reinforces_trains_and_compares(store, tmp_path):
    for k in range(2):
        models.save(models.create("cnn-tiny", seed=k).eval(), tmp_path / f"t{k}.safetensors")
    paths = tuple(str(tmp_path / f"t{k}.safetensors") for k in range(2))
    config = _config(store, tmp_path, teachers=paths)
    folder = recipe.run(config)
    data = json.loads((folder / "result.json").read_text())
    assert set(data["students"]) == {"plain", "reinforced"}
    assert "classify.top1" in data["gain"]["reinforced"]
    assert data["reinforce"]["computed"] == 300
    assert data["students"]["reinforced"]["weights"]["final"]["classify.ece"] >= 0
    columns = Store.open(store.path).columns
    assert {"view.main.1", "ensemble.topk.main.1"} <= set(columns)
    # a second run asks nobody and trains nothing again
    again = json.loads((recipe.run(config) / "result.json").read_text())
    assert again["reinforce"]["computed"] == 0
    assert again["students"]["plain"]["weights"] == data["students"]["plain"]["weights"]
    # and the columns alone are enough for other students
    alone = replace(config, teachers=(), out=tmp_path / "alone", model="cnn-small")
    assert (recipe.run(alone) / "reinforced" / "folded.safetensors").exists()


def test_bad_input_no_teachers_and_no_columns(store, tmp_path):
    with pytest.raises(ConfigError, match="no stored probabilities of view set 'main' and no teac"):
        recipe.run(_config(store, tmp_path))


def test_bad_input_no_test_rows(tmp_path):
    first = scenes.to_store("digits", tmp_path / "a")
    table = first.take(first.where("split != 'test'"), first.columns)
    store = Store.create(tmp_path / "b", [table], meta=first.meta)
    with pytest.raises(DataError, match="no rows of split 'test'"):
        recipe.run(_config(store, tmp_path))


def test_arms_differ_in_targets_and_replay_only():
    arms = {name: student(name, 3, SETTINGS) for name in ARMS}
    assert len({arm.train for arm in arms.values()}) == 1
    assert {arm.seed for arm in arms.values()} == {3}
    assert arms["dr"].replay == "stored"
    assert arms["dr-broken"] == replace(arms["dr"], replay="fresh")
    assert arms["dr-shuffled"] == replace(arms["dr"], shuffle_targets=True)
    assert arms["erm"].augment == arms["online-kd"].augment
    assert arms["dr-tiny"] == replace(arms["dr"], model="cnn-tiny")


def test_the_claim_runs_from_end_to_end_with_tiny_settings(tmp_path):
    """Four of the arms go through every branch of the claim's functions."""
    chosen = {"erm", "online-kd", "dr", "dr-broken"}
    claim = replace(
        recipe.CLAIM,
        scales={"laptop": TINY},
        arms=tuple(arm for arm in recipe.CLAIM.arms if arm.name in chosen),
        checks=tuple(check for check in recipe.CLAIM.checks if set(check.arms) <= chosen),
    )
    verdict = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "work", out=tmp_path / "out")
    assert set(verdict.arms) == chosen
    assert {"step_over_erm", "step_over_online", "teacher_top1"} <= set(verdict.arms["dr"])
    assert (tmp_path / "out" / "laptop" / "dataset-reinforcement.json").exists()


def test_the_claim_is_the_sheets():
    claim = recipe.CLAIM
    assert claim.seeds == (11, 12, 13, 14, 15)
    by_name = {check.name: check for check in claim.checks}
    assert {name for name, check in by_name.items() if check.required} == {
        "reinforced beats plain",
        "as good as online",
        "price of a step",
        "better calibrated",
        "targets matter",
        "replay matters",
    }
    first = by_name["reinforced beats plain"]
    assert (first.margin, first.ci_above, first.better, first.worse) == (0.01, 0.0, "dr", "erm")
    assert by_name["price of a step"].limit == 1.15
    assert by_name["as good as online"].num_se == 2
    assert not by_name["a tiny student gains nothing"].required
