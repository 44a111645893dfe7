"""Dataset reinforcement: the plan's numbers, the claim's wiring, a run on a small store."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from understudy import models
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data import scenes
from understudy.data.store import Store
from understudy.evaluate.claim_verify import verify
from understudy.recipes import PAPERS, RECIPES
from understudy.recipes import dataset_reinforcement as recipe
from understudy.recipes.dataset_reinforcement_claim import ARMS, SETTINGS, student
from understudy.recipes.dataset_reinforcement_sets import RELEASED, generation
from understudy.reinforce.generate import reinforce
from understudy.report.results import report_of
from understudy.train.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from student_world import digit_store

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
        "train": TrainConfig(
            steps=20, batch_size=16, optimizer="sgd", lr=0.05, device="cpu", best="classify.top1"
        ),
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


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_set_can_be_planned_and_generated(name):
    released, plan = RELEASED[name], recipe.PLAN(scale=name)
    config = generation(name)
    assert (config.num_views, config.topk) == (released.num_views, released.kept)
    assert config.num_classes == released.classes
    assert released.num_views % released.part == 0
    assert plan.value("records") == released.images * released.num_views
    # Ours are not compressed and not pickled: about as large.
    assert 0.6 < plan.value("bytes in all") / (released.published_gb * 1e9) < 1.3


def test_released_sets_are_the_papers():
    table = {n: (r.num_views, r.kept) for n, r in RELEASED.items()}
    assert len(table) == 15
    assert (table["paper-mix"], table["paper-rrc-small"]) == ((400, 10), (100, 5))
    assert table["paper-mix-ra-re-mini"] == (50, 10)
    assert table["cifar100"] == table["food101"] == (800, 10)
    assert table["flowers102"] == (8000, 10)
    crop = generation("cifar100").views.transforms
    assert crop["random_crop"]["padding"] == 16
    assert "random_resized_crop" not in crop
    assert recipe.PLAN(scale="flowers102").value("epochs") == 10_000
    with pytest.raises(ConfigError, match="'cifar10' is not one of"):
        generation("cifar10")


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
    assert (data["stored"]["num_views"], data["stored"]["kept"]) == (2, {"ensemble": 3})
    assert data["students"]["plain"]["facts"]["best_chosen_on"] == "test"
    assert data["students"]["reinforced"]["weights"]["final"]["classify.ece"] >= 0
    columns = Store.open(store.path).columns
    assert {"view.main.1", "ensemble.topk.main.1"} <= set(columns)
    # a second run asks nobody and trains nothing again
    again = json.loads((recipe.run(config) / "result.json").read_text())
    assert again["reinforce"]["computed"] == 0
    assert again["students"]["plain"]["weights"] == data["students"]["plain"]["weights"]
    # what generation took is remembered
    assert again["stored"] == data["stored"]
    assert again["stored"]["total_seconds"] > 0
    costs = report_of(folder, title="t", store=Store.open(store.path)).costs
    assert sum(costs["reinforce once"].values()) == data["stored"]["total_seconds"]
    # and the columns alone are enough for other students: views and K are those of the cards
    alone = replace(
        config, teachers=(), out=tmp_path / "alone", model="cnn-small", num_views=0, kept=0
    )
    found = json.loads((recipe.run(alone) / "result.json").read_text())
    assert (found["config"]["num_views"], found["config"]["kept"]) == (2, 3)
    assert (tmp_path / "alone" / "reinforced" / "folded.safetensors").exists()


def test_stored_views_decide_what_is_not_named(tmp_path):
    """The plain student sees fresh views of the stored kind, whatever kind the default is."""
    store = digit_store(tmp_path / "digits")
    config, views = recipe.settle(_config(store, tmp_path, num_views=0, kept=0), store)
    assert list(views.transforms) == ["random_resized_crop"]
    assert (config.num_views, config.kept, config.teacher) == (2, 3, "t")
    assert recipe.plain(config, views).augment == views.transforms
    student = recipe.reinforced(config, views)
    assert student.augment == views.transforms
    assert (student.num_views, student.k) == (2, 3)
    # fewer than are stored may be used
    config, _ = recipe.settle(_config(store, tmp_path, num_views=1, kept=2), store)
    assert (recipe.reinforced(config).num_views, recipe.reinforced(config).k) == (1, 2)
    assert recipe.plain(config, views).num_views == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_views": 4}, ConfigError, r"num_views: 4 asked for, but view set 'main' has 2"),
        ({"kept": 5}, ConfigError, r"kept: 5 probabilities asked for, but 3 of 't' are stored"),
        ({"variant": "ra-re"}, CardError, r"differ from the ones asked for in transforms"),
        ({"teacher": "u"}, CardError, r"no probabilities of teacher 'u'"),
        ({"teacher": "t", "teachers": ("x",)}, ConfigError, r"leave one of both out"),
    ],
)
def test_bad_input_stored_otherwise(tmp_path, change, error, message):
    store = digit_store(tmp_path / "digits")
    with pytest.raises(error, match=message):
        recipe.settle(_config(store, tmp_path, **{"num_views": 0, "kept": 0, **change}), store)


def test_bad_input_mirrored_views(store, tmp_path):
    path = models.save(models.create("cnn-tiny", seed=0).eval(), tmp_path / "t.safetensors")
    config = _config(
        store, tmp_path, flip=True, teachers=(str(path),), rows="id = 'digits/0003'", num_views=1
    )
    reinforce(store, recipe.reinforcement(*recipe.settle(config, store)))
    with pytest.raises(ConfigError, match="flip: views of set 'main' are mirrored"):
        recipe.settle(replace(config, flip=False), Store.open(store.path))


def test_preview_counts_and_writes_nothing(store, tmp_path):
    path = models.save(models.create("cnn-tiny", seed=0).eval(), tmp_path / "t.safetensors")
    made = recipe.preview(_config(store, tmp_path, teachers=(str(path),)))
    assert made.value("images shown to t0") == 2 * 300
    assert made.value("bytes stored") == 300 * made.value("bytes per row")
    assert made.value("samples seen by a student") == 20 * 16
    assert not (tmp_path / "out").exists()
    assert not any(".topk." in column for column in Store.open(store.path).columns)


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
