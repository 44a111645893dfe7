"""MobileCLIP: the plan's numbers, the claim's wiring, a run on a small store."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from understudy import models
from understudy.core.errors import CardError, ConfigError
from understudy.data import scenes
from understudy.data.store import Store
from understudy.data.view_presets import pair_views
from understudy.evaluate.claim_verify import verify
from understudy.evaluate.plans import transformer_macs
from understudy.models.text.train_tokenizer import train_words
from understudy.recipes import RECIPES
from understudy.recipes import mobileclip as recipe
from understudy.recipes.mobileclip_arms import ARMS, SETTINGS, student
from understudy.recipes.mobileclip_measure import digit_pair_prompts
from understudy.reinforce.generate import reinforce
from understudy.train.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from student_world import pair_store

TINY = {**SETTINGS, "pairs": 48, "teacher_pairs": 64, "test": 30, "retrieval": 20, "batch": 16,
        "steps": 3, "teacher_steps": 3, "views": 2, "timing_rounds": 2}  # fmt: skip


def test_the_plan_prints_the_published_sizes():
    plan = recipe.PLAN(scale="paper", model="mobileclip-s0")
    assert plan.value("parameters of the image tower, folded") == 11_356_992
    assert plan.value("parameters of the text tower, folded") == 42_435_072
    assert plan.value("parameters of the image tower, training form") == 11_406_464
    assert plan.value("parameters of the text tower, training form") == 42_441_216
    text = plan.text()
    assert "11,356,992" in text
    assert "42,435,072" in text
    rows = {row.label: row for row in plan.rows}
    image = rows["forward pass of the image tower"]
    assert image.value == pytest.approx(image.published, rel=0.01) == pytest.approx(2.4e9, rel=0.01)
    assert rows["latency of the image tower"].published == 1.5
    assert rows["latency of the text tower"].published == 1.6
    assert plan.value("bytes per pair: bfloat16 or float16") == 49_152
    assert plan.value("bytes per pair: float32") == 98_304
    assert plan.value("samples seen") == 13_107_200_000
    assert plan.value("passes over the data") == pytest.approx(10.24)


def test_the_smaller_published_run():
    plan = recipe.PLAN(scale="paper-12m", model="mobileclip-b")
    assert plan.value("bytes per pair: bfloat16 or float16") == 110_592
    assert plan.value("samples seen") == 30_000 * 8_192
    # ViT-B/16 on 12.8 M pairs takes 1.3 h of 8 devices, by construction of the assumption
    hours = plan.value("device hours: one student")
    assert hours == pytest.approx(1.3 * 8 * 30_000 * 8_192 / 12.8e6, rel=1e-3)
    shared = [plan.value(f"device hours per student, {n} of them") for n in (1, 4)]
    assert shared[0] > shared[1] > hours


def test_a_teachers_cost_is_the_known_one():
    image = transformer_macs(24, 1024, 257) + 256 * 1024 * 3 * 14**2
    assert image == pytest.approx(81.0e9, rel=0.01)
    assert transformer_macs(12, 768, 77) == pytest.approx(6.65e9, rel=0.01)
    layer = 12 * 8**2 * 5 + 2 * 5**2 * 8
    assert transformer_macs(1, 8, 5) == layer
    assert transformer_macs(2, 8, 5, cross_tokens=3) == 2 * (layer + 2 * 64 * 8 + 2 * 15 * 8)


def test_bad_input_plan():
    with pytest.raises(ConfigError, match="'laptop' is not one of paper"):
        recipe.PLAN(scale="laptop")
    with pytest.raises(ConfigError, match="'mci0' is no CLIP"):
        recipe.PLAN(model="mci0")


def test_the_published_view_neither_mirrors_nor_erases():
    strong = pair_views("strong", 224).transforms
    assert list(strong) == ["random_resized_crop", "rand_augment"]
    assert strong["random_resized_crop"]["interpolation"] == "bicubic"
    assert strong["random_resized_crop"]["scale"] == [0.08, 1.0]
    assert (strong["rand_augment"]["num_ops"], strong["rand_augment"]["magnitude"]) == (2, 9)


@pytest.fixture(scope="module")
def reinforced_pairs(tmp_path_factory):
    return pair_store(tmp_path_factory.mktemp("pairs") / "store", train=20, test=8)


def _teacher(path, seed):
    words = train_words(["a small large 0 1 2 3 4 5 6 7 8 9 left of above"], context_length=16)
    model = models.create(
        "clip-teacher-a", seed=seed, tokenizer=words, embed_dim=16,
        **{"text.depth": 1, "text.context_length": 16},
    )  # fmt: skip
    return str(models.save(model.eval(), path))


def test_run_reinforces_trains_and_compares(tmp_path):
    store = scenes.to_store(
        "pairs", tmp_path / "store", train=40, teacher=0, test=20, seed=1000, masks=False
    )
    teachers = tuple(_teacher(tmp_path / f"t{k}.safetensors", k) for k in range(2))
    config = recipe.Config(
        store=store.path,
        out=tmp_path / "out",
        teachers=teachers,
        scales=(20.0, 30.0),
        model="clip-conv-nano",
        num_views=2,
        range_augment=True,
        train=TrainConfig(steps=20, batch_size=16, lr=1e-3, ema_decay=0.9, device="cpu"),
    )
    data = json.loads((recipe.run(config) / "result.json").read_text())
    assert set(data["students"]) == {"plain", "reinforced"}
    assert {"retrieval.mean_r1", "zeroshot.top1"} <= set(data["gain"]["reinforced"])
    assert "ema" in data["students"]["reinforced"]["weights"]
    assert data["reinforce"]["computed"] > 0
    assert Store.open(store.path).card("t0.image.main.0").facts["logit_scale"] == 20.0
    folded = models.load(data["students"]["reinforced"]["folded"])
    assert folded.is_folded
    again = json.loads((recipe.run(config) / "result.json").read_text())
    assert again["reinforce"]["computed"] == 0
    # what generation took is remembered, and who is imitated does not depend on who else is there
    assert again["stored"] == data["stored"]
    assert set(data["stored"]["seconds"]) == {"views", "texts"}
    other = _teacher(tmp_path / "other.safetensors", 7)
    made = recipe.reinforcement(*recipe.settle(config, Store.open(store.path)))
    extra = replace(made, teachers=(replace(made.teachers[0], name="other", path=other),))
    reinforce(Store.open(store.path), extra)
    opened = Store.open(store.path)
    settled, _ = recipe.settle(config, opened)
    assert recipe.reinforced(settled).teachers == ("t0", "t1")
    alone = replace(
        config, teachers=(), imitate=("other",), scales=(), num_views=0, out=tmp_path / "alone"
    )
    found = json.loads((recipe.run(alone) / "result.json").read_text())
    assert found["config"]["num_views"] == 2
    record = json.loads((tmp_path / "alone" / "reinforced" / "config.json").read_text())
    assert record["context"]["student"]["teachers"] == ["other"]


def test_a_validation_split_chooses_the_best_weights(tmp_path):
    store = pair_store(tmp_path / "store", train=24, test=12)
    splits = store.take(range(store.num_rows), ["split"]).column(0).to_pylist()
    held = [i for i, split in enumerate(splits) if split == "test"]
    table = store.take(range(store.num_rows), ["id", "image", "text"])
    for i in held[:6]:
        splits[i] = "val"
    table = table.append_column("split", pa.array(splits))
    other = Store.create(tmp_path / "val", [table], meta=store.meta)
    captions = store.take(range(store.num_rows), ["caption.template"]).column(0)
    with other.job([store.card("caption.template")], {"caption.template": captions.type}) as job:
        for unit in job.todo():
            job.write(unit, {"caption.template": captions.take(job.rows(unit)).combine_chunks()})
    teachers = (_teacher(tmp_path / "t.safetensors", 0),)
    train = TrainConfig(
        steps=4, batch_size=8, lr=1e-3, eval_every=2, best="retrieval.mean_r1", device="cpu"
    )
    config = recipe.Config(
        store=other.path,
        out=tmp_path / "out",
        teachers=teachers,
        model="clip-conv-nano",
        num_views=1,
        train=train,
    )
    data = json.loads((recipe.run(config) / "result.json").read_text())
    student = data["students"]["reinforced"]
    assert student["facts"]["best_chosen_on"] == "val"
    assert student["facts"]["rows"] == 24
    assert student["weights"]["final"]["rows"] == 6
    again = json.loads((recipe.run(config) / "result.json").read_text())
    assert again["students"]["reinforced"]["weights"] == student["weights"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_views": 4}, ConfigError, r"num_views: 4 asked for, but view set 'main' has 2"),
        ({"views": "strong"}, CardError, r"differ from the ones asked for in transforms"),
        ({"size": 64}, CardError, r"differ from the ones asked for in size"),
        ({"imitate": ("x",)}, CardError, r"by teacher 'x'"),
        ({"imitate": ("ta",), "teachers": ("x",)}, ConfigError, r"leave one of both out"),
    ],
)
def test_bad_input_stored_otherwise(reinforced_pairs, tmp_path, change, error, message):
    config = recipe.Config(store=reinforced_pairs.path, out=tmp_path, **change)
    with pytest.raises(error, match=message):
        recipe.settle(config, reinforced_pairs)


def test_stored_views_decide_what_is_not_named(reinforced_pairs, tmp_path):
    config, views = recipe.settle(
        recipe.Config(store=reinforced_pairs.path, out=tmp_path), reinforced_pairs
    )
    assert config.num_views == 2
    fewer = recipe.Config(store=reinforced_pairs.path, out=tmp_path, num_views=1, num_captions=1)
    student = recipe.reinforced(recipe.settle(fewer, reinforced_pairs)[0])
    assert (student.num_views, student.num_captions) == (1, 1)
    assert list(views.transforms) == ["random_resized_crop", "rand_augment"]
    assert config.rows == "split = 'train'"
    made = recipe.preview(recipe.Config(store=reinforced_pairs.path, out=tmp_path))
    assert made.value("samples seen by a student") == 1500 * 64


def test_a_captioners_name_is_no_expression(reinforced_pairs, tmp_path):
    config = recipe.Config(
        store=reinforced_pairs.path, out=tmp_path, captioner="a+b", teachers=("x.safetensors",)
    )
    (tmp_path / "x.safetensors").touch()
    config = replace(config, teachers=(str(tmp_path / "x.safetensors"),))
    _, views = recipe.settle(config, reinforced_pairs)
    wanted = recipe.reinforcement(config, views).caption_columns
    assert re.fullmatch(wanted, "a+b")
    assert not re.fullmatch(wanted, "aab")


def test_bad_input_no_teachers_and_no_columns(tmp_path):
    store = scenes.to_store("pairs", tmp_path / "s", train=20, teacher=0, test=10, masks=False)
    config = recipe.Config(store=store.path, out=tmp_path / "out")
    with pytest.raises(CardError, match="no embeddings of view set 'main'"):
        recipe.run(config)


def test_arms_are_steps_of_one_ladder():
    arms = {name: student(name, 3, SETTINGS) for name in ARMS}
    assert len({arm.train for arm in arms.values()}) == 1
    assert (arms["clip"].lam, arms["clip"].captions) == (0.0, "real")
    assert arms["clip-syn"] == replace(arms["clip"], captions="both")
    assert arms["distil-both"] == replace(arms["distil-real"], captions="both")
    assert arms["distil-both"] == replace(arms["distil-syn"], captions="both")
    assert arms["strong"] == replace(arms["distil-both"], view_set="strong")
    assert arms["full"] == replace(arms["strong"], teachers=("a", "b"))
    assert arms["broken"] == replace(arms["full"], replay="fresh")


def test_digit_pairs_are_named_by_sentences_of_the_template():
    prompts = digit_pair_prompts("3 and 7")
    assert "a large 3 left of a small 7" in prompts
    assert "a small 7 above a small 3" in prompts
    assert len(prompts) == 16
    assert len(digit_pair_prompts("4 and 4")) == 8


def test_the_claim_runs_from_end_to_end_with_tiny_settings(tmp_path):
    """Four of the arms go through every branch of the claim's functions."""
    chosen = {"clip", "distil-syn", "full", "broken"}
    claim = replace(
        recipe.CLAIM,
        scales={"laptop": TINY},
        arms=tuple(arm for arm in recipe.CLAIM.arms if arm.name in chosen),
        checks=tuple(check for check in recipe.CLAIM.checks if set(check.arms) <= chosen),
    )
    verdict = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "work", out=tmp_path / "out")
    assert set(verdict.arms) == chosen
    assert {"step_over_plain", "step_over_online", "teacher_a_r1"} <= set(verdict.arms["full"])
    assert set(verdict.arms["broken"]) == {"r1", "zeroshot", "sum"}
    assert (tmp_path / "out" / "laptop" / "mobileclip.json").exists()


def test_the_claim_is_the_sheets():
    claim = RECIPES.load("mobileclip").CLAIM
    assert claim.seeds == (11, 12, 13, 14, 15)
    required = [check.name for check in claim.checks if check.required]
    assert required == [
        "full recipe beats CLIP",
        "both captions beat real ones",
        "both captions beat synthetic ones",
        "price of a step",
        "cheaper than online teachers",
        "replay matters",
    ]
    first = claim.checks[0]
    assert (first.margin, first.each_seed, first.ci_above) == (0.10, True, 0.0)
    limits = {c.name: c.limit for c in claim.checks if hasattr(c, "limit")}
    assert limits == {"price of a step": 1.3, "cheaper than online teachers": 0.7}
    settings = claim.settings("laptop")
    assert (settings["steps"], settings["batch"], settings["pairs"]) == (1_500, 64, 4_000)
