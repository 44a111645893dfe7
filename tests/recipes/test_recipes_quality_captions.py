"""Quality captions: the claim's wiring, the plan's numbers, a run on a small store."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from understudy import models
from understudy.core.errors import CardError, ConfigError
from understudy.core.transfer_rows import read_transfer
from understudy.data import scenes
from understudy.evaluate.check_contrast import Contrast, FewerLabels, SameOrder
from understudy.evaluate.claim_verify import verify
from understudy.models.text.train_tokenizer import train_words
from understudy.recipes import RECIPES
from understudy.recipes import quality_captions as recipe
from understudy.recipes.quality_captions_arms import (
    EXPRESSIONS,
    labels_of,
    shared_start,
    student,
    transfer_config,
)
from understudy.recipes.quality_captions_claim import ARMS, SETTINGS
from understudy.recipes.quality_captions_scenes import (
    CLASSES,
    LEVELS,
    captions_at,
    columns_of,
    facts_of,
    make_store,
)
from understudy.report.transfer import write_transfer_page
from understudy.train.config import TrainConfig

TINY = {
    **SETTINGS, "size": 32, "pairs": 40, "teacher_pairs": 32, "test": 8, "batch": 16, "steps": 2,
    "teacher_steps": 2, "views": 1, "scored": 20, "tune_steps": 1, "tune_batch": 4,
    "tune_lrs": [1e-3], "validation": 4, "search_labels": 4, "curve": [4, 8],
    "compared": [4],
}  # fmt: skip


def test_captions_of_facts_and_their_noise():
    facts = [facts_of([7, 3], ["top left", "bottom right"])] * 400
    assert captions_at(facts, 0.0, 1)[0] == "seven top left three bottom right"
    noisy = captions_at(facts, 1.0, 1)
    words = [set(text.split()) for text in noisy]
    kept = np.mean([("seven" in w) + ("three" in w) for w in words]) / 2
    assert 0.4 < kept < 0.6
    # a place is dropped as a whole
    assert all(("top" in w) == ("left" in w) for w in words)
    lengths = [np.mean([len(t.split()) for t in captions_at(facts, lv, 1)]) for lv in (0, 1)]
    assert lengths[1] < lengths[0]


def test_caption_columns_of_a_store(tmp_path):
    settings = {"size": 32}
    store = make_store(tmp_path / "s", 1000, settings, train=30, test=4)
    columns = columns_of(store, 1000)
    assert set(columns) == {
        "caption.clean", "text.noisy", "text.medium", "text.mild", "text.clean",
        "text.noisy-shuffled", "text.clean-shuffled",
    }  # fmt: skip
    for name, values in columns.items():
        assert store.take(range(34), [name]).column(0).to_pylist() == values
    assert sorted(columns["text.clean-shuffled"]) == sorted(columns["text.clean"])
    assert columns["text.clean-shuffled"] != columns["text.clean"]
    assert [c for (c,) in columns["caption.clean"]] == columns["text.clean"]
    shuffled, plain = columns["text.noisy-shuffled"], columns["text.noisy"]
    assert sorted(shuffled) == sorted(plain)
    assert store.card("text.noisy").config["noise"]["mismatch"] == 0.2
    assert make_store(tmp_path / "s", 1000, settings, train=30, test=4).version == store.version


def test_arms_differ_in_captions_and_distillation_alone():
    assert list(EXPRESSIONS) == [arm for arm in ARMS if arm != "random"]
    arms = {arm: student(arm, 1000, SETTINGS) for arm in EXPRESSIONS}
    for arm in arms.values():
        plain = replace(
            arm, captions="real", text_column="text", captioner="", lam=0.0, teachers=()
        )
        assert plain == replace(
            arms["noisy"], captions="real", text_column="text", captioner="", lam=0.0
        )
    assert {a for a, c in arms.items() if c.lam > 0} == {"noisy-distil", "clean-distil"}
    assert arms["noisy"].text_column == arms["noisy-distil"].text_column == "text.noisy"
    assert (arms["clean"].captions, arms["clean"].captioner) == ("syn", "clean")
    start = shared_start(1000, SETTINGS)
    assert (start.captions, start.text_column, start.captioner) == ("both", "text.noisy", "clean")


def test_fine_tuning_is_the_same_for_every_arm():
    configs = {arm: transfer_config(arm, 1000, SETTINGS) for arm in ARMS}
    assert len({repr(c.tune) for c in configs.values()}) == 1
    assert len({c.lrs for c in configs.values()}) == 1
    assert configs["clean"].labels == configs["noisy"].labels == (20, 50, 200, 1000)
    assert labels_of("mild", SETTINGS) == (50, 200)
    assert configs["clean"].tune.head.classes == CLASSES
    assert configs["clean"].tune.augment.flip == 0.0


def test_the_claim_is_the_sheets():
    claim = RECIPES.load("quality-captions").CLAIM
    assert len(claim.seeds) == 5
    assert min(claim.seeds) < 1000
    required = {check.name: check for check in claim.checks if check.required}
    gains = [c for c in required.values() if getattr(c, "margin", 0) == 0.03]
    assert {c.metric for c in gains} == {"miou@50", "miou@200"}
    assert all((c.better, c.worse, c.ci_above) == ("clean", "noisy", 0.0) for c in gains)
    fewer = next(c for c in required.values() if isinstance(c, FewerLabels))
    assert (fewer.labels, fewer.ratio, fewer.ci_above) == (200, 2.0, 1.0)
    assert fewer.curve == tuple(claim.settings("laptop")["curve"])
    order = next(c for c in required.values() if isinstance(c, SameOrder))
    assert order.at_least == 0.8
    assert set(order.arms) == set(LEVELS)
    assert len(order.arms) >= 4
    control = next(c for c in required.values() if isinstance(c, Contrast))
    assert set(control.arms) == {"clean", "noisy", "clean-shuffled", "noisy-shuffled"}
    reported = {check.name for check in claim.checks if not check.required}
    assert any("interaction" in name for name in reported)
    assert any("effect of captions" in name for name in reported)
    assert any("effect of distillation" in name for name in reported)


def test_the_claim_runs_from_end_to_end_with_tiny_settings(tmp_path):
    """Three of the arms go through every branch of the claim's functions."""
    chosen = ("noisy", "clean-distil", "random")
    contrast = Contrast(
        name="x", metric="miou@4", weights=(("clean-distil", 1.0), ("noisy", -1.0)), margin=-1.0
    )
    claim = replace(
        recipe.CLAIM,
        scales={"laptop": TINY},
        arms=tuple(arm for arm in recipe.CLAIM.arms if arm.name in chosen),
        checks=(contrast,),
        metrics=("miou@4",),
    )
    verdict = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "work", out=tmp_path / "out")
    assert set(verdict.arms) == set(chosen)
    assert {"miou@4", "miou@8", "miou", "align", "rank", "grounded"} <= set(verdict.arms["noisy"])
    assert "miou@8" not in verdict.arms["clean-distil"]
    assert "align" not in verdict.arms["random"]
    assert (tmp_path / "out" / "laptop" / "quality-captions.json").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("quality")
    store = scenes.to_store(
        "photo-scenes", root / "pairs", train=30, teacher=0, test=6, seed=1000, size=32,
        num_captions=1,
    )  # fmt: skip
    words = store.take(range(36), ["text"]).column(0).to_pylist()
    tokenizer = train_words(words, context_length=24)
    scorer = models.create("clip-conv-nano", seed=9, tokenizer=tokenizer).eval()
    models.save(scorer, root / "scorer.safetensors")
    return root


