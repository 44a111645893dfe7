import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data.sampler_counts import CountSampler, copy_places


def world(seed=0, n=80):
    rng = np.random.default_rng(seed)
    return rng.integers(3, 60, n), rng.integers(0, 11, n)


def stream(sampler):
    return [s for step in range(sampler.steps) for row in sampler.spans(step) for s in row]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 3), st.integers(8, 40))
def test_every_copy_is_read_once_and_in_order(seed, batch, context):
    lengths, counts = world(seed)
    sampler = CountSampler(lengths, counts, context, batch, seed)
    read = np.zeros(len(lengths), np.int64)
    for step in range(sampler.steps):
        rows = sampler.spans(step)
        assert len(rows) == batch
        for row in rows:
            assert sum(s.stop - s.start for s in row) == context + 1
            for s in row:
                assert 0 <= s.start < s.stop <= lengths[s.row]
            # the last token is the next sequence's first input
            for s in row[:-1]:
                read[s.row] += s.stop - s.start
            read[row[-1].row] += row[-1].stop - row[-1].start - 1
    total = int((lengths * counts).sum())
    assert (read <= lengths * counts).all()
    assert total - read.sum() < batch * context + 1


def test_counts_are_exact_over_the_whole_order():
    lengths, counts = world()
    sampler = CountSampler(lengths, counts, 16, 2)
    assert np.bincount(sampler.order, minlength=len(counts)).tolist() == counts.tolist()


def test_copies_are_spread_and_come_in_a_new_order_each_time():
    counts = np.full(300, 8, np.int64)
    places, owner = copy_places(counts, 3)
    order = owner[np.argsort(places)]
    gaps = []
    for d in range(300):
        at = np.flatnonzero(order == d)
        gaps.append(np.diff(at).min())
    assert np.mean(gaps) >= 0.5 * len(order) / 8
    first, second = order[:300], order[300:600]
    assert np.corrcoef(np.argsort(first[:200]), np.argsort(second[:200]))[0, 1] < 0.9
    mixed, whose = copy_places(np.array([1] * 500 + [10] * 50), 0)
    share = [(whose[(mixed >= a) & (mixed < a + 0.25)] < 500).mean() for a in (0, 0.25, 0.5, 0.75)]
    assert np.ptp(share) < 0.15


def test_any_step_is_the_same_after_a_restart_and_ranks_share_it():
    lengths, counts = world(2)
    whole = CountSampler(lengths, counts, 12, 4, seed=5)
    parts = [CountSampler(lengths, counts, 12, 2, seed=5, rank=r, world=2) for r in (0, 1)]
    for step in (whole.steps - 1, 0, 3):
        assert parts[0].spans(step) + parts[1].spans(step) == whole.spans(step)
    again = CountSampler(lengths, counts, 12, 4, seed=5)
    assert again.spans(3) == whole.spans(3)
    assert again.describe() == whole.describe()
    assert CountSampler(lengths, counts, 12, 4, seed=6).spans(3) != whole.spans(3)


def test_it_tells_tokens_and_unique_tokens_seen():
    lengths, counts = np.full(10, 20), np.full(10, 3)
    sampler = CountSampler(lengths, counts, 10, 1)
    last = sampler.seen(sampler.steps - 1)
    assert last["unique_tokens"] == 200
    assert 600 - 10 <= last["tokens"] <= 600
    seen = [sampler.seen(s)["unique_tokens"] for s in range(sampler.steps)]
    assert seen == sorted(seen)
    assert seen[0] >= 10


def test_rows_name_the_documents():
    sampler = CountSampler([5, 6], [2, 2], 4, 1, rows=[70, 9])
    assert {s.row for s in stream(sampler)} == {70, 9}


def test_bad_input():
    with pytest.raises(ConfigError, match="20 tokens do not fill a batch of 4 x 1 sequences of 8"):
        CountSampler([10], [2], 8, 4)
    with pytest.raises(DataError, match="1 lengths, 2 counts"):
        CountSampler([10], [2, 2], 8, 4)
    with pytest.raises(DataError, match="must not be negative"):
        CountSampler([10], [-1], 8, 4)
    sampler = CountSampler([10], [4], 8, 1)
    with pytest.raises(ConfigError, match="expected 0 to 3, got 4"):
        sampler.spans(4)
