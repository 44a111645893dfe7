"""The MobileCLIP2 recipe: a run with captioner and search, the plan, the claim's parts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from understudy import models
from understudy.cli import main
from understudy.core.errors import CardError, ConfigError
from understudy.data.store import Store
from understudy.evaluate.claim_verify import judge, verify
from understudy.evaluate.plans import embedding_bytes
from understudy.models.runs import load_run
from understudy.recipes import PAPERS, RECIPES
from understudy.recipes import mobileclip2 as recipe
from understudy.recipes.mobileclip2_arms import (
    ARMS,
    SETTINGS,
    SIGMAS,
    latencies,
    student,
    wrong_scale,
)
from understudy.recipes.mobileclip2_claim import CLAIM, SWEEP
from understudy.reinforce.plan import sample_bytes
from understudy.train.captioner import CaptionerConfig, train_captioner
from understudy.train.config import TrainConfig
from understudy.train.presets import preset

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from student_world import few_steps, pair_store, teacher_clip

TINY = {**SETTINGS, "pairs": 40, "test": 24, "retrieval": 20, "batch": 8, "steps": 2, "views": 1,
        "web_pairs": 24, "web_steps": 2, "curated_pairs": 16, "curated_steps": 2,
        "resolutions": [32, 64, 128, 512], "rounds": 1, "inferences": 4}  # fmt: skip


# -- the plan


@pytest.mark.parametrize(
    ("model", "image", "image_folded", "text"),
    [
        ("mobileclip2-s0", 11_406_464, 11_356_992, 63_428_096),
        ("mobileclip2-s4", 321_784_064, 321_568_896, 123_650_304),
    ],
)
def test_the_plan_prints_the_published_sizes(model, image, image_folded, text):
    plan = recipe.PLAN(scale="paper", model=model)
    assert plan.value("parameters of the image tower, training form") == image
    assert plan.value("parameters of the image tower, folded") == image_folded
    assert plan.value("parameters of the text tower, folded") == text
    rows = {row.label: row for row in plan.rows}
    for tower in ("image", "text"):
        row = rows[f"parameters of the {tower} tower, folded"]
        assert row.value == pytest.approx(row.published, rel=5e-3)
        assert rows[f"latency of the {tower} tower"].published > 0
    assert f"{image_folded:,}" in plan.text()


def test_bytes_of_the_published_sets():
    plan = recipe.PLAN(scale="paper", model="mobileclip2-s4")
    assert plan.value("bytes per pair: float32") == 49_152
    assert plan.value("bytes per pair: bfloat16 or float16") == 24_576
    rows = {row.label: row for row in plan.rows}
    for label in ("bytes added in all, float32", "bytes of the reinforced set, float32"):
        assert rows[label].value == pytest.approx(rows[label].published, rel=0.05)
    dims = {"a": (768, 768), "b": (768, 768)}
    sizes = {"views": 2, "real": 1, "synthetic": 5}
    assert sample_bytes(dims, **sizes, dtype="float32") == 49_152
    assert sample_bytes(dims, **sizes, dtype="bfloat16", stride=14) == 24_576 + 28
    assert embedding_bytes(views=2, captions=5, dim=1536, itemsize=4) == 49_152
    small = {row.label: row for row in recipe.PLAN(scale="paper-12m").rows}
    added = small["bytes added in all"]
    assert added.value == pytest.approx(added.published, rel=0.1)
    assert small["bytes per pair: bfloat16 or float16"].value == 110_592


def test_samples_and_captioner():
    large = recipe.PLAN(model="mobileclip2-s3")
    assert large.value("samples seen") == 200_000 * 114_688 == 22_937_600_000
    assert recipe.PLAN(model="mobileclip2-s0").value("samples seen") == 13_107_200_000
    assert large.value("captioner, parameters") == 638_450_177
    assert large.value("search, one scale of one teacher") > 0
    small = recipe.PLAN(scale="paper-12m", model="mobileclip2-b")
    assert small.value("passes over the data") == pytest.approx(19.2)
    with pytest.raises(ConfigError, match="'laptop' is not one of paper"):
        recipe.PLAN(scale="laptop")
    with pytest.raises(ConfigError, match="'mci0' is no CLIP; give mobileclip2-s0, say"):
        recipe.PLAN(model="mci0")


@pytest.mark.parametrize(
    ("model", "batch", "warmup", "least"),
    [
        ("mobileclip2-s0", 65_536, 10_000, 1e-6),
        ("mobileclip2-b", 65_536, 2_000, 1e-6),
        ("mobileclip2-s4", 114_688, 2_000, 0.0),
    ],
)
def test_published_budgets(model, batch, warmup, least):
    config = preset("mobileclip2-large", model)
    train = config.train
    assert (train.steps, train.batch_size, train.warmup_steps) == (200_000, batch, warmup)
    assert (train.lr, train.min_lr, train.weight_decay) == (1e-3, least, 0.2)
    assert config.scales == (70.0, 60.0)
    assert config.lam == 1.0
    ablation = preset("mobileclip2-ablation")
    assert ablation.train.samples_seen == 30_000 * 8_192
    assert ablation.model == "mobileclip2-b"


def test_the_recipe_is_listed():
    assert RECIPES["mobileclip2"] == "understudy.recipes.mobileclip2"
    assert PAPERS["mobileclip2"][1] == "2508.20691"


# -- a run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a plain store, two teachers and a captioner, all tiny."""
    from understudy.data import scenes

    folder = tmp_path_factory.mktemp("world")
    store = scenes.to_store(
        "pairs", folder / "s", train=24, teacher=0, test=12, seed=1000, num_captions=1, masks=False
    )
    teachers = [models.save(teacher_clip(i), folder / f"t{i}.safetensors") for i in range(2)]
    config = CaptionerConfig(vocab_size=560, train=few_steps(20), seed=1000, workers=0)
    captioner = train_captioner(store, None, config, folder / "captioner").path
    return store, [str(t) for t in teachers], str(captioner)


