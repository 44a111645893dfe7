"""FastVLM: the plan's tables, the claim's wiring, a run on a small store, the commands."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from understudy.cli import main
from understudy.core.errors import ConfigError
from understudy.data import scenes
from understudy.evaluate.claim_verify import verify
from understudy.models import load
from understudy.models.count import parameters
from understudy.recipes import RECIPES, fastvlm, fastvlm_claim
from understudy.recipes.fastvlm_arms import RIVALS, latencies, make_arm, words
from understudy.recipes.fastvlm_claim import ARMS, SETTINGS, not_dominated
from understudy.recipes.fastvlm_plan import COUNTED, TTFT_ROWS

TINY = {**SETTINGS, "train": 4, "test": 4, "size": 128, "batch": 4, "steps": 2, "width": 24,
        "depth": 1, "resolutions": [128], "repeats": 1, "inferences": 1, "discard": 0, "trim": 0,
        "ttft_samples": 5}  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return fastvlm.PLAN()


def test_the_plan_prints_the_published_towers(plan):
    assert plan.value("parameters of fastvithd, folded") == 122_714_208
    assert plan.value("parameters of naive-4-stage, folded") == 96_868_992
    for name, (count, macs) in COUNTED.items():
        assert plan.value(f"parameters of {name}, folded") == pytest.approx(count, rel=1e-3)
        for side, published in zip((256, 512, 1024), macs, strict=True):
            assert plan.value(f"{name} at {side} px") == pytest.approx(published, rel=1e-3)
    parts = {
        "stem": 12_960, "stage 1": 160_320, "down-sampler into stage 2": 46_656,
        "stage 2": 3_693_312, "down-sampler into stage 3": 167_040, "stage 3": 28_929_024,
        "down-sampler into stage 4": 628_992, "positions of stage 4": 38_400,
        "stage 4": 28_498_944, "down-sampler into stage 5": 2_437_632,
        "positions of stage 5": 76_800, "stage 5": 56_810_496, "last convolution": 1_213_632,
    }  # fmt: skip
    assert {part: plan.value(f"fastvithd, {part}") for part in parts} == parts
    assert sum(parts.values()) == 122_714_208


def test_the_plan_prints_tokens_and_activations(plan):
    for side, tokens in {256: 16, 512: 64, 768: 144, 1024: 256, 1536: 576}.items():
        assert plan.value(f"visual tokens at {side} px") == tokens
    assert plan.value("visual tokens of 2x2 tiles of 1,024 px") == 1280
    for stage, mib in enumerate((12, 6, 3, 1.5, 0.75), 1):
        assert plan.value(f"fastvithd, one map of stage {stage} at 1,024 px") == mib


def test_waiting_times_are_vision_and_prefill(plan):
    rows = [row for row in plan.rows if row.label.startswith("TTFT")]
    assert len(rows) == len(TTFT_ROWS)
    for row in rows:
        assert abs(row.value - row.published) < 1
    assert plan.value("LLaVA-OneVision 0.5B over FastVLM 0.5B") == pytest.approx(85, abs=0.5)
    assert plan.value("device hours: S1.5, 15 M captions at 1,024 px") == 77 * 8
    for row in TTFT_ROWS:
        if "tiles" in row[0]:
            assert row[2] == 1280
            assert row[3] == pytest.approx(5 * 116.3)


def test_bad_input_plan():
    with pytest.raises(ConfigError, match="'laptop' is not one of paper"):
        fastvlm.PLAN(scale="laptop")
    with pytest.raises(ConfigError, match="'mobileclip-s0' is no tower that is counted"):
        fastvlm.PLAN(model="mobileclip-s0")


def test_the_arms_have_equal_tokens_and_one_decoder():
    made = {arm: make_arm(arm, 1000, SETTINGS) for arm in ARMS}
    tokens = {arm: m.config.tokens_per_view for arm, m in made.items()}
    assert tokens == {"hybrid-512": 64, "hybrid-256": 16, "vit-64": 64, "vit-16": 16}
    decoders = {parameters(m.language) for m in made.values()}
    assert len(decoders) == 1
    assert 2e6 < decoders.pop() < 4e6
    assert made["hybrid-512"].image.tower.state_dict().keys() == (
        made["hybrid-256"].image.tower.state_dict().keys()
    )
    assert all(m.tokenizer.fingerprint() == words().fingerprint() for m in made.values())
    unknown = words().unknown
    for text in ("which digit is at the bottom right?", "how many digits are there?", "none", "7"):
        assert unknown not in words().encode(text)


def test_the_claim_runs(tmp_path, monkeypatch):
    fixed = {f"{r}_{what}": 2.0 for r in RIVALS for what in ("over_ours_512", "growth")}
    # timed in the test below
    monkeypatch.setattr(fastvlm_claim, "latencies", lambda settings: fixed)
    claim = replace(fastvlm.CLAIM, scales={"laptop": TINY})
    found = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "work", out=tmp_path / "claims")
    data = json.loads((tmp_path / "claims" / "laptop" / "fastvlm.json").read_text())
    assert data["recipe"] == "fastvlm"
    assert set(found.arms) == set(ARMS)
    assert min(found.arms["hybrid-512"]["ttft_over_vit"]) > 0
    assert found.arms["vit-64"]["ttft_over_vit"] == [1.0, 1.0]
    checks = {check.name: check.passed for check in found.checks}
    assert all(passed for name, passed in checks.items() if name.startswith("A:"))


def test_growth_is_the_quotient_of_two_factors():
    found = latencies({**TINY, "resolutions": [128, 512]})
    for rival in ("naive", "vit", "four"):
        quotient = found[f"{rival}_over_ours_512"] / found[f"{rival}_over_ours_128"]
        assert found[f"{rival}_growth"] == pytest.approx(quotient)


def test_domination_is_judged_over_seeds():
    def results(**cells):
        return {
            arm: {"accuracy": np.array(a), "ttft_over_vit": np.array(c)}
            for arm, (a, c) in cells.items()
        }

    good = {"hybrid-512": ([0.9, 0.9], [1.2, 1.2]), "hybrid-256": ([0.8, 0.8], [0.7, 0.7]),
            "vit-64": ([0.7, 0.7], [1.0, 1.0]), "vit-16": ([0.6, 0.6], [0.8, 0.8])}  # fmt: skip
    assert not_dominated(results(**good))[0]
    bad = {**good, "hybrid-256": ([0.5, 0.5], [0.9, 0.9])}
    passed, text = not_dominated(results(**bad))
    assert not passed
    assert "hybrid-256 dominated in 100.0%" in text


def test_a_run_trains_a_sweep_and_writes_its_page(tmp_path, capsys):
    store = scenes.to_store("qa", tmp_path / "store", train=4, test=2, seed=1000, size=128)
    out = tmp_path / "run"
    words = ["run", "fastvlm", str(store.path), "--out", str(out), "--resolutions", "64", "128"]
    words += ["--languages", "tiny", "--steps", "1", "--batch-size", "2", "--ttft-samples", "1"]
    assert main([*words, "--dry-run", "--json"]) == 0
    counted = {r["label"]: r["value"] for r in json.loads(capsys.readouterr().out)["rows"]}
    assert counted["tiny at 128: visual tokens at most"] == 4
    assert counted["tiny at 128: stage all"] == 2
    assert not out.exists()
    assert main(words) == 0
    found = json.loads((out / "result.json").read_text())
    assert [row["resolution"] for row in found["sweep"]] in ([64, 128], [128, 64])
    assert any(row["kept"] for row in found["sweep"])
    run = found["runs"]["tiny-128"]
    assert run["ttft"]["visual_tokens"] == 4
    assert 0 <= run["scores"]["accuracy"] <= 1
    assert load(run["model"]).config.preprocess.size == 128
    assert "report:" in capsys.readouterr().out
    assert "no other is faster and better" in (out / "sweep.html").read_text()


def test_stages_follow_the_recipe():
    base = fastvlm.Config(store="x", resolutions=(256, 512), stages="two-stage", lr=1e-4, steps=5)
    first, second = fastvlm.stages_of(base, 512)
    assert (first.resolution, second.resolution) == (256, 512)
    assert (first.lr, second.lr) == (1e-3, 1e-4)
    assert first.steps == second.steps == 5
    assert len(fastvlm.stages_of(replace(base, stages="scaled"), 512)) == 4
    with pytest.raises(ConfigError, match="at least one language model"):
        fastvlm.Config(store="x", languages=())


def test_ttft_command(capsys, tmp_path):
    page = tmp_path / "ttft.html"
    words = ["model", "ttft", "fastvlm-nano", "--resolutions", "64,128", "--samples", "2",
             "--warmup", "0", "--prompt-tokens", "2", "--report", str(page)]  # fmt: skip
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "first_token" in text
    assert "paper TTFT" in text
    assert "no ratios: they need at least 5 samples" in text
    assert "No ratios" in page.read_text()
    assert main([*words[:3], "--resolutions", "64,x"]) == 2
    assert "expected whole numbers of pixels" in capsys.readouterr().err
    assert main(["model", "ttft", "mci-nano"]) == 2
    assert "not a vision-language model" in capsys.readouterr().err
    assert main(["model", "ttft"]) == 2


def test_the_recipe_is_listed():
    assert "fastvlm" in RECIPES
    assert fastvlm.CLAIM.describe().count("B:") >= 4
