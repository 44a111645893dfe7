"""tic-clip: the claim's wiring, the plan's numbers, a run on a small store, its page."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from understudy.cli import main
from understudy.core.errors import ConfigError, DataError
from understudy.data import scenes
from understudy.data.periods import PeriodRule
from understudy.data.periods_stream import Stream, StreamRule
from understudy.data.scenes.drifting_digits import PROMPTS, STYLES, class_counts, class_shares
from understudy.evaluate.check_limits import AtMost
from understudy.evaluate.checks import Difference, Within
from understudy.evaluate.claim_verify import conclude, verify
from understudy.recipes import RECIPES
from understudy.recipes import tic_clip as recipe
from understudy.recipes.tic_clip_arms import method_config, rule_of
from understudy.recipes.tic_clip_claim import ARMS, SETTINGS
from understudy.recipes.tic_clip_config import EMOJI, Config, continual, preset
from understudy.report.transfer_matrix import transfer_heat_map
from understudy.train.config import TrainConfig

TINY = {
    **SETTINGS, "steps": 2, "train": 24, "test": 6, "iterations": 2, "batch": 8, "warmup": 1,
    "held_share": 0.2,
}  # fmt: skip


# -- the world


def test_two_digits_come_at_a_step_and_old_ones_fade():
    for step in range(5):
        shares = class_shares(step)
        assert shares.sum() == pytest.approx(1)
        assert set(np.flatnonzero(shares == shares.max())) == {2 * step, 2 * step + 1}
        assert (shares[2 * step + 2 :] == 0).all()
    last = class_shares(4)
    assert last[0] / last[8] == pytest.approx(0.1)
    assert class_counts(3, 250).sum() == 250
    assert len({style for styles in STYLES for style in styles}) == 18


def test_scans_of_the_test_are_never_learned_from(tmp_path):
    store = scenes.to_store("drifting-digits", tmp_path / "s", train=60, test=20)
    table = store.take(range(store.num_rows), ["scan", "split", "time", "label", "text"])
    scan, split = np.array(table["scan"].to_pylist()), np.array(table["split"].to_pylist())
    assert not set(scan[split == "train"]) & set(scan[split == "test"])
    assert sorted(set(table["time"].to_pylist())) == list(range(6))
    assert store.num_rows == 6 * 80
    words = store.meta["classes"]
    named = zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    assert all(words[label] in text.replace(",", "").split() for text, label in named)
    with pytest.raises(ConfigError, match="'steps' must be at least 1, got 0"):
        scenes.to_store("drifting-digits", tmp_path / "x", steps=0)
    with pytest.raises(ConfigError, match=r"test_share in \(0, 1\)"):
        scenes.to_store("drifting-digits", tmp_path / "y", test_share=1.0)


# -- the claim


def test_arms_differ_in_method_and_memory_alone():
    configs = {arm: method_config(arm, 1000, SETTINGS) for arm in ARMS}
    assert len({repr(c.student) for c in configs.values()}) == 1
    assert {c.method for c in configs.values()} == {
        "sequential", "cumulative-all", "cumulative-exp", "cumulative-equal", "oracle", "restart",
        "patching", "lwf",
    }  # fmt: skip
    assert configs["cumulative-exp"].memory == configs["cumulative-equal"].memory == 2.0
    assert configs["cumulative-exp-small"].memory == 1.0
    student = configs["oracle"].student
    assert (student.train.steps, student.train.batch_size) == (150, 128)
    assert all("{}" in prompt for prompt in PROMPTS)
    assert rule_of(SETTINGS, 1).held_share == 0.1


def test_the_claim_is_as_stated():
    claim = RECIPES.load("tic-clip").CLAIM
    assert len(claim.seeds) == 5
    assert max(claim.seeds) < 1000
    required = [check for check in claim.checks if check.required]
    gain = next(c for c in required if isinstance(c, Difference) and c.margin)
    assert (gain.better, gain.worse, gain.margin, gain.metric) == (
        "cumulative-all", "sequential", 0.10, "backward",
    )  # fmt: skip
    near = next(c for c in required if isinstance(c, Within) and c.metric == "backward")
    assert (near.a, near.b, near.floor, near.num_se) == ("cumulative-all", "oracle", 0.03, 0.0)
    cost = next(c for c in required if isinstance(c, AtMost))
    assert cost.limit == pytest.approx(6 / 21)
    forward = {c.b for c in required if isinstance(c, Within) and c.metric == "forward"}
    assert forward == {"sequential", "cumulative-exp", "cumulative-equal"}


def results(**backward):
    usual = {
        "sequential": 0.3, "cumulative-exp": 0.5, "cumulative-equal": 0.55, "cumulative-all": 0.6,
        "oracle": 0.62,
    }  # fmt: skip
    values = {arm: {**usual, **backward}.get(arm, 0.4) for arm in ARMS}
    return {
        arm: {
            "backward": value + np.array([0.0, 0.001, -0.001, 0.002, -0.002]),
            "forward": np.full(5, 0.2),
            "in_domain": np.full(5, 0.5),
            "last": np.full(5, 0.5),
            "compute": np.full(5, 21.0 if arm == "oracle" else 6.0),
        }
        for arm, value in values.items()
    }


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"sequential": 0.51, "cumulative-exp": 0.55}, False),  # nine points
        ({"oracle": 0.64}, False),  # four points ahead
        ({"oracle": 0.56}, False),  # four points behind
        ({"cumulative-exp": 0.65}, False),  # above everything
        ({"cumulative-equal": 0.25}, False),  # below sequential
    ],
)
def test_the_claim_can_fail(changed, passes):
    claim = recipe.CLAIM
    verdict = conclude(claim, "laptop", claim.seeds, results(**changed), 0.0)
    assert verdict.passed is passes
    far = results(**changed)
    far["sequential"]["forward"] = np.full(5, 0.24)
    assert not conclude(claim, "laptop", claim.seeds, far, 0.0).passed


def test_the_claim_runs_from_end_to_end_with_tiny_settings(tmp_path):
    chosen = ("sequential", "cumulative-exp", "patching")
    check = Difference(
        name="x", metric="backward", better="cumulative-exp", worse="sequential", margin=-1.0,
        ci_above=None,
    )  # fmt: skip
    claim = replace(
        recipe.CLAIM,
        scales={"laptop": TINY},
        arms=tuple(arm for arm in recipe.CLAIM.arms if arm.name in chosen),
        checks=(check,),
    )
    verdict = verify(claim, seeds=(1000, 1001), workdir=tmp_path / "work", out=tmp_path / "out")
    assert set(verdict.arms) == set(chosen)
    assert set(recipe.CLAIM.metrics) == set(verdict.arms["sequential"])
    assert verdict.arms["sequential"]["compute"] == [2.0, 2.0]
    assert (tmp_path / "out" / "laptop" / "tic-clip.json").exists()


# -- the plan


def test_plan_counts_the_published_streams():
    made = recipe.PLAN()
    assert made.value("parameters of both towers") == pytest.approx(149.7e6, rel=2e-3)
    assert made.value("oracle, 7 steps") == 28
    assert made.value("cumulative-all-star, 7 steps") == 10.5
    assert made.value("oracle over cumulative-all") == 4
    assert made.value("oracle over cumulative-all-star") == pytest.approx(2.667, abs=1e-3)
    assert made.value("medium: pairs seen in one C") == 4_096 * 4_500
    assert made.value("xlarge: pairs seen in one C") == 90_112 * 20_500
    assert made.value("oracle at 50 steps") == 1275
    ratio = made.value("large: oracle") / made.value("large: cumulative-all-star")
    assert ratio == pytest.approx(1.4 / 0.525)
    assert "xlarge: pool" not in recipe.PLAN(scale="large").text()
    with pytest.raises(ConfigError, match="is no CLIP"):
        recipe.PLAN(model="mci0")
    with pytest.raises(ConfigError, match="'huge' is not one of paper, medium, large, xlarge"):
        recipe.PLAN(scale="huge")


# -- run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("tic") / "s"
    return scenes.to_store("drifting-digits", path, steps=3, train=20, test=8, size=16)


def config_of(store, out, **changes) -> Config:
    usual = {
        "store": store.path,
        "out": out,
        "methods": ("cumulative-exp", "oracle"),
        "changes": {"image.image_size": 16},
        "vocab_size": 520,
        "tasks": ("zeroshot", "retrieval"),
        "prompts": ("{}",),
        "train": TrainConfig(steps=2, batch_size=8, lr=1e-3, device="cpu"),
    }
    return Config(**{**usual, **changes})


def test_a_run_writes_matrices_and_a_page(store, tmp_path, capsys):
    folder = recipe.run(config_of(store, tmp_path / "out", seeds=(0, 1)))
    found = json.loads((folder / "result.json").read_text())
    assert [s["name"] for s in found["stream"]] == ["0", "1", "2"]
    assert set(found["matrices"]) == {"cumulative-exp", "oracle"}
    one = found["matrices"]["oracle"]
    assert one["compute"] == 6
    for task in ("zeroshot", "retrieval"):
        made = [np.array(m["values"]) for m in one["tasks"][task]]
        assert [m.shape for m in made] == [(3, 3), (3, 3)]
        lower = np.mean([m[np.tril_indices(3, -1)].mean() for m in made])
        assert one["summary"][task]["backward"] == pytest.approx(lower)
    saving = {r["method"]: r["saving"] for r in found["compute"]}
    assert saving == {"cumulative-exp": 2.0, "oracle": 1.0}
    from understudy.report.transfer_matrix import write_matrix_page

    page = write_matrix_page(folder, title="Stream").read_text()
    assert "heatmap" in page
    assert "cumulative-exp" in page
    assert "compute of the stream (C)" in page


def test_a_stream_ends_in_a_run_that_can_go_on(store, tmp_path, capsys):
    config = config_of(
        store, tmp_path / "out", methods=("sequential",),
        stream=StreamRule(periods=PeriodRule(merge=("0", "1"))),
    )  # fmt: skip
    folder = recipe.run(config)
    found = json.loads((folder / "result.json").read_text())
    assert "16 of 56" not in found["unknown_times"]
    assert "28 of 84 rows have no possible time in 'time'" in found["unknown_times"]
    last = found["matrices"]["sequential"]["runs"][-1]
    argv = ["update", "continue", last, str(store.path), "--period", "2", "--dry-run"]
    assert main(argv) == 2  # merged periods are told one by one
    assert "added at the end of merge" in capsys.readouterr().err
    assert main([*argv, "--merge", "0", "1", "2"]) == 0
    assert "step-03-2" in capsys.readouterr().out
    assert main([*argv, "--merge", "0", "1..2"]) == 2


def test_the_command_line_runs_and_previews(store, tmp_path, capsys):
    settings = {
        "store": store.path,
        "out": str(tmp_path / "out"),
        "changes": {"image.image_size": 16},
        "methods": ["sequential"],
        "train": {"steps": 1, "batch_size": 8, "device": "cpu"},
    }
    (tmp_path / "run.json").write_text(json.dumps(settings))
    argv = ["run", "tic-clip", "--config", str(tmp_path / "run.json")]
    assert main([*argv, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "time step 0" in out
    assert "sequential: training" in out
    assert not (tmp_path / "out").exists()
    assert main(argv) == 0
    assert f"report:  {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out


def test_emoji_preset_fills_what_was_left_alone(tmp_path):
    made = preset(Config(store=tmp_path, preset="emoji"))
    assert made.stream == EMOJI
    assert len(made.stream.periods.merge) == 7
    assert made.changes["image.image_size"] == 64
    own = StreamRule(test_share=0.5)
    assert preset(Config(store=tmp_path, preset="emoji", stream=own)).stream == own
    assert preset(Config(store=tmp_path)).stream == StreamRule()
    assert continual(made, "lwf", 3).student.seed == 3


@pytest.mark.asset("emoji-google", "emoji-twitter")
def test_real_emoji_make_a_stream_with_an_unseen_style(tmp_path):
    from understudy.data import fetch

    store = fetch.to_store("emoji", tmp_path / "emoji", skin_tones=False)
    stream = Stream.of(store, EMOJI)
    assert len(stream) == 7
    assert min(stream.sizes) >= 70
    assert not (stream.periods.unknown if stream.periods else 1)
    vendors = np.array(store.take(range(store.num_rows), ["vendor"]).column(0).to_pylist())
    for step in stream:
        assert set(vendors[step.rows]) == {"google"}
        assert set(vendors[step.eval_rows]) == {"twitter"}


def test_what_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="'all' is not one of oracle"):
        config_of(store, tmp_path, methods=("all",))
    with pytest.raises(ConfigError, match="seeds: expected at least one, all different"):
        config_of(store, tmp_path, seeds=(1, 1))
    with pytest.raises(DataError, match="time step 1, '0': 20 rows are fewer than a batch of 64"):
        recipe.run(config_of(store, tmp_path, train=TrainConfig(steps=1, batch_size=64)))
    rule = StreamRule(periods=PeriodRule(column="year"))
    with pytest.raises(DataError, match="no column 'year' to take times from"):
        recipe.run(config_of(store, tmp_path, stream=rule))


def test_heat_maps_of_losses_turn_the_colours():
    from understudy.evaluate.transfer_matrix import TransferMatrix

    values = [[1.0, 2.0], [3.0, 4.0]]
    matrix = TransferMatrix.square(values, ("a", "b"), lower_is_better=True)
    heat = transfer_heat_map(matrix, limits=(0.0, 5.0))["data"][0]
    assert heat["z"] == values
    assert heat["reversescale"] is True
    assert (heat["zmin"], heat["zmax"]) == (0.0, 5.0)
    heat = transfer_heat_map(TransferMatrix.square(values, ("a", "b")))["data"][0]
    assert heat["reversescale"] is False
