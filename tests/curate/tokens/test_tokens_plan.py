"""Means, costs, the parameter solver and the planner against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.tokens.cost import (
    measure_steps,
    mixture_flop,
    mixture_seconds,
    saving,
)
from understudy.curate.tokens.plan import plan_buckets
from understudy.curate.tokens.solver import solve_counts
from understudy.curate.tokens.stats import (
    lengths_mean,
    log2_histogram,
    mean_context,
    mean_length,
    weighted_length,
)
from understudy.data.sampler_buckets import BucketSampler
from understudy.models.language.cost import training_flop
from understudy.models.language.language_config import openlm_1b

NATURAL = dict(zip(range(6, 14), (3, 6, 10, 17, 21, 17, 13, 9), strict=True))
OPENLM_1B = openlm_1b().decoder
WIKIPEDIA = {
    8: 579_862_528,
    9: 816_840_704,
    10: 871_366_656,
    11: 723_517_440,
    12: 498_073_600,
    13: 305_135_616,
}
REFERENCE = {
    "epochs": 8,
    "ranks": 8,
    "log2": range(8, 14),
    "shards": [3560, 5996, 7410, 6309, 5157, 4513],
    "per_shard": [4096, 2048, 1024, 512, 256, 128],
    "odds": [32, 16, 8, 4, 2, 1],
    "tokens_per_step": 64 * 8192,
}


@pytest.mark.parametrize(
    ("mixture", "length", "context"),
    [
        (NATURAL, 482, 1018),
        (dict.fromkeys(range(6, 14), 12.5), 257, 1020),
        ({10: 1}, 1024, 512),
        (dict.fromkeys(range(6, 12), 16), 195, 336),
    ],
)
def test_means_of_the_paper(mixture, length, context):
    # arXiv 2405.13226, table 1 (rounded; 511.5 is printed as 512)
    assert mean_length(mixture) == pytest.approx(length, abs=0.51)
    assert mean_context(mixture) == pytest.approx(context, abs=0.51)


@settings(max_examples=50, deadline=None)
@given(counts=st.dictionaries(st.integers(0, 12), st.integers(1, 50), min_size=1))
def test_means_of_buckets_are_those_of_their_sequences(counts):
    lengths = np.concatenate([np.full(n, 2**k) for k, n in counts.items()])
    tokens = {k: n << k for k, n in counts.items()}
    length, context = lengths_mean(lengths)
    assert mean_length(tokens) == pytest.approx(length)
    assert mean_context(tokens) == pytest.approx(context)
    assert weighted_length(tokens) == pytest.approx((lengths**2).sum() / lengths.sum())


def test_costs_of_a_1b_model():
    assert weighted_length(NATURAL) == pytest.approx(2037, abs=0.5)
    assert mixture_flop(NATURAL, OPENLM_1B) == pytest.approx(8.62e9, rel=1e-3)
    assert saving(NATURAL, 8192, OPENLM_1B) == pytest.approx(0.17, abs=0.005)


def test_solver_known_answer():
    found = solve_counts(28_795_904_000, **REFERENCE)
    assert found.sequences == (1507328, 1277952, 794624, 335872, 137216, 61440)
    assert found.weights == (1472, 1248, 776, 328, 134, 60)
    assert found.tokens_per_epoch == 3_607_101_440
    assert found.tokens == 28_856_811_520
    assert not found.exact


def test_solver_meets_what_can_be_met():
    unit = 4096 * 8 * 256  # tokens of a unit, equal in all buckets
    found = solve_counts(unit * 429 * 8, **REFERENCE)
    assert found.exact
    assert found.tokens == unit * 429 * 8
    more = solve_counts(unit * 431 * 8, **REFERENCE)
    assert more.exact
    assert more.tokens == unit * 431 * 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"workers": 1000},
            "bucket D_8 has 3560 shards for 8 ranks x 1000 loader workers = 8000; use 445 workers",
        ),
        ({"odds": [1, 2]}, "6 buckets, 6 shard counts, 6 shard sizes and 2 odds"),
        (
            {"per_shard": [4096, 2048, 1024, 512, 256, 3]},
            "bucket D_13: 24 sequences (shard x ranks x workers) are no whole number of",
        ),
    ],
)
def test_solver_mistakes_are_named(change, words):
    with pytest.raises(ConfigError) as error:
        solve_counts(28_795_904_000, **{**REFERENCE, **change})
    assert words in str(error.value)


def test_solver_refuses_too_few_tokens():
    with pytest.raises(ConfigError, match="less than one unit of"):
        solve_counts(8 * 2**25, **REFERENCE)


def test_plan_of_wikipedia():
    sequences = {k: n >> k for k, n in WIKIPEDIA.items()}
    plan = plan_buckets(sequences, 524_288, model=OPENLM_1B)
    assert sum(plan.tokens.values()) == 3_794_796_544
    assert plan.total_steps == 7238
    text = "\n".join(plan.lines())
    assert "305,135,616" in text
    assert "17.6% saved" in text
    less = training_flop(OPENLM_1B, weighted_length(WIKIPEDIA)) / training_flop(OPENLM_1B, 8192)
    assert 1 - less == pytest.approx(0.176, abs=5e-4)


@pytest.mark.parametrize("tokens", [None, 64 * 40, {3: 640, 5: 320}])
def test_plan_is_what_the_sampler_does(tokens):
    held = {3: 200, 4: 80, 5: 33}
    options = {"tokens": tokens, "cycles": 3, "curriculum": "grow-linear"}
    plan = plan_buckets(held, 64, **options)
    sampler = BucketSampler({k: np.arange(n) for k, n in held.items()}, 64, **options)
    names, counts = np.unique(sampler.schedule(), return_counts=True)
    drawn = {k: n for k, n in plan.steps.items() if n}
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == drawn


def test_plan_refuses_what_the_sampler_refuses():
    with pytest.raises(ConfigError, match="more tokens are asked for"):
        plan_buckets({3: 64}, 64, tokens={3: 4096})
    with pytest.raises(ConfigError, match="use 64 \\(below\\) or 128 \\(above\\)"):
        plan_buckets({3: 64}, 100, world=8)


def test_steps_are_timed_by_their_median_after_warming_up():
    now, ran = [0.0], []
    seconds = {64: [9, 9, 9, 1, 2, 3, 4, 100], 128: [9, 9, 9, 5, 5, 5, 5, 5]}

    def step(length):
        ran.append(length)
        now[0] += seconds[length][ran.count(length) - 1]

    found = measure_steps(step, [64, 128], repeats=5, clock=lambda: now[0])
    assert (found[64].median, found[64].low, found[64].high) == (3, 1, 100)
    assert found[128].median == 5
    assert mixture_seconds({6: 10, 7: 2}, found) == 40
    with pytest.raises(ConfigError, match="length 256 was not measured"):
        mixture_seconds({8: 1}, found)
    with pytest.raises(ConfigError, match="repeats of 1 or more"):
        measure_steps(step, [64], repeats=0)


def test_histogram():
    assert log2_histogram(np.array([0, 1, 2, 3, 4, 7, 8])) == {0: 1, 1: 2, 2: 2, 3: 1}
