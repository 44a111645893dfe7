"""Runs of ape on a user's store: captions, curation, resuming, arms, cost, page, preview."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ape_world import TRAIN, config, make_store

from understudy import cli
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.files import read_json
from understudy.data.store import Store
from understudy.evaluate.zeroshot import zeroshot_metrics
from understudy.models.io import weights_hash
from understudy.models.multimodal.aligner import load_aligner
from understudy.recipes import ape
from understudy.recipes.ape import run
from understudy.recipes.ape_arm_config import TEMPLATES
from understudy.recipes.ape_budget import budget_plan
from understudy.recipes.ape_steps import Steps

EVERYTHING = "split = 'pool' OR split = 'train'"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("ape") / "store")


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def rewritten(made, path, **columns) -> Path:
    """Return a copy of the store with some columns changed, given as functions of their values."""
    first = Store.open(made)
    table = first.take(range(first.num_rows), ["id", "image", "text", "label", "split"])
    for name, change in columns.items():
        place = table.schema.get_field_index(name)
        values = change(table.column(name).to_pylist())
        import pyarrow as pa

        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    Store.create(path, [table], meta=first.meta)
    return path


# -- captions


def test_empty_captions_are_counted_in_a_default_run(made, tmp_path):
    path = rewritten(made, tmp_path / "s", text=lambda v: [None, "  ", *v[2:-1], ""])
    found = read_json(run(config(path, tmp_path / "out")) / "result.json")
    assert "curation" not in found
    pairs = found["pairs"]
    assert sum(pairs["empty_captions"].values()) == 3
    assert pairs["pool"] + pairs["val"] + pairs["test"] == 160 - sum(
        n for part, n in pairs["empty_captions"].items()
    )


def test_captions_made_of_labels_declare_the_names_they_contain(made, tmp_path):
    """Half of the training pairs lose their caption and get one made of their label."""
    path = rewritten(
        made, tmp_path / "s", text=lambda v: [None if i < 60 else text for i, text in enumerate(v)]
    )
    wanted = config(
        path,
        tmp_path / "out",
        captions_from_labels=True,
        total=40,
        train_rows=EVERYTHING,
        leaks_by="image",
    )
    found = read_json(run(wanted) / "result.json")
    opened = Store.open(path)
    card = opened.card("text.align")
    assert card.config["templates"] == ["a picture of {}", "{}"]
    rows = np.arange(60)
    texts = opened.take(rows, ["text.align"]).column(0).to_pylist()
    labels = opened.array("label", rows)
    names = opened.meta["classes"]
    labelled = np.flatnonzero(labels >= 0)
    assert len(labelled) > 40
    for i in labelled:
        assert texts[i] in (f"a picture of {names[labels[i]]}", names[labels[i]])
    own = opened.take(range(60, 80), ["text", "text.align"])
    assert own.column(0).to_pylist() == own.column(1).to_pylist()
    chosen = opened.where("select.align = true")
    used = {names[label] for label in opened.array("label", chosen[chosen < 60]) if label >= 0}
    assert set(found["curation"]["seen_names"]) == used
    assert found["scores"]["zeroshot"]["seen_names"] == found["curation"]["seen_names"]
    with pytest.raises(CardError, match="config.templates"):
        run(replace(wanted, templates=("{}",), mode="cache"))


def test_bad_input_captions_from_labels_without_labels(made, tmp_path):
    wanted = config(made, tmp_path, captions_from_labels=True, labels="class", mode="cache")
    with pytest.raises(DataError, match="has no column 'class' of labels"):
        run(wanted)


def test_templates_that_are_given_win_over_the_stores_prompts(store, tmp_path):
    opened = Store.open(store)
    assert "prompts" in opened.meta
    own, _ = Steps(config(store, tmp_path), opened).prompts()
    assert own[:2] == ["a picture of zero", "zero"]
    kept, _ = Steps(config(store, tmp_path, templates=TEMPLATES), opened).prompts()
    assert kept[: len(opened.meta["prompts"][0])] == opened.meta["prompts"][0]


# -- curation


def test_leaks_are_found_by_image_and_by_caption(made, tmp_path):
    """A training pair takes a test pair's caption, another one its picture, slightly changed."""
    first = Store.open(made)
    test = first.where("split = 'test'")
    train = first.where("split = 'train'")
    words = first.take(test[:1], ["text"]).column(0).to_pylist()[0]
    picture = first.take(test[1:2], ["image"]).column(0).to_pylist()[0]
    path = rewritten(
        made,
        tmp_path / "s",
        text=lambda v: [words if i == train[0] else t for i, t in enumerate(v)],
        image=lambda v: [picture if i == train[1] else p for i, p in enumerate(v)],
    )
    base = config(path, tmp_path / "out", mode="curate", total=40, overwrite=True)
    chosen = {}
    for leaks_by in ("both", "image", "caption"):
        found = read_json(run(replace(base, leaks_by=leaks_by)) / "result.json")["curation"]
        chosen[leaks_by] = found
        assert found["leaked_images"] == 1
        assert found["leaked_captions"] >= 1
    both = chosen["both"]
    assert chosen["image"]["leakage"] == 1
    assert chosen["caption"]["leakage"] == both["leaked_captions"]
    assert both["leakage"] > max(chosen["image"]["leakage"], chosen["caption"]["leakage"]) - 1
    with pytest.raises(DataError, match=r"5000 pairs were asked .* share image or caption"):
        run(replace(base, total=5000))


