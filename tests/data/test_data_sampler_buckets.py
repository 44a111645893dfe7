"""Length buckets: constant tokens per step, the curriculum's odds, every sequence once, resume."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.core.errors import ConfigError
from understudy.data.sampler_buckets import BucketSampler
from understudy.data.sampler_buckets_checks import share_out
from understudy.data.sampler_buckets_curricula import curriculum_odds, draw_order
from understudy.data.samplers import Sampler

STEP = 64


def rows_of(counts: dict[int, int]) -> dict[int, np.ndarray]:
    """Give each bucket rows of its own, interleaved so that none is a range."""
    names = np.random.default_rng(0).permutation(sum(counts.values()))
    out, at = {}, 0
    for k, n in counts.items():
        out[k] = np.sort(names[at : at + n])
        at += n
    return out


BUCKETS = rows_of({2: 500, 3: 300, 4: 90, 5: 61})


def stream(sampler, steps):
    return [sampler.batch(s) for s in steps]


def test_is_a_sampler():
    assert isinstance(BucketSampler(BUCKETS, STEP), Sampler)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.dictionaries(st.integers(0, 5), st.integers(32, 90), min_size=1, max_size=5),
    curriculum=st.sampled_from(["uniform", "grow-linear", "grow-p2", "grow-p100", "natural"]),
    cycles=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_an_epoch_uses_every_sequence_once_in_full_steps(counts, curriculum, cycles, seed):
    counts = {k: n * 32 >> k for k, n in counts.items()}  # at least a batch each
    buckets = rows_of(counts)
    sampler = BucketSampler(buckets, 32, seed, curriculum=curriculum, cycles=cycles)
    seen: dict[int, list[int]] = {k: [] for k in counts}
    for step in range(sampler.steps_per_epoch):
        batch = sampler.batch(step)
        bucket = int(batch.size).bit_length() - 1
        assert len(batch.rows) * batch.size == 32
        assert set(batch.rows) <= set(buckets[bucket])
        assert batch.epoch == 0
        seen[bucket] += batch.rows.tolist()
    for k, rows in seen.items():
        assert len(rows) == len(set(rows)) == len(buckets[k]) // (32 >> k) * (32 >> k)


def test_passes_come_one_after_the_other_and_leave_out_others():
    sampler = BucketSampler({5: BUCKETS[5]}, STEP, cycles=3)
    assert sampler.steps == 30  # 61 sequences, two a step
    epochs = [
        np.concatenate([sampler.batch(s).rows for s in range(e * 30, (e + 1) * 30)])
        for e in range(4)
    ]
    assert all(len(np.unique(e)) == 60 for e in epochs)
    assert len(set().union(*(set(BUCKETS[5]) - set(e) for e in epochs))) > 1
    assert not np.array_equal(epochs[0], epochs[1])


def test_an_epoch_that_takes_less_goes_on_where_the_last_one_stopped():
    tokens = {2: 640, 3: 640, 4: 640, 5: 640}
    sampler = BucketSampler(BUCKETS, STEP, tokens=tokens, cycles=2)
    assert sampler.steps == 40
    first, second = (
        {int(r) for s in range(e * 40, e * 40 + 40) for r in sampler.batch(s).rows}
        for e in range(2)
    )
    assert not first & second


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.integers(0, 300), min_size=1, max_size=15), accumulate=st.integers(1, 2))
def test_resuming_is_arithmetic(steps, accumulate):
    options = {"cycles": 3, "accumulate": accumulate}
    sampler = BucketSampler(BUCKETS, STEP, 4, **options)
    for step in steps:
        again, fresh = sampler.batch(step), BucketSampler(BUCKETS, STEP, 4, **options).batch(step)
        np.testing.assert_array_equal(again.rows, fresh.rows)
        assert (again.size, again.epoch, again.step) == (fresh.size, fresh.epoch, step)


def test_ranks_and_micro_batches_share_one_step_of_one_bucket():
    whole = BucketSampler(BUCKETS, 256, 3)
    options = {"world": 2, "accumulate": 4}
    ranks = [BucketSampler(BUCKETS, 256, 3, rank=r, **options) for r in range(2)]
    assert ranks[0].steps == whole.steps
    assert ranks[0].steps_per_epoch == 4 * whole.steps
    for step in range(whole.steps):
        parts = [r.batch(step * 4 + m) for m in range(4) for r in ranks]
        assert {p.size for p in parts} == {whole.batch(step).size}
        assert {len(p.rows) * p.size for p in parts} == {32}
        joined = np.concatenate([p.rows for p in parts])
        np.testing.assert_array_equal(joined, whole.batch(step).rows)


def test_cycles_split_each_bucket_evenly():
    sampler = BucketSampler(BUCKETS, STEP, cycles=4)
    order, edges = sampler.schedule(), [0, *sampler.cycle_ends]
    assert edges[-1] == sampler.steps == len(order)
    for k, total in zip(sampler.buckets, sampler.batches, strict=True):
        counts = [np.count_nonzero(order[a:b] == k) for a, b in itertools.pairwise(edges)]
        assert sum(counts) == total
        assert max(counts) - min(counts) <= 1
    np.testing.assert_array_equal(
        order, [sampler.batch(s).size.bit_length() - 1 for s in range(len(order))]
    )


@pytest.mark.parametrize("weighting", ["batches", "raw"])
def test_frequencies_before_a_bucket_runs_out_follow_the_odds(weighting):
    # 4,000 batches a bucket and more; the first 600 steps of a cycle cannot exhaust any
    counts = {3: 8 * 4000, 4: 4 * 6000, 5: 2 * 8000}
    rows = {k: np.arange(n) for k, n in counts.items()}
    odds = {3: 4.0, 4: 2.0, 5: 1.0}
    seen = Counter()
    for seed in range(5):
        sampler = BucketSampler(rows, STEP, seed, odds=odds, weighting=weighting, cycles=1)
        seen.update(sampler.schedule()[:600].tolist())
    weights = np.array(
        [odds[k] * (counts[k] >> (6 - k) if weighting == "batches" else 1) for k in counts]
    )
    expected = weights / weights.sum() * 3000
    found = [seen[k] for k in counts]
    assert stats.chisquare(found, expected).pvalue > 1e-3
    other = weights[::-1] / weights.sum() * 3000
    assert stats.chisquare(found, other).pvalue < 1e-6


def algorithm_1(counts, weights, draw):
    """The paper's loop, step by step."""
    left, order = np.array(counts), []
    while left.any():
        p = np.where(left > 0, weights, 0.0)
        order.append(draw.choice(len(left), p=p / p.sum()))
        left[order[-1]] -= 1
    return order