def _config(world, out, **changes) -> recipe.Config:
    store, teachers, captioner = world
    base = {
        "store": Path(store.path),
        "out": out,
        "teachers": tuple(teachers),
        "captioners": (captioner,),
        "num_captions": 2,
        "search": (5.0, 50.0),
        "search_steps": 1,
        "model": "clip-conv-nano",
        "vocab_size": 560,
        "views": "weak",
        "num_views": 2,
        "train": TrainConfig(steps=2, batch_size=8, device="cpu"),
    }
    return recipe.Config(**{**base, **changes})


def test_run_captions_reinforces_searches_and_trains(world, tmp_path, capsys):
    out = tmp_path / "run"
    text = recipe.preview(_config(world, out)).text()
    assert "students of the search" in text
    assert "captions shown to c0" in text
    assert not out.exists()
    assert recipe.run(_config(world, out)) == out
    store = Store.open(world[0].path)
    for column in ("caption.c0", "t1.caption.c0.1", "t0.image.main.1", "t1.text", "view.main.1"):
        assert store.has(column), column
    assert store.card("t0.image.main.0").config["dtype"] == "bfloat16"
    found = json.loads((out / "result.json").read_text())
    assert set(found["students"]) == {"plain", "reinforced"}
    best = [curve["best"] for curve in found["search"]]
    assert [curve["teacher"] for curve in found["search"]] == ["t0", "t1"]
    assert found["config"]["scales"] == best
    record = json.loads((out / "reinforced" / "config.json").read_text())
    assert record["context"]["student"]["captioner"] == "c0"
    assert record["data"]["objective"]["scales"] == best
    assert (out / "search" / "t1" / "scale-50" / "seed-0" / "model.safetensors").exists()
    assert load_run(out / "reinforced").config.name == "clip-conv-nano"
    # again: nothing is asked, written or trained
    before = (out / "reinforced" / "model.safetensors").stat().st_mtime_ns
    recipe.run(_config(world, out))
    assert (out / "reinforced" / "model.safetensors").stat().st_mtime_ns == before


