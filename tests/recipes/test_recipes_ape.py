"""The recipe: every mode and arm on a small store, the claim's machinery, the plan, the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ape_world import IMAGE, TEXT, TRAIN, config, make_store

from understudy import cli
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.files import read_json
from understudy.data.store import Store
from understudy.evaluate.claims import Context
from understudy.evaluate.zeroshot import average_prompts
from understudy.models.multimodal.aligner import load_aligner
from understudy.models.multimodal.heads import IDENTITY
from understudy.recipes import ape, ape_claim, ape_digits
from understudy.recipes.ape import Config, preset, run
from understudy.recipes.ape_arms import ARMS, ArmConfig, Pairing
from understudy.recipes.ape_plan import Budget


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("ape") / "store")


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def test_run_caches_ranks_curates_trains_and_scores(store, tmp_path):
    wanted = config(
        store,
        tmp_path / "out",
        image_encoders=(*IMAGE, "other=random-conv?dim=8&filters=8&grid=1"),
        train_rows="split = 'pool' OR split = 'train'",
        total=60,
        assign="any",
    )
    out = run(wanted)
    found = read_json(out / "result.json")
    assert [report["column"] for report in found["cache"]] == [
        "feature.eye.image",
        "feature.other.image",
        "feature.words.text",
    ]
    assert len(found["ranking"]) == 2
    assert found["ranking"][0]["cka"] >= found["ranking"][1]["cka"]
    best = found["ranking"][0]["image"]
    assert found["curation"]["size"] == 60
    assert set(found["curation"]["coverage"].values()) <= {6, 5, 7}
    assert found["training"]["pairs"] == 60
    assert found["training"]["trainable"] < 5e6
    assert 0 <= found["scores"]["i2t_r1"] <= 1
    assert 0 <= found["scores"]["zeroshot"]["top1"] <= 1
    aligner = load_aligner(out / "aligner.safetensors")
    assert aligner.config.modality("image").encoder == best
    assert aligner.manifest["curation"]["size"] == 60
    assert aligner.manifest["encoders"]["text"] == TEXT[0]
    opened = Store.open(store)
    chosen = opened.where("select.align = true")
    assert len(chosen) == 60
    for name in ("rank.txt", "curation.txt", "budget.txt", "budget.json"):
        assert (out / name).stat().st_size > 0
    splits = set(opened.take(chosen, ["split"])["split"].to_pylist())
    assert "test" not in splits


def test_modes_go_on_from_what_earlier_ones_left(store, tmp_path):
    base = config(store, tmp_path / "out")
    first = read_json(run(replace(base, mode="cache")) / "result.json")
    assert set(first) == {"pairs", "cache"}
    assert sum(report["written"] for report in first["cache"]) == 2 * 160
    trained = read_json(run(replace(base, mode="train")) / "result.json")
    assert sum(report["written"] for report in trained["cache"]) == 0
    scored = read_json(run(replace(base, mode="evaluate")) / "result.json")
    assert scored["scores"] == trained["scores"]


def test_two_runs_are_equal(store, tmp_path):
    from understudy.models.io import weights_hash

    hashes = []
    for name in ("a", "b"):
        out = run(config(store, tmp_path / name, mode="train"))
        hashes.append(weights_hash(load_aligner(out / "aligner.safetensors")))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_and_scores(store, tmp_path, arm):
    wanted = config(
        store,
        tmp_path / "out",
        mode="train",
        arm=arm,
        dim=8 if arm == "cca" else 0,
        duplicates="refuse" if arm == "ape" else "positives",
        train=replace(TRAIN, steps=6, batch_size=16, eval_every=3),
    )
    out = run(wanted)
    found = read_json(out / "result.json")
    assert found["training"]["arm"] == arm
    assert np.isfinite(found["scores"]["mean_r1"])
    again = read_json(run(replace(wanted, mode="evaluate")) / "result.json")["scores"]
    assert again["mean_r1"] == pytest.approx(found["scores"]["mean_r1"])
    assert (out / "towers.safetensors").exists() == (arm in ("lit", "scratch"))


def test_arms_train_what_they_say(store, tmp_path):
    from understudy.recipes.ape_steps import Steps

    counts = {}
    for arm in ("ape", "lit", "scratch", "linear"):
        steps = Steps(config(store, tmp_path, arm=arm), Store.open(store))
        model = steps.pairing.model()
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        counts[arm] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert any("towers.image" in n for n in names) == (arm == "scratch")
        assert any("towers.text" in n for n in names) == (arm in ("lit", "scratch"))
    assert counts["ape"] < 0.5 * counts["lit"]


def test_image_relevance_and_mixed_sources(store, tmp_path):
    wanted = config(
        store,
        tmp_path / "out",
        mode="curate",
        relevance="image",
        target_rows="split = 'test'",
        train_rows="split = 'pool' OR split = 'train'",
        total=40,
        sources={"scenes:ape-pairs": 1.0},
    )
    found = read_json(run(wanted) / "result.json")["curation"]
    assert found["size"] == 40
    assert found["sources"] == {"scenes:ape-pairs": 40}
    assert found["coverage"] == {}


def test_held_out_pairs_come_from_the_pool_where_none_are_named(store, tmp_path):
    from understudy.recipes.ape_steps import Steps

    rows = Steps(config(store, tmp_path), Store.open(store)).rows
    assert (len(rows["pool"]), len(rows["val"]), len(rows["test"])) == (108, 12, 40)
    assert not set(rows["pool"]) & set(rows["val"])


def test_preset_fills_what_was_left_alone():
    plain = Config(store=Path("x"), preset="emoji", total=5)
    filled = preset(plain)
    assert filled.image_encoders[0].startswith("lite0=asset:efficientnet-lite0")
    assert filled.text_head == IDENTITY
    assert "skin_tone = ''" in filled.test_rows
    assert filled.total == 5
    kept = preset(replace(plain, test_rows="split = 'vendor-test'"))
    assert kept.test_rows == "split = 'vendor-test'"
    assert preset(Config(store=Path("x"))) == Config(store=Path("x"))


def test_published_schedules_fill_in_heads_and_budget():
    lock = preset(Config(store=Path("x"), preset="sharelock"))
    assert (lock.text_head.kind, lock.text_head.hidden) == ("sharelock", 4096)
    train = lock.train
    assert (train.steps, train.batch_size, train.accumulate) == (5_000, 1_024, 16)
    assert (train.warmup_steps, train.weight_decay, train.clip_norm) == (150, 1e-4, 1.0)
    freeze = preset(Config(store=Path("x"), preset="freeze-align", dim=64))
    assert freeze.image_head.kind == freeze.text_head.kind == "freeze-align"
    assert freeze.dim == 64
    assert freeze.train.warmup_steps * 15 == freeze.train.steps * 10
    assert (freeze.train.batch_size, freeze.train.weight_decay) == (14_400, 0.02)


def test_aligned_teacher_reads_the_file(store, tmp_path):
    from understudy.recipes.ape_steps import Steps
    from understudy.reinforce.teachers.aligned import AlignedTeacher

    wanted = config(store, tmp_path / "out", mode="train")
    out = run(wanted)
    steps = Steps(wanted, Store.open(store))
    teacher = AlignedTeacher(
        "ours",
        steps.encoder("image"),
        steps.encoder("text"),
        load_aligner(out / "aligner.safetensors"),
    )
    texts = ["a picture of seven", "the digit 3"]
    pairing = steps.pairing
    model = load_aligner(out / "aligner.safetensors")
    want = pairing.embed(model, "text", pairing.text_side(texts))
    assert np.allclose(teacher.embed_texts(texts), want.numpy(), atol=1e-5)


def test_class_weights_are_normalised_averaged_and_normalised_again():
    vectors = torch.randn(7, 5)
    counts = [3, 4]
    got = average_prompts(vectors, counts)
    at = 0
    for c, count in enumerate(counts):
        total = torch.zeros(5)
        for row in vectors[at : at + count]:
            total += row / row.norm()
        mean = total / count
        assert torch.allclose(got[c], mean / mean.norm(), atol=1e-6)
        at += count


# -- plan


def test_budget_meets_the_sheets_numbers():
    budget = Budget(pairs=1e6, image_dim=1024, text_dim=1024, batch=4096, steps=1, dim=64)
    assert budget.cache_bytes == pytest.approx(4.1e9, rel=0.01)
    tokens = Budget(pairs=1, image_dim=0, text_dim=768, batch=1, steps=1, dim=1, tokens=32)
    assert tokens.cache_bytes - 768 * 2 == pytest.approx(48e3, rel=0.03)
    assert 6 * 4096 * 5e6 == pytest.approx(0.12e12, rel=0.03)
    image, text = budget.head_parameters
    assert budget.head_flop == 6 * 4096 * (image + text)
    assert budget.logit_flop == 4 * 4096 * 4096 * 64


@pytest.mark.parametrize("scale", ["paper", "laptop"])
def test_plan_counts_the_encoders_once(scale):
    made = ape.PLAN(scale=scale)
    once = made.value("encoders, each pair once (cached)")
    assert once < made.value("encoders, at every step (uncached)")
    assert any("count the encoders' forward passes once" in note for note in made.notes)
    if scale == "paper":
        assert made.value("trained weights, of a BERT-large text tower") == pytest.approx(
            0.23, abs=0.005
        )


# -- claim

TINY = {
    **ape_digits.SETTINGS,
    "sizes": [50, 60],
    "headline": 60,
    "steps": 12,
    "batch": 24,
    "pretrain_steps": 12,
    "encoder_images": 120,
    "corpus": 1500,
    "paraphrase_steps": 8,
    "pool": 300,
    "uncurated": 100,
    "test": 60,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("claim")
    common = {
        "recipe": "ape",
        "scale": "laptop",
        "settings": TINY,
        "shared_dir": home,
        "seed_dir": home,
    }
    facts = json.loads(json.dumps(ape_digits.prepare(1000, Context(arm_dir=home, **common))))
    return Context(arm_dir=home, prepared=facts, **common)


@pytest.mark.parametrize("pair", ["a", "b"])
@pytest.mark.parametrize("kind", list(ape_claim.ARMS))
def test_arms_of_the_claim_report_their_metrics(prepared, tmp_path, kind, pair):
    context = replace(prepared, arm_dir=tmp_path)
    found = ape_claim.run_arm(f"{kind}-{pair}", 1000, context)
    wanted = {"zeroshot", "trainable"}
    if kind in ("curated", "uncurated"):
        wanted |= {"relevant"}
    else:
        wanted |= {"zeroshot_small", "recall_gap", "zeroshot@50", "recall_gap@50"}
    assert set(found) == wanted
    assert all(np.isfinite(value) for value in found.values())


def test_claim_sees_no_test_scan_and_its_pool_is_mostly_irrelevant(prepared):
    store = Store.open(prepared.seed_dir / "store")
    labels = store.array("label", store.where("split = 'pool'"))
    assert 0.05 < (labels >= 0).mean() < 0.2
    images = store.take(store.where("split = 'train'"), ["image"])["image"].to_pylist()
    test = store.take(store.where("split = 'test'"), ["image"])["image"].to_pylist()
    assert not set(images) & set(test)


def test_curation_of_the_claim_is_balanced_and_clean(prepared):
    _, pairing = ape_claim._pairing("curated-a", 1000, prepared)
    rows, report = ape_claim.curate(pairing, 60)
    assert len(rows) == len(set(rows.tolist()))
    assert sum(report.coverage.values()) == report.size
    assert report.leakage == 0


def test_claim_states_what_the_sheet_states():
    claim = ape.CLAIM
    assert claim.seeds == tuple(range(10))
    assert claim.settings("laptop")["sizes"] == [50, 200, 1000]
    assert len(claim.arms) == 16
    required = [check.name for check in claim.checks if check.required]
    for pair in ("a", "b"):
        for part in ("scratch by 10", "1 point below", "a quarter", "200 curated", "at chance"):
            assert any(part in name and f"({pair})" in name for name in required), part


# -- command and bad input


def test_command_runs_the_recipe(store, tmp_path, capsys):
    words = ["run", "ape", str(store), "--out", str(tmp_path / "out"), "--mode", "rank"]
    words += ["--image-encoders", *IMAGE, "--text-encoders", *TEXT]
    assert cli.main(words) == 0
    assert "written" in capsys.readouterr().out
    assert "eye" in (tmp_path / "out" / "rank.txt").read_text()


def test_bad_input_class_list_with_duplicates(store, tmp_path):
    with pytest.raises(ConfigError, match="'cat' is class 0 and class 1"):
        run(config(store, tmp_path, mode="curate", classes=("cat", "cat"), total=4))


def test_bad_input_pool_smaller_than_the_request(store, tmp_path):
    with pytest.raises(DataError, match="5000 pairs were asked of a pool with"):
        run(config(store, tmp_path, mode="curate", total=5000))


def test_bad_input_cache_of_another_encoder(store, tmp_path):
    run(config(store, tmp_path, mode="cache"))
    other = ("eye=random-conv?dim=16&filters=16&grid=2&seed=1",)
    with pytest.raises(CardError, match=r"feature.eye.image.*checkpoint hash"):
        run(config(store, tmp_path, mode="cache", image_encoders=other))


def test_bad_input_missing_parts(store, tmp_path):
    with pytest.raises(ConfigError, match="no such store; make one with"):
        run(config(tmp_path / "none", tmp_path))
    with pytest.raises(ConfigError, match="say how many pairs"):
        run(config(store, tmp_path, mode="curate"))
    with pytest.raises(ConfigError, match="needs target_rows"):
        run(config(store, tmp_path, mode="curate", relevance="image", total=4))
    with pytest.raises(DataError, match="no selection 'align'; run mode 'curate'"):
        run(config(store, tmp_path, mode="train", total=4))
    with pytest.raises(DataError, match="no test pairs; give --test-rows"):
        run(config(store, tmp_path, mode="train", test_rows="split = 'none'"))


def test_bad_input_arm_without_tokens_or_tuning(store):
    class Pooled:
        name, hash, dim, tokens, preprocess = "ear", "h", 4, False, {}

    opened = Store.open(store)
    with pytest.raises(ConfigError, match="arm ape-tokens: encoder 'ear' has no tokens"):
        Pairing(opened, Pooled(), Pooled(), ArmConfig(arm="ape-tokens"))
    with pytest.raises(ConfigError, match="encoder 'ear' cannot be tuned here"):
        Pairing(opened, Pooled(), Pooled(), ArmConfig(arm="lit"))
    with pytest.raises(ConfigError, match="'clip' is not one of"):
        ArmConfig(arm="clip")


def test_bad_input_plan():
    with pytest.raises(ConfigError, match="'huge' is not one of"):
        ape.PLAN(scale="huge")
    with pytest.raises(ConfigError, match="leave --model out"):
        ape.PLAN(model="mobileclip-s0")