def test_the_order_has_the_distribution_of_the_paper_s_loop():
    counts, weights = np.array([2, 1, 2]), np.array([4.0, 1.0, 2.0])
    draw = np.random.default_rng(5)
    ours = Counter(tuple(draw_order(counts, weights, draw).tolist()) for _ in range(6000))
    loop = Counter(tuple(int(i) for i in algorithm_1(counts, weights, draw)) for _ in range(6000))
    assert set(ours) == set(loop)
    assert len(ours) == 30  # 5! / (2! 1! 2!)
    table = [[ours[k] for k in ours], [loop[k] for k in ours]]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_natural_is_a_plain_shuffle():
    draw = np.random.default_rng(1)
    firsts = Counter(int(draw_order(np.array([3, 1]), None, draw)[0]) for _ in range(4000))
    assert abs(firsts[0] / 4000 - 0.75) < 0.03


def test_short_sequences_run_out_first():
    order = BucketSampler(
        rows_of({3: 800, 5: 200}), STEP, curriculum="grow-p100", cycles=1
    ).schedule()
    assert (order[:90] == 3).mean() > 0.95
    assert (order[-90:] == 5).all()


def test_named_odds():
    names = range(8, 14)
    assert list(curriculum_odds("uniform", names).values()) == [1] * 6
    assert list(curriculum_odds("grow-linear", names).values()) == [6, 5, 4, 3, 2, 1]
    assert list(curriculum_odds("grow-p2", names).values()) == [32, 16, 8, 4, 2, 1]
    p100 = list(curriculum_odds("grow-p100", names).values())
    assert [a / b for a, b in itertools.pairwise(p100)] == [100] * 5
    assert curriculum_odds("only-10", names) == {k: float(k == 10) for k in names}
    assert curriculum_odds("natural", names) is None
    with pytest.raises(ConfigError, match="Did you mean 'grow-p2'"):
        curriculum_odds("grow-p3", names)
    with pytest.raises(ConfigError, match="no bucket 2\\^7; there are D_8"):
        curriculum_odds("only-7", names)