def test_the_command_runs_on_what_is_stored(world, tmp_path, capsys):
    store = pair_store(tmp_path / "stored", train=16, test=8)
    out = tmp_path / "run"
    words = ["run", "mobileclip2", store.path, "--out", str(out), "--model", "clip-conv-nano"]
    words += ["--vocab-size", "560", "--train.steps", "2", "--train.batch-size", "8"]
    words += ["--train.warmup-steps", "0", "--no-baseline", "--loss", "sigmoid"]
    words += ["--biases", "-10", "-10", "--captions", "mix"]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing has been written" in capsys.readouterr().out
    assert main(words) == 0
    found = json.loads((out / "result.json").read_text())
    assert list(found["students"]) == ["reinforced"]
    assert "search" not in found
    assert load_run(out / "reinforced").config.sigmoid
    assert (out / "report.html").exists()


def test_the_command_searches_and_shows_the_scales(tmp_path, capsys):
    store = pair_store(tmp_path / "stored", train=16, test=8)
    out = tmp_path / "run"
    words = ["run", "mobileclip2", store.path, "--out", str(out), "--model", "clip-conv-nano"]
    words += ["--vocab-size", "560", "--train.steps", "1", "--train.batch-size", "8"]
    words += ["--train.warmup-steps", "0", "--no-baseline", "--search", "5", "50"]
    assert main(words) == 0
    assert "search.html" in capsys.readouterr().err
    assert "Logit scales of teachers" in (out / "search" / "search.html").read_text()


def test_bad_input_run(world, tmp_path):
    with pytest.raises(ConfigError, match="search: the scales are given already"):
        recipe.run(_config(world, tmp_path, scales=(1.0, 2.0)))
    with pytest.raises(ConfigError, match="imitate: it names stored teachers"):
        recipe.run(_config(world, tmp_path, imitate=("t0",)))
    # whichever sees it first: the students, or what is to be reinforced
    with pytest.raises(ConfigError, match="3 (logit )?scales for 2 teachers"):
        recipe.run(_config(world, tmp_path, scales=(1.0, 2.0, 3.0), search=()))
    lost = _config(world, tmp_path, teachers=(), view_set="other", search=())
    with pytest.raises(CardError, match="no embeddings of view set 'other'"):
        recipe.run(lost)


# -- the claim


def test_arms_differ_in_what_they_are_called_after():
    scales = {"a": 50.0, "b": 20.0}
    arms = {arm: student(arm, 1000, SETTINGS, scales) for arm in ARMS}
    assert [arms[arm].scales for arm in SWEEP] == [(s,) for s in SIGMAS]
    assert {arms[arm].teachers for arm in SWEEP} == {("a",)}
    assert (arms["single-b"].teachers, arms["single-b"].scales) == (("b",), (20.0,))
    both = arms["ensemble"]
    assert (both.teachers, both.scales) == (("a", "b"), (50.0, 20.0))
    wrong = arms["ensemble-wrong"].scales
    assert wrong == pytest.approx((10 * 1000**0.5,) * 2)
    assert wrong[0] == pytest.approx(wrong_scale(scales, 10.0))
    assert arms["ensemble-wrong"] == replace(both, scales=wrong)
    assert arms["real-only"] == replace(both, captions="real")
    assert arms["weak"] == replace(both, captioner="weak")
    assert arms["aligned"] == replace(both, captioner="aligned")
    assert {arm.train for arm in arms.values()} == {both.train}


