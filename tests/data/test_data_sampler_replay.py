"""Replay: capacities that are kept, samples that never return, batches as functions of the step."""

from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data.sampler_replay import ReplayMix, ReplayPlan, ReplaySampler
from understudy.data.sampler_replay_plan import memory_samples, replay_counts, water_fill
from understudy.data.samplers import Sampler

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=9)
LIMITED = st.sampled_from(["exp", "equal"])


def brute_force(caps, weights, capacity):
    """Return the level by bisection instead of rounds."""
    total = min(capacity, sum(caps))
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        filled = sum(min(c, level * w) for c, w in zip(caps, weights, strict=True))
        low, high = (level, high) if filled < total else (low, level)
    return [min(c, high * w) for c, w in zip(caps, weights, strict=True)]


@settings(max_examples=200, deadline=None)
@given(caps=st.lists(st.integers(0, 50), min_size=1, max_size=8), data=st.data())
def test_water_filling_against_bisection(caps, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(caps), max_size=len(caps)))
    capacity = data.draw(st.integers(0, 300))
    found = water_fill(caps, weights, capacity)
    assert sum(found) == min(capacity, sum(caps))
    for count, cap, exact in zip(found, caps, brute_force(caps, weights, capacity), strict=True):
        assert 0 <= count <= cap
        assert abs(count - exact) < 1 + 1e-6


def test_known_counts():
    size = 1_000
    assert ReplayPlan.plan(7, [size] * 7, "equal", 2 * size) == (333, 333, 333, 333, 334, 334)
    exact = ReplayPlan.plan(7, [size * 3] * 7, "equal", 2 * size * 3)
    assert exact == (size,) * 6  # D / 3 each for 6 old steps
    weights = np.array([2.0**j for j in range(6)])
    # the newest step is capped at D; the rest share the other D in halves
    expected = [*(1_000 * weights[:5] / weights[:5].sum()), 1_000]
    found = ReplayPlan.plan(7, [size] * 7, "exp", 2 * size)
    np.testing.assert_allclose(found, expected, atol=1)
    assert ReplayPlan.plan(4, [10, 20, 30, 40], "all") == (10, 20, 30)
    assert ReplayPlan.plan(4, [10, 20, 30, 40], "none") == (0, 0, 0)
    assert ReplayPlan.plan(1, [10], "exp", 5) == ()


@pytest.mark.parametrize("method", ["exp", "equal"])
@pytest.mark.parametrize("t", [1, 2, 3])
def test_two_sizes_hold_everything_up_to_the_third_step(method, t):
    sizes = [100] * t
    assert ReplayPlan.plan(t, sizes, method, 200) == ReplayPlan.plan(t, sizes, "all")
    assert ReplayPlan(method=method).counts(sizes) == (100,) * (t - 1)


@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, method=LIMITED, data=st.data())
def test_the_buffer_never_exceeds_its_capacity(sizes, method, data):
    capacity = data.draw(st.integers(len(sizes), 200))
    plan = ReplayPlan(method=method, capacity=capacity)
    for t in range(1, len(sizes) + 1):
        counts = plan.counts(sizes[:t])
        assert sum(counts) <= capacity  # so a step learns from at most D_t + M
        assert all(0 <= n <= size for n, size in zip(counts, sizes, strict=False))
        if plan.buffer == "streaming" and t == len(sizes):
            assert sum(ReplayPlan.plan(t, sizes, method, capacity)) == min(
                capacity, sum(sizes[:-1])
            )


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 200), steps=st.integers(1, 9), data=st.data())
def test_exp_does_not_grow_with_age(size, steps, data):
    capacity = data.draw(st.integers(max(steps - 1, 1), 400))
    counts = ReplayPlan.plan(steps, [size] * steps, "exp", capacity)
    assert list(counts) == sorted(counts)
    equal = ReplayPlan.plan(steps, [size] * steps, "equal", capacity)
    assert not equal or max(equal) - min(equal) <= 1


def steps_of(sizes):
    edges = np.cumsum([0, *sizes])
    return {f"t{i}": np.arange(a, b) for i, (a, b) in enumerate(itertools.pairwise(edges))}


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, method=LIMITED, seed=st.integers(0, 5), data=st.data())
def test_what_a_streaming_buffer_drops_never_returns(sizes, method, seed, data):
    capacity = data.draw(st.integers(len(sizes), 150))
    plan = ReplayPlan(method=method, capacity=capacity, seed=seed)
    steps, before, kept = steps_of(sizes), {}, None
    for t in range(1, len(sizes) + 1):
        seen = dict(list(steps.items())[:t])
        now = plan.rows(seen)
        for name, rows in now.items():
            held = before.get(name, steps[name])
            assert set(rows.tolist()) <= set(held.tolist())
        again = plan.rows(seen, kept)
        assert {k: v.tolist() for k, v in again.items()} == {k: v.tolist() for k, v in now.items()}
        kept = [*(len(rows) for rows in now.values()), sizes[t - 1]]
        before = {**now, f"t{t - 1}": steps[f"t{t - 1}"]}