def test_near_repeats_of_pictures_are_left_out(store, tmp_path):
    base = config(store, tmp_path / "out", mode="curate", total=20, overwrite=True)
    exact = read_json(run(base) / "result.json")["curation"]
    assert exact["removed_near_repeats"] == 0
    near = read_json(run(replace(base, near_repeats=0.9)) / "result.json")["curation"]
    assert near["removed_near_repeats"] > 0
    assert "near repeats" in (tmp_path / "out" / "curation.txt").read_text()
    opened = Store.open(store)
    rows = opened.where("select.align = true")
    steps = Steps(base, opened)
    features = steps.features(steps.encoder("image"), "image", rows).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    close = features @ features.T - 2 * np.eye(len(rows))
    assert close.max() < 0.9


def test_pairs_need_not_be_balanced(store, tmp_path):
    base = config(
        store, tmp_path / "out", mode="curate", total=30, overwrite=True, train_rows=EVERYTHING
    )
    found = read_json(run(replace(base, balance=False)) / "result.json")["curation"]
    assert found["size"] == 30
    assert len(set(found["coverage"].values())) > 2
    assert Store.open(store).card("select.align").config["balance"] is False


# -- training


def test_the_same_command_again_trains_nothing(store, tmp_path):
    wanted = config(store, tmp_path / "out", mode="train")
    first = read_json(run(wanted) / "result.json")
    weights = tmp_path / "out" / "run" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = read_json(run(wanted) / "result.json")
    assert weights.stat().st_mtime_ns == before
    for name in ("best_recall@1", "best_step", "curve", "steps"):
        assert again["training"][name] == first["training"][name]
    assert again["scores"] == first["scores"]
    with pytest.raises(ConfigError, match=r"config.lr is 0.01 now and was 0.003"):
        run(replace(wanted, train=replace(TRAIN, lr=0.01)))
    run(replace(wanted, train=replace(TRAIN, lr=0.01), fresh=True))
    assert weights.stat().st_mtime_ns != before


def test_a_killed_training_goes_on(store, tmp_path, monkeypatch):
    from understudy.recipes import ape_arms

    train = replace(TRAIN, checkpoint_every=5)
    wanted = config(store, tmp_path / "killed", mode="train", train=train)
    real, steps = ape_arms.watch, []

    def dying(*args):
        evaluate = real(*args)

        def watched(model, step):
            steps.append(step)
            if steps == [5, 10, 15]:
                raise KeyboardInterrupt
            return evaluate(model, step)

        return watched

    monkeypatch.setattr(ape_arms, "watch", dying)
    with pytest.raises(KeyboardInterrupt):
        run(wanted)
    resumed = read_json(run(wanted) / "result.json")["training"]
    assert steps == [5, 10, 15, 15, 20]
    whole = read_json(run(replace(wanted, out=tmp_path / "whole")) / "result.json")["training"]
    assert resumed["curve"] == whole["curve"]
    hashes = {
        weights_hash(load_aligner(tmp_path / name / "aligner.safetensors"))
        for name in ("killed", "whole")
    }
    assert len(hashes) == 1


def test_seeds_that_contradict_each_other_are_refused(store, tmp_path):
    wanted = config(store, tmp_path / "out", mode="train", train=replace(TRAIN, seed=3), seed=4)
    with pytest.raises(ConfigError, match="train.seed: 3, but seed is 4"):
        run(wanted)


def test_losses_of_held_out_and_of_training_pairs_are_kept(store, tmp_path):
    found = read_json(run(config(store, tmp_path / "out", mode="train")) / "result.json")
    curve = found["training"]["curve"]
    assert [point["step"] for point in curve] == [5, 10, 15, 20]
    assert set(curve[0]) == {"step", "recall@1", "loss", "train_recall@1", "train_loss"}
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]


def test_calibration_is_measured_at_the_learned_temperature(store, tmp_path, monkeypatch):
    from understudy.recipes import ape_train

    scales = []

    def scored(*args, scale, **options):
        scales.append(scale)
        return zeroshot_metrics(*args, scale=scale, **options)

    monkeypatch.setattr(ape_train, "zeroshot_metrics", scored)
    out = run(config(store, tmp_path / "out", mode="train"))
    aligner = load_aligner(out / "aligner.safetensors")
    assert scales == [pytest.approx(float(aligner.scale().detach()))]
    assert read_json(out / "result.json")["scores"]["zeroshot"]["scale"] == scales[0]


