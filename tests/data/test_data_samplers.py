"""Samplers: pure functions of the step that use every row once and share it out exactly."""

from __future__ import annotations

import itertools
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.data.samplers import Sampler, SequentialSampler, ShuffledSampler

BLOCKS = st.one_of(st.none(), st.integers(1, 20))


def epoch_rows(sampler: ShuffledSampler, epoch: int) -> np.ndarray:
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    return np.concatenate([sampler.batch(s).rows for s in steps])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    block=BLOCKS,
    window=st.integers(1, 4),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_every_row_once_an_epoch(rows, batch_size, block, window, epoch, seed):
    sampler = ShuffledSampler(rows, batch_size, seed, drop_last=False, block=block, window=window)
    seen = epoch_rows(sampler, epoch)
    assert sorted(seen) == list(range(rows))
    assert seen.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 12),
    world=st.integers(1, 5),
    block=BLOCKS,
    drop_last=st.booleans(),
)
def test_ranks_partition_the_global_batch(rows, batch_size, world, block, drop_last):
    left = rows % (batch_size * world)
    assume(rows >= batch_size * world if drop_last else not 0 < left < world)
    options = {"drop_last": drop_last, "block": block, "window": 2}
    ranks = [
        ShuffledSampler(rows, batch_size, 7, rank=r, world=world, **options) for r in range(world)
    ]
    whole = ShuffledSampler(rows, batch_size * world, 7, **options)
    assert {r.steps_per_epoch for r in ranks} == {whole.steps_per_epoch}
    for step in range(min(2 * whole.steps_per_epoch, 12)):
        parts = [r.batch(step).rows for r in ranks]
        np.testing.assert_array_equal(np.concatenate(parts), whole.batch(step).rows)
        sizes = [len(p) for p in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


@settings(max_examples=30, deadline=None)
@given(block=BLOCKS, steps=st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_resuming_is_arithmetic(block, steps):
    options = {"num_views": 3, "block": block, "window": 2, "drop_last": False}
    sampler = ShuffledSampler(97, 10, 5, **options)
    for step in steps:  # any order, with and without what was drawn before
        fresh = ShuffledSampler(97, 10, 5, **options).batch(step)
        again = sampler.batch(step)
        np.testing.assert_array_equal(again.rows, fresh.rows)
        assert (again.view, again.epoch, again.step) == (fresh.view, step // 10, step)


def test_epochs_and_seeds_differ():
    a, b = ShuffledSampler(100, 10, 0), ShuffledSampler(100, 10, 1)
    assert not np.array_equal(epoch_rows(a, 0), epoch_rows(a, 1))
    assert not np.array_equal(epoch_rows(a, 0), epoch_rows(b, 0))


def test_dropped_rows_change_with_the_epoch():
    sampler = ShuffledSampler(25, 10)
    assert sampler.steps_per_epoch == 2
    dropped = [frozenset(range(25)) - set(epoch_rows(sampler, e).tolist()) for e in range(4)]
    assert all(len(d) == 5 for d in dropped)
    assert len(set(dropped)) > 1


def test_orders_are_uniform():
    places = np.zeros((6, 6))
    for seed in range(1200):
        for place, row in enumerate(epoch_rows(ShuffledSampler(6, 2, seed), 0)):
            places[place, row] += 1
    assert ((places - 200) ** 2 / 200).sum() < 44.3  # chi square, 25 degrees, 1%


def test_given_row_numbers_are_drawn_and_nothing_else():
    rows = np.array([5, 9, 2, 40, 11])
    sampler = ShuffledSampler(rows, 2, drop_last=False)
    assert sorted(epoch_rows(sampler, 0)) == sorted(rows)
    assert sampler.describe()["rows_hash"] != ShuffledSampler(rows[::-1], 2).describe()["rows_hash"]


# --- views ----------------------------------------------------------------------------------------


def test_an_epoch_uses_one_view_and_a_cycle_uses_each_once():
    sampler = ShuffledSampler(20, 5, seed=3, num_views=4)
    views = [[sampler.batch(4 * e + s).view for s in range(4)] for e in range(12)]
    assert all(len(set(epoch)) == 1 for epoch in views)
    cycles = [[views[4 * c + e][0] for e in range(4)] for c in range(3)]
    assert all(sorted(cycle) == [0, 1, 2, 3] for cycle in cycles)
    assert len({tuple(c) for c in cycles}) > 1


def test_random_views_are_uniform_and_belong_to_epoch_and_row():
    sampler = ShuffledSampler(500, 50, seed=3, num_views=5, view_order="random")
    found: dict[int, dict[int, int]] = {}
    for epoch, step in itertools.product(range(4), range(10)):
        batch = sampler.batch(epoch * 10 + step)
        assert batch.view.shape == (50,)
        found.setdefault(epoch, {}).update(
            dict(zip(batch.rows.tolist(), batch.view.tolist(), strict=True))
        )
    counts = np.bincount([v for e in found.values() for v in e.values()], minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 13.3  # chi square, 4 degrees, 1%
    same = np.mean([found[0][r] == found[1][r] for r in range(500)])
    assert abs(same - 0.2) < 0.07
    # another batch size or world meets the same row with the same view
    other = ShuffledSampler(500, 10, seed=3, num_views=5, view_order="random")
    batch = other.batch(13)
    assert batch.view.tolist() == [found[0][r] for r in batch.rows.tolist()]


def test_without_stored_views_the_view_is_zero():
    assert ShuffledSampler(10, 5).batch(0).view == 0
    assert ShuffledSampler(10, 5, num_views=1, view_order="random").batch(1).view == 0


# --- blocks ---------------------------------------------------------------------------------------


def test_block_shuffle_reads_long_runs_and_still_mixes():
    sampler = ShuffledSampler(1000, 50, seed=1, block=25, window=4, drop_last=False)
    rows = epoch_rows(sampler, 0)
    window = rows[:100]
    blocks = sorted(set(window // 25))
    assert len(blocks) == 4  # a window of the order is four whole blocks
    assert sorted(window) == sorted(
        np.concatenate([np.arange(b * 25, b * 25 + 25) for b in blocks])
    )
    assert not np.array_equal(window, np.sort(window))
    assert len({int(b) for b in rows[:50] // 25}) >= 3
    assert not np.array_equal(rows, epoch_rows(sampler, 1))
    # one block of one row with a window of everything is a plain shuffle in distribution only
    fine = ShuffledSampler(1000, 50, seed=1, block=1, window=1000)
    assert sorted(epoch_rows(fine, 0)) == list(range(1000))


# --- the protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    [
        ShuffledSampler(30, 4, num_views=3),
        ShuffledSampler(30, 4, block=7),
        SequentialSampler([3, 1, 2], 2),
    ],
)
def test_samplers_pickle_and_describe_plainly(sampler):
    assert isinstance(sampler, Sampler)
    sampler.batch(0)
    copy = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(copy.batch(1).rows, sampler.batch(1).rows)
    assert json.loads(json.dumps(sampler.describe())) == sampler.describe() == copy.describe()


def test_ranks_share_one_description():
    a = ShuffledSampler(40, 4, rank=0, world=2).describe()
    assert a == ShuffledSampler(40, 4, rank=1, world=2).describe()
    assert a != ShuffledSampler(40, 4, seed=1, world=2).describe()


def test_threads_get_the_same_batches():
    sampler = ShuffledSampler(500, 10, seed=2, block=20, window=3, num_views=4)
    expected = [
        ShuffledSampler(500, 10, seed=2, block=20, window=3, num_views=4).batch(s).rows
        for s in range(150)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: sampler.batch(s).rows, range(150)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sequential_reads_in_order_and_ranks_take_turns():
    whole = SequentialSampler(23, 5, view=2)
    assert [len(whole.batch(s).rows) for s in range(whole.steps_per_epoch)] == [5, 5, 5, 5, 3]
    assert whole.batch(1).rows.tolist() == [5, 6, 7, 8, 9]
    assert whole.batch(1).view == 2
    ranks = [SequentialSampler(23, 5, rank=r, world=2) for r in range(2)]
    seen = [b for r in ranks for s in range(r.steps_per_epoch) for b in r.batch(s).rows.tolist()]
    assert sorted(seen) == list(range(23))
    assert SequentialSampler([8, 3, 5], 2).batch(1).rows.tolist() == [5]
    with pytest.raises(ConfigError, match="sampler step: expected 0 to 4, got 5"):
        whole.batch(5)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "there are no rows to draw from"),
        ({"rows": []}, "there are no rows to draw from"),
        ({"rows": [-1, 2]}, "expected row numbers"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer of at least 1, got 2.5"),
        ({"batch_size": 20}, r"10 rows do not fill a batch of 20 x 1 ranks.*drop_last=False"),
        ({"num_views": -1}, "num_views: expected an integer of at least 0"),
        ({"block": 0}, "block: expected an integer of at least 1"),
        ({"window": 0}, "window: expected an integer of at least 1"),
        ({"rank": 2, "world": 2}, r"rank: expected 0 to 1 \(world 2\), got 2"),
        ({"view_order": "epok"}, r"view_order: 'epok' is not one of epoch, random.*'epoch'"),
        ({"batch_size": 3, "world": 3, "drop_last": False}, "1 rows are left for 3 ranks"),
    ],
)
def test_bad_input_sampler(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ShuffledSampler(**{"rows": 10, "batch_size": 4, **arguments})


def test_bad_input_step():
    with pytest.raises(ConfigError, match="step: expected an integer of at least 0, got -1"):
        ShuffledSampler(10, 2).batch(-1)