def test_the_claim_is_the_sheets():
    assert SIGMAS == (1, 5, 10, 20, 50, 100, 300)
    assert len(CLAIM.seeds) == 5
    assert not any(seed >= 1000 for seed in CLAIM.seeds)
    assert all(check.required for check in CLAIM.checks)
    margins = {c.name: getattr(c, "margin", None) for c in CLAIM.checks}
    assert margins["own scales beat a wrong shared one"] == 0.01
    limit = next(c for c in CLAIM.checks if c.name.startswith("towers: five"))
    assert (limit.limit, limit.metric) == (1.5, "latency_ratio_512")


def _results(sweep, ensemble=0.6, single_b=0.5, **more):
    seeds = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    values = {"real-only": 0.3, "weak": 0.4, "aligned": 0.5, "ensemble-wrong": 0.4, **more}
    found = {arm: {"r1": value + seeds} for arm, value in zip(SWEEP, sweep, strict=True)}
    found |= {arm: {"r1": value + seeds} for arm, value in values.items()}
    found["single-b"] = {"r1": single_b + seeds}
    ones = np.ones(5)
    found["ensemble"] = {
        "r1": ensemble + seeds,
        "scale_a": 50 * ones,
        "scale_b": 20 * ones,
        **{f"latency_ratio_{r}": v * ones for r, v in ((128, 1.2), (256, 1.5), (512, 1.9))},
    }
    return found


HILL = (0.3, 0.4, 0.5, 0.545, 0.55, 0.545, 0.4)


def test_results_of_the_expected_shape_pass():
    checks = judge(CLAIM, _results(HILL))
    assert {c.name for c in checks if not c.passed} == set()


@pytest.mark.parametrize(
    ("results", "failed"),
    [
        (_results((0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6)), {"temperature: interior maximum"}),
        (_results((0.54, 0.54, 0.54, 0.545, 0.55, 0.545, 0.54)), {"temperature: best beats both"}),
        (_results((0.3, 0.4, 0.5, 0.4, 0.55, 0.45, 0.4)), {"temperature: flat top"}),
        (_results(HILL, ensemble=0.52, single_b=0.515), {"ensemble: as good as the best"}),
        (_results(HILL, ensemble=0.54, single_b=0.545), {"ensemble: better than the worst"}),
        (_results(HILL, **{"ensemble-wrong": 0.595}), {"own scales beat a wrong shared one"}),
        (_results(HILL, aligned=0.35), {"captioner: aligned beats weak"}),
        (_results(HILL, weak=0.2), {"captioner: weak beats real only"}),
    ],
)
def test_results_of_another_shape_fail(results, failed):
    checks = judge(CLAIM, results)
    missed = {c.name for c in checks if not c.passed}
    assert all(any(name.startswith(f) for name in missed) for f in failed)


def test_a_ratio_that_does_not_grow_fails():
    results = _results(HILL)
    results["ensemble"]["latency_ratio_512"] = np.full(5, 1.1)
    missed = {c.name for c in judge(CLAIM, results) if not c.passed}
    assert {n for n in missed if n.startswith("towers")} == {
        "towers: ratio grows with resolution",
        "towers: five stages 1.5x faster at 512 px",
    }


def test_towers_are_timed_turn_by_turn():
    found = latencies({**TINY, "resolutions": [32, 64]})
    assert set(found) == {"latency_ratio_32", "latency_ratio_64"}
    assert all(value > 0 for value in found.values())


def test_the_claim_runs_from_end_to_end_with_tiny_settings(tmp_path):
    kept = ("sigma-1", "sigma-300", "ensemble", "aligned")
    tiny = {**TINY, "sigmas": [1.0, 300.0]}
    claim = replace(
        CLAIM,
        arms=tuple(arm for arm in CLAIM.arms if arm.name in kept),
        checks=tuple(c for c in CLAIM.checks if set(c.arms) <= set(kept)),
        scales={"laptop": tiny},
    )
    verdict = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "w", out=None)
    assert set(verdict.arms) == set(kept)
    assert set(verdict.arms["ensemble"]) >= {"r1", "scale_a", "scale_b", "latency_ratio_512"}
    assert all(0 <= v <= 1 for v in verdict.arms["aligned"]["r1"])
