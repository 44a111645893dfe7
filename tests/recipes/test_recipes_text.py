"""Recipes of text: plans, registers, what the claims' checks accept, and their arms' counts."""

import json

import numpy as np
import pytest

from understudy.core.errors import ConfigError
from understudy.curate.pool_sets import SCORE, Sets, best
from understudy.data.tokens import TokenInfo, TokenStore
from understudy.recipes import PAPERS, RECIPES, dclm_claim, repetitions_claim
from understudy.recipes import dataset_decomposition_claim as dd
from understudy.recipes.repetitions_arms import ARMS, DECAYS, FILTERED, SUPERSET, counts_of
from understudy.recipes.repetitions_arms import weight_decay as decay_of

NAMES = ("dclm", "repetitions", "dataset-decomposition")
SETTINGS = {**repetitions_claim.SETTINGS, "budget": 20_000, "context": 64, "tokens_per_step": 256}


@pytest.mark.parametrize("name", NAMES)
def test_they_are_registered_with_claim_plan_and_config(name):
    module = RECIPES.load(name)
    assert module.CLAIM.recipe == name
    assert len(module.CLAIM.seeds) == 3
    assert PAPERS[name][0]
    assert module.PLAN().recipe == name
    assert module.__doc__.count(f"understudy verify {name}") == 1
    with pytest.raises(ConfigError, match="scale"):
        module.PLAN(scale="laptop")


def test_the_dclm_plan_has_the_published_counts():
    plan = RECIPES.load("dclm").PLAN()
    published = {
        "400m-1x": (411_616_256, 8_232_325_120, 2.0e19),
        "1b-1x": (1_439_795_200, 28_795_904_000, 2.4e20),
        "3b-1x": (2_795_932_160, 55_918_643_200, 9.4e20),
        "7b-1x": (6_889_410_560, 137_788_211_200, 5.7e21),
        "7b-2x": (6_889_410_560, 275_576_422_400, 1.1e22),
    }
    for scale, (parameters, tokens, flop) in published.items():
        assert plan.value(f"{scale}: parameters as published") == parameters
        assert plan.value(f"{scale}: tokens") == tokens
        assert plan.value(f"{scale}: training") == pytest.approx(flop, rel=0.05)
    one = RECIPES.load("dclm").PLAN(model="1b-1x")
    assert one.value("1b-1x: parameters") == 1_439_893_504
    assert "400m-1x: tokens" not in one.text()
    with pytest.raises(ConfigError, match="no scale or model '2b'"):
        RECIPES.load("dclm").PLAN(model="2b")


def test_the_decomposition_plan_has_the_known_costs():
    plan = RECIPES.load("dataset-decomposition").PLAN()
    assert plan.value("mean length of a sequence") == pytest.approx(482, abs=0.5)
    assert plan.value("mean context of a token") == pytest.approx(1018, abs=0.5)
    assert plan.value("a token, chunks of 8,192") == pytest.approx(10.43e9, rel=1e-3)
    assert plan.value("saved") == pytest.approx(0.174, abs=1e-3)
    with pytest.raises(ConfigError, match="no language model"):
        RECIPES.load("dataset-decomposition").PLAN(model="mobileclip-s0")


def test_the_repetition_plan_has_the_published_worth():
    plan = RECIPES.load("repetitions").PLAN()
    assert plan.value("worth of 10 passes") == pytest.approx(0.781, abs=5e-4)
    with pytest.raises(ConfigError, match="no scale '9b'"):
        RECIPES.load("repetitions").PLAN(model="9b")


def results(**losses):
    return {arm: {"clean_nll": np.array(values)} for arm, values in losses.items()}


def swept(filtered, superset, forty=3.2):
    found = dict(zip(FILTERED, filtered, strict=True)) | dict(zip(SUPERSET, superset, strict=True))
    found["filtered-40"] = [forty] * 3
    return results(**found)


def test_repetition_checks_compare_each_side_at_its_best_decay():
    few = [[3.0] * 3, [2.9] * 3, [2.8] * 3, [3.1] * 3, [3.3] * 3]
    many = [[2.95] * 3, [2.9] * 3, [3.0] * 3, [3.1] * 3, [3.3] * 3]
    passed, text = repetitions_claim.repeats_win(swept(few, many))
    assert passed
    assert "filtered at 0.3 against the superset at 0.1: gain +0.1000" in text
    assert not repetitions_claim.repeats_win(swept(few, [[2.84] * 3] * 5))[0]
    assert repetitions_claim.decay_grows(swept(few, many))[0]
    mixed = [list(row) for row in few]
    mixed[2][0], mixed[2][1] = 3.5, 3.5  # two seeds now prefer 0.1, as one pass does
    assert not repetitions_claim.decay_grows(swept(mixed, many))[0]
    assert repetitions_claim.gain_shrinks(swept(few, many, 3.2))[0]
    assert not repetitions_claim.gain_shrinks(swept(few, many, 2.5))[0]