def tiny(world, out, **changed):
    budget = {"batch_size": 8, "device": "cpu"}
    base = {
        "store": world / "pairs",
        "labelled": world / "pairs",
        "out": out,
        "arms": ("alt=text", "syn=text & caption.template"),
        "objects": "digits",
        "vocab_size": 600,
        "width": 8,
        "hidden": 8,
        "size": 32,
        "flip": 0.0,
        "labels": (4, 1.0),
        "train": TrainConfig(steps=3, lr=1e-3, **budget),
        "tune": TrainConfig(steps=2, lr=1e-3, **budget),
        "seeds": (1000, 1001),
    }
    return recipe.Config(**{**base, **changed})


def test_run_scores_pretrains_transfers_and_compares(world, tmp_path):
    config = tiny(world, tmp_path / "out", scorer=str(world / "scorer.safetensors"))
    out = recipe.run(config)
    result = json.loads((out / "result.json").read_text())
    assert set(result["captions"]["arms"]) == {"alt", "syn"}
    rows = read_transfer(out)
    assert {(r.arm, r.seed, r.labels) for r in rows} == {
        (a, s, n) for a in ("alt", "syn") for s in (1000, 1001) for n in (4, 30)
    }
    assert {r.samples_seen for r in rows} == {24}
    assert len({r.protocol for r in rows}) == 1
    effect = result["effects"]["syn over alt, miou@30"]["captions, no distillation"]
    paired = [
        next(r.value for r in rows if (r.arm, r.seed, r.labels, r.metric) == (a, s, 30, "miou"))
        for a in ("syn", "alt")
        for s in (1000, 1001)
    ]
    assert effect["mean"] == pytest.approx(np.mean(paired[:2]) - np.mean(paired[2:]))
    assert effect["seeds"] == 2
    assert (out / "curves.csv").exists()
    page = write_transfer_page(out, title="Captions").read_text()
    assert "Captions, before anything is trained" in page
    assert "captions, no distillation" in page
    assert "near-duplicates" in page