def test_one_bucket_alone():
    sampler = BucketSampler(BUCKETS, STEP, curriculum="only-3")
    assert {sampler.batch(s).size for s in range(20)} == {8}
    assert sampler.steps == 300 // 8


def test_tokens_in_all_are_shared_out_as_the_buckets_are_filled():
    sampler = BucketSampler(BUCKETS, STEP, tokens=64 * 33, cycles=1)
    assert sampler.steps == 33
    there = np.array([500 // 16, 300 // 8, 90 // 4, 61 // 2])
    np.testing.assert_allclose(sampler.batches, there / there.sum() * 33, atol=1)


def test_repeat_reads_a_bucket_again_after_all_of_it():
    buckets = {2: np.arange(64), 3: np.arange(64, 96)}
    with pytest.raises(ConfigError) as error:
        BucketSampler(buckets, STEP, tokens={2: 768, 3: 128})
    assert "D_2: 768 asked, 256 available (3 epochs)" in str(error.value)
    assert "D_3: 128 asked, 256 available (1 epochs)" in str(error.value)
    sampler = BucketSampler(buckets, STEP, tokens={2: 768, 3: 128}, repeat=True, cycles=2)
    rows = Counter()
    for step in range(sampler.steps):
        rows.update(sampler.batch(step).rows.tolist())
    assert {rows[r] for r in range(64)} == {3}
    assert sum(rows[r] for r in range(64, 96)) == 16


def test_describe_names_the_data_not_the_rank():
    options = {"world": 2, "fingerprint": "abc"}
    a, b = (BucketSampler(BUCKETS, STEP, rank=r, **options).describe() for r in range(2))
    assert a == b
    assert a["fingerprint"] == "abc"
    other = {**BUCKETS, 5: BUCKETS[5][::-1]}
    assert BucketSampler(other, STEP, **options).describe() != a


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"tokens_per_step": 100},
            "multiple of 2^5 x 1 ranks x 1 micro-batches = 32: use 96 (below) or 128 (above)",
        ),
        (
            {"tokens_per_step": 96, "world": 2, "accumulate": 2},
            "no smaller value works; the next is 128 (above)",
        ),
        ({"odds": [1, 2, 3]}, "odds [1.0, 2.0, 3.0] do not fit the buckets D_2, D_3, D_4, D_5"),
        (
            {"odds": [1, 2, 3, -1]},
            "odds [1.0, 2.0, 3.0, -1.0] of the buckets D_2, D_3, D_4, D_5: expected numbers",
        ),
        ({"odds": [0, 0, 0, 0]}, "at least one must be above 0"),
        ({"odds": {2: 1.0, 9: 1.0}}, "do not fit the buckets D_2, D_3, D_4, D_5"),
        (
            {"tokens": {7: 640}},
            "bucket D_7: 0 sequences of 128 (0 tokens) do not fill one step of 64 tokens. There "
            "are: D_2: 500 sequences, 2,000 tokens;",
        ),
        (
            {"tokens_per_step": 4096},
            "bucket D_2: 500 sequences of 4 (2,000 tokens) do not fill one step of 4,096",
        ),
        ({"tokens": {2: 10}}, "less than one step of 64 tokens"),
        (
            {"tokens": {2: 640}, "odds": [0, 1, 1, 1]},
            "640 tokens of D_2 are asked for, and its odds are 0",
        ),
        ({"cycles": 0}, "sampler cycles: expected an integer of at least 1"),
        ({"weighting": "none"}, "'none' is not one of batches, raw"),
        ({"rank": 2, "world": 2}, "expected 0 to 1 (world 2), got 2"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ConfigError) as error:
        BucketSampler(BUCKETS, **{"tokens_per_step": STEP, **options})
    assert words in str(error.value)


def test_no_buckets_and_bad_rows():
    with pytest.raises(ConfigError, match="there are none"):
        BucketSampler({}, STEP)
    with pytest.raises(ConfigError, match="bucket D_2: expected row numbers"):
        BucketSampler({2: [-1]}, STEP)


def test_share_out():
    assert share_out(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert share_out(7, {1: 0.5, 2: 0.5}) == {1: 4, 2: 3}
    big = share_out(10**17 + 1, {1: 3, 2: 7})
    assert sum(big.values()) == 10**17 + 1