def test_an_archive_draws_anew():
    plan = ReplayPlan(method="equal", capacity=20, buffer="archive")
    seen = steps_of([50, 50, 50])
    first, second = plan.rows(dict(list(seen.items())[:2])), plan.rows(seen)
    assert not set(second["t0"].tolist()) <= set(first["t0"].tolist())
    assert len(second["t0"]) == 10


def test_what_is_refused():
    with pytest.raises(ConfigError, match="a capacity of 2 samples for 3 old steps is less"):
        replay_counts([5, 5, 5], "equal", 2)
    with pytest.raises(ConfigError, match="method 'exp' needs a capacity"):
        replay_counts([5], "exp")
    with pytest.raises(ConfigError, match="'some' is not one of none, all, exp, equal"):
        replay_counts([5], "some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected more than 0 steps' sizes"):
        ReplayPlan(memory=0)
    with pytest.raises(ConfigError, match="step 3 of 2"):
        ReplayPlan.plan(3, [1, 1], "all")
    with pytest.raises(ConfigError, match="the buffer knows 1 steps, the stream has 2 old ones"):
        ReplayPlan(method="equal").counts([5, 5, 5], [3])
    assert memory_samples(2.0, (100, 200)) == 300


# -- the sampler


def mix(sizes=(40, 30, 30)):
    steps = steps_of(sizes)
    names = list(steps)
    return ReplayMix(current=steps[names[-1]], replayed={name: steps[name] for name in names[:-1]})


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 20),
    world=st.integers(1, 4),
    replacement=st.booleans(),
    step=st.integers(0, 200),
)
def test_a_pure_function_shared_out_over_ranks(batch, world, replacement, step):
    options = {"replacement": replacement}
    ranks = [ReplaySampler(mix(), batch, 3, rank=r, world=world, **options) for r in range(world)]
    whole = ReplaySampler(mix(), batch * world, 3, **options)
    parts = [r.batch(step).rows for r in ranks]
    np.testing.assert_array_equal(np.concatenate(parts), whole.batch(step).rows)
    np.testing.assert_array_equal(
        whole.batch(step).rows, ReplaySampler(mix(), batch * world, 3, **options).batch(step).rows
    )


def test_every_row_once_an_epoch_without_replacement():
    sampler = ReplaySampler(mix(), 10, 1)
    assert isinstance(sampler, Sampler)
    for epoch in range(3):
        rows = np.concatenate([sampler.batch(epoch * 10 + s).rows for s in range(10)])
        assert sorted(rows) == list(range(100))


def test_old_rows_are_not_drawn_more_often():
    sampler = ReplaySampler(mix((10, 90)), 50, 1, replacement=True)
    drawn = np.concatenate([sampler.batch(s).rows for s in range(400)])
    counts = np.bincount(drawn, minlength=100)
    # 20,000 draws, 200 a row: a standard deviation of 14
    assert counts.min() > 130
    assert counts.max() < 270
    assert abs((drawn < 10).mean() - 0.1) < 0.01
    assert sampler.steps_per_epoch is None


def test_bad_mixes_are_refused():
    with pytest.raises(DataError, match="row 3 is in two time steps"):
        ReplaySampler(ReplayMix(current=np.arange(5), replayed={"a": np.array([3])}), 2)
    with pytest.raises(ConfigError, match="5 rows do not fill a batch"):
        ReplaySampler(ReplayMix(current=np.arange(5)), 6)
    with pytest.raises(ConfigError, match="have no epochs to change views with"):
        ReplaySampler(ReplayMix(current=np.arange(5)), 2, num_views=2, replacement=True)
    sampler = ReplaySampler(mix(), 8, 2)
    assert json.dumps(sampler.describe())
    assert sampler.describe()["replayed"] == {"t0": 40, "t1": 30}
    again = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(again.batch(5).rows, sampler.batch(5).rows)


def test_views_follow_epochs_or_rows():
    by_epoch = ReplaySampler(mix(), 10, 0, num_views=3)
    assert {int(by_epoch.batch(s).view) for s in range(0, 30, 10)} == {0, 1, 2}
    drawn = ReplaySampler(mix(), 10, 0, num_views=3, replacement=True, view_order="random")
    assert len(np.unique(np.concatenate([drawn.batch(s).view for s in range(5)]))) == 3