def test_a_dry_run_counts_and_refuses_without_training(world, tmp_path):
    config = tiny(world, tmp_path / "out", lrs=(1e-3, 1e-2), validation=4)
    made = recipe.preview(config)
    assert made.value("students") == 4
    assert made.value("fine-tunings") == 4 * (2 + 2)
    assert made.value("labelled rows") == 26
    assert not (tmp_path / "out").exists()
    with pytest.raises(CardError, match="main"):
        recipe.preview(replace(config, distil=True, view_set="main"))


def test_both_causes_are_resolved_when_a_teacher_was_asked(world, tmp_path):
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce

    store = scenes.to_store(
        "photo-scenes", tmp_path / "pairs", train=24, teacher=0, test=4, seed=1000, size=48,
        num_captions=1,
    )  # fmt: skip
    asked = ReinforceConfig(
        num_views=1,
        views=ViewConfig(size=48, transforms={"random_crop": {"padding": 2}}),
        teachers=(
            TeacherSpec(
                name="t",
                path=str(world / "scorer.safetensors"),
                outputs=("image", "text"),
                logit_scale=20.0,
            ),
        ),
        rows="split = 'train'",
    )
    reinforce(store, asked)
    here = tmp_path / "pairs"
    config = tiny(
        world, tmp_path / "out", store=here, labelled=here, distil=True, view_set="main",
        labels=(1.0,), seeds=(1000,), size=48,
    )  # fmt: skip
    result = json.loads((recipe.run(config) / "result.json").read_text())
    found = result["effects"]["syn over alt, miou@24"]
    assert set(found) == {
        "captions, no distillation", "captions, with distillation", "captions, mean",
        "distillation, old captions", "distillation, new captions", "distillation, mean",
        "interaction",
    }  # fmt: skip
    assert {e["arm"] for e in result["comparison"]} == {"alt", "syn", "alt+distil", "syn+distil"}
    with pytest.raises(ConfigError, match="the scorer wrote 't.image.main.0'"):
        recipe.run(replace(config, scorer=str(world / "scorer.safetensors")))


def test_bad_input_of_the_recipe(world, tmp_path):
    for changed, message in (
        ({"arms": ("alt=text",)}, "give at least two"),
        ({"arms": ("a=text", "a=caption.template")}, "of different names"),
        ({"arms": ("alt=text", "syn=")}, "the expression is empty"),
        ({"seeds": ()}, "seeds: expected different numbers"),
        ({"distil": True}, "name the view set"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe.run(tiny(world, tmp_path / "x", **changed))


def test_the_plan():
    plan = recipe.PLAN(model="mobileclip-s0")
    assert plan.value("samples seen by one pretraining") == 13_107_200_000
    count = plan.value("parameters of tower and segmentation head")
    assert count == pytest.approx(14.5e6, rel=0.04)  # published; ours is 14,987,862
    assert count == 14_987_862
    text = plan.text()
    assert "+12.1%" in text
    assert "-11.5%" in text
    assert plan.value("Swin-L over MCi2, parameters with heads") == pytest.approx(6.1, abs=0.05)
    with pytest.raises(ConfigError, match="'laptop' is not one of paper"):
        recipe.PLAN(scale="laptop")
    with pytest.raises(ConfigError, match="'mci0' is no CLIP"):
        recipe.PLAN(model="mci0")
