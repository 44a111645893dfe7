"""Label subsets are nested and depend on rows, size and seed alone; a stream favours no row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.data.sampler_stream import StreamSampler
from understudy.data.samplers import Sampler
from understudy.data.subsets import held_back, label_count, nested_subsets

quick = settings(max_examples=60, deadline=None)


@quick
@given(
    rows=st.lists(st.integers(0, 10_000), min_size=1, max_size=120, unique=True),
    shares=st.lists(st.floats(0.005, 1.0), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_subsets_are_nested_and_seed_stable(rows, shares, seed):
    found = nested_subsets(rows, shares, seed)
    assert list(found) == sorted({max(1, round(s * len(rows))) for s in shares})
    previous: set[int] = set()
    for count, chosen in found.items():
        assert len(chosen) == count
        assert set(chosen.tolist()) <= set(rows)
        assert previous <= set(chosen.tolist())
        assert chosen.tolist() == sorted(chosen.tolist())
        # neither the order of rows nor the other shares matter
        alone = nested_subsets(rows[::-1], [count / len(rows)], seed)[count]
        assert np.array_equal(alone, chosen)
        previous = set(chosen.tolist())


def test_another_seed_is_another_subset():
    a, b = (nested_subsets(range(1000), [20], seed)[20] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_counts_and_fractions():
    shares = {0.01: 2, 0.5: 100, 1.0: 200, 20: 20, 200: 200}
    assert [label_count(s, 200) for s in shares] == list(shares.values())
    assert label_count(0.001, 200) == 1
    for bad, message in (
        (0, "expected a fraction"),
        (-1, "expected a fraction"),
        (2.5, "must be whole"),
        (201, "201 labelled rows asked for, there are 200"),
    ):
        with pytest.raises(ConfigError, match=message):
            label_count(bad, 200)
    with pytest.raises(ConfigError, match="3 rows, 2 of them different"):
        nested_subsets([1, 1, 2], [0.5], 0)
    with pytest.raises(ConfigError, match="at least one fraction"):
        nested_subsets([1], [], 0)


def test_rows_are_held_back_from_all_subsets():
    learn, back = held_back(np.arange(50, 100), 10, seed=3)
    assert len(back) == 10
    assert set(learn) | set(back) == set(range(50, 100))
    assert np.array_equal(held_back(np.arange(50, 100)[::-1], 10, seed=3)[1], back)
    for count in (0, 50):
        with pytest.raises(ConfigError, match="held back"):
            held_back(np.arange(50), count, seed=0)


@quick
@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 50),
    steps=st.integers(1, 12),
    world=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_a_stream_draws_every_row_equally_often(rows, batch, steps, world, seed):
    ranks = [StreamSampler(rows, batch, seed, rank=r, world=world) for r in range(world)]
    assert isinstance(ranks[0], Sampler)
    drawn = np.concatenate([r.batch(s).rows for s in range(steps) for r in ranks])
    assert len(drawn) == steps * batch * world
    counts = np.bincount(drawn, minlength=rows)
    assert counts.max() - counts.min() <= 1
    again = StreamSampler(rows, batch, seed, rank=world - 1, world=world).batch(steps - 1)
    assert np.array_equal(again.rows, ranks[-1].batch(steps - 1).rows)
    assert again.epoch == steps - 1


def test_a_stream_names_its_rows_and_refuses_nonsense():
    sampler = StreamSampler([7, 9], 3, seed=1)
    assert set(sampler.batch(0).rows.tolist()) == {7, 9}
    assert sampler.describe() != StreamSampler([7, 8], 3, seed=1).describe()
    for options in ({"batch_size": 0}, {"batch_size": 1, "rank": 1}):
        with pytest.raises(ConfigError, match="sampler"):
            StreamSampler(5, **options)
    with pytest.raises(ConfigError, match="no rows"):
        StreamSampler([], 2)