def test_decomposition_checks_read_time_and_curves():
    def arm(seconds, final, step):
        points = {f"seconds@{k}": np.full(3, seconds * (k + 1) / 10) for k in range(10)}
        points |= {f"watched@{k}": np.full(3, 6.0 - step * (k + 1)) for k in range(10)}
        return {"seconds": np.full(3, seconds), "held_out_nll": np.full(3, final), **points}

    found = {"chunks": arm(100.0, 4.0, 0.2), "natural": arm(80.0, 4.0, 0.2),
             "short": arm(82.0, 4.0, 0.2), "grow-p2": arm(80.0, 3.9, 0.25)}  # fmt: skip
    assert dd.saves_time(found)[0]
    passed, text = dd.sooner(found)
    assert passed
    assert "0.64" in text  # 8 of 10 points of 80 seconds
    assert not dd.sooner({**found, "grow-p2": arm(80.0, 4.1, 0.19)})[0]
    assert not dd.saves_time({**found, "natural": arm(95.0, 4.0, 0.2)})[0]
    calm, wild = {"spikes": np.array([1.0] * 3)}, {"spikes": np.array([4.0] * 3)}
    assert dd.calmer({"grow-p2-hot": calm, "uniform-hot": wild})[0]
    assert not dd.calmer({"grow-p2-hot": wild, "uniform-hot": calm})[0]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sets")
    info = TokenInfo(kind="documents", tokenizer="t", tokenizer_hash="h", vocab_size=99, eot_id=0)
    import pyarrow as pa

    for name, count in (("raw", 400), ("dedup", 600)):
        rows = {
            "id": [f"{name}{i}" for i in range(count)],
            "tokens": [
                rng.integers(1, 99, n).astype(np.uint16) for n in rng.integers(40, 160, count)
            ],
            SCORE: rng.random(count).astype(np.float32),
        }
        TokenStore.create(folder / "tokens" / name, [rows], info, facts={SCORE: pa.float32()})
    return Sets(folder=folder)


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_repetition_arm_fills_the_budget_with_the_documents_it_names(arm, sets):
    settings = {**SETTINGS, "c_max": 10, "most_repeats": 60}
    name, counts, facts = counts_of(arm, 7, settings, sets)
    tokens = TokenStore.open(sets.tokens(name))
    sizes = tokens.lengths.astype(np.int64) + 1
    used = counts > 0
    assert (counts * sizes).sum() >= settings["budget"] + 256
    again = counts_of(arm, 7, settings, sets)[1]
    assert again.tolist() == counts.tolist()
    if arm.startswith("filtered"):
        scores = tokens.store.array(SCORE)
        assert scores[used].min() >= np.sort(scores)[::-1][59]
        epochs = 40 if arm == "filtered-40" else 10
        assert counts[used].mean() == pytest.approx(epochs, rel=0.35)
    if arm.startswith("superset"):
        assert set(counts[used]) <= {1, 2}
    if arm == "permuted":
        greedy = counts_of("greedy", 7, settings, sets)[1]
        assert not np.array_equal(counts, greedy)
        assert abs(int(used.sum()) - int((greedy > 0).sum())) <= 1
    assert facts["unique_tokens"] <= sizes.sum()


def test_arms_name_their_weight_decay():
    assert [decay_of(arm, SETTINGS) for arm in FILTERED] == list(DECAYS)
    assert decay_of("greedy", SETTINGS) == 0.03


def test_best_keeps_at_least_one_and_ties():
    scores = np.array([0.1, 0.9, 0.9, 0.5], np.float32)
    assert best(scores, 0.01).tolist() == [1, 2]
    assert best(scores, 0.75).tolist() == [1, 2, 3]
    assert best(scores, 1.0).tolist() == [0, 1, 2, 3]


def test_dclm_arms_are_cumulative_and_the_settings_plain_data():
    assert [ARM[0] for ARM in dclm_claim.ARMS.values()] == [
        "raw", "heuristics", "dedup", "dedup", "dedup", "dedup",
    ]  # fmt: skip
    for settings in (dclm_claim.SETTINGS, repetitions_claim.SETTINGS, dd.SETTINGS):
        assert json.loads(json.dumps(settings)) == settings