# -- arms


def test_scratch_trains_the_towers_that_are_named(store, tmp_path):
    wanted = config(store, tmp_path, arm="scratch", scratch_size=24)
    steps = Steps(wanted, Store.open(store))
    pairing = steps.pairing
    model = pairing.model()
    side = pairing.side("image", steps.rows["pool"][:2])
    assert side.values.shape == (2, 3, 24, 24)
    assert pairing.fresh.facts["model"] == "clip-conv-nano"
    texts = pairing.side("text", steps.rows["pool"][:2])
    assert texts.values.shape[1] == pairing.fresh.facts["context_length"]
    assert type(model.towers["text"]).__name__ == "TextTower"
    with pytest.raises(ConfigError, match="scratch_model: 'mci0' is no CLIP"):
        Steps(replace(wanted, scratch_model="mci0"), Store.open(store)).pairing.model()


def test_the_claims_scratch_is_what_it_was(store):
    """The verdict is stored; its arms keep the towers that it was reached with."""
    from understudy.models.image.conv import ConvConfig
    from understudy.models.preprocess import Preprocess
    from understudy.recipes.ape_arms import ArmConfig, Pairing
    from understudy.reinforce.encoder_specs import make_encoder

    opened = Store.open(store)
    text = make_encoder("letters=char-ngrams?dim=8", "text", lambda: ["a"])
    tower, pixels = ConvConfig(image_size=16, channels=(4, 8), strides=(2, 2)), Preprocess(size=16)
    arm = ArmConfig(arm="scratch", dim=4, pixels=pixels, tower=tower, text_width=12)
    pairing = Pairing(opened, text, text, arm, seed=3)
    model = pairing.model()
    assert [m.in_dim for m in pairing.modalities()] == [8, 12]
    assert type(model.towers["text"]).__name__ == "NgramTower"
    assert model.towers["text"].config == text.module.config
    assert pairing.side("image", np.arange(2)).values.shape == (2, 3, 16, 16)


# -- cost


def test_the_budget_claims_only_what_it_counts(store, tmp_path):
    steps = Steps(config(store, tmp_path), Store.open(store))
    rows = steps.rows["pool"]
    plan = budget_plan(steps, rows)
    once = plan.value("encoders, each pair once (cached)")
    # 16 filters of 3x3 on three channels at 32 pixels, by hand
    assert once == 2 * len(rows) * 16 * 27 * 32 * 32
    assert any("the cost of encoder 'words' is not in it" in note for note in plan.notes)
    tuned = budget_plan(Steps(replace(steps.config, arm="scratch"), Store.open(store)), rows)
    assert tuned.value("training the towers") > plan.value("training")
    assert not any("cache" in note for note in tuned.notes)
    labels = [row.label for row in tuned.rows]
    assert "encoders, each pair once (cached)" not in labels
    assert "feature cache" not in labels


def test_operations_are_in_the_result_with_and_without_a_cache(store, tmp_path):
    found = read_json(run(config(store, tmp_path / "out", mode="train")) / "result.json")
    flop = found["training"]["flop"]
    assert flop["cached"] == flop["heads"] + flop["encoders_once"]
    assert flop["uncached"] == flop["heads"] + flop["encoders_every_step"] > flop["cached"]


# -- preview, page, command


def test_preview_counts_and_writes_nothing(store, tmp_path):
    before = Store.open(store).columns
    made = ape.preview(config(store, tmp_path / "out"))
    assert (made.value("pairs: pool"), made.value("pairs: test")) == (108, 40)
    assert made.value("images still to encode by eye") == 160
    assert made.value("encoders, each pair once (cached)") > 0
    assert Store.open(store).columns == before
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="no such store"):
        ape.preview(config(tmp_path / "none", tmp_path))


def test_command_writes_a_page_and_prints_json(store, tmp_path, capsys):
    words = ["run", "ape", str(store), "--out", str(tmp_path / "out"), "--train.steps", "6"]
    words += ["--train.batch-size", "24", "--train.warmup-steps", "0", "--train.eval-every", "3"]
    words += ["--image-encoders", "eye=random-conv?dim=16&filters=16&grid=2"]
    words += ["--text-encoders", "words=tfidf-svd?dim=24", "--text-head.hidden", "16"]
    words += ["--total", "40", "--train.device", "cpu"]
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recipe"] == "ape"
    assert not (tmp_path / "out").exists()
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["result"]["training"]["steps"] == 6
    html = Path(printed["report"]).read_text()
    for part in ("Which encoders fit", "Curation", "held-out pairs", "in all, without"):
        assert part in html
