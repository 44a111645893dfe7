"""Batches of frozen features, and batches without repeated captions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data.features import FeatureBatches, Side
from understudy.data.sampler_distinct import DistinctSampler, group_ids
from understudy.data.samplers import ShuffledSampler


def most_batches(sizes, size):
    """The largest number of batches of `size` distinct groups, by trying them all."""
    best = 0
    for count in range(1, sum(sizes) // size + 1):
        if sum(min(s, count) for s in sizes) >= count * size:
            best = count
    return best


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=12),
    size=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_no_group_twice_in_a_batch_and_no_row_twice_in_an_epoch(sizes, size, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if len(sizes) < size:
        with pytest.raises(ConfigError, match=f"{len(sizes)} different groups do not fill"):
            DistinctSampler(len(groups), groups, size, seed)
        return
    sampler = DistinctSampler(len(groups), groups, size, seed)
    assert sampler.steps_per_epoch == most_batches(sizes, size)
    for epoch in range(2):
        steps = range(epoch * sampler.steps, (epoch + 1) * sampler.steps)
        batches = [sampler.batch(step).rows for step in steps]
        for rows in batches:
            assert len(set(groups[rows])) == size
        assert max(Counter(np.concatenate(batches).tolist()).values()) == 1


def test_distinct_batches_depend_on_the_step_alone_and_change_by_epoch():
    groups = np.arange(20) % 7
    first, second = (DistinctSampler(np.arange(100, 120), groups, 5, 3) for _ in range(2))
    want = [first.batch(step).rows.tolist() for step in range(12)]
    assert [second.batch(step).rows.tolist() for step in reversed(range(12))] == want[::-1]
    assert min(map(min, want)) >= 100
    steps = first.steps_per_epoch
    assert want[:steps] != want[steps : 2 * steps]
    assert first.describe() != DistinctSampler(20, groups, 5, 3).describe()


def test_all_rows_are_used_where_groups_allow_it():
    sampler = DistinctSampler(12, np.repeat(np.arange(4), 3), 4, 0)
    rows = np.concatenate([sampler.batch(step).rows for step in range(sampler.steps)])
    assert sorted(rows) == list(range(12))


def test_captions_are_grouped_without_case_and_spaces():
    assert group_ids(["A cat", "a  CAT ", "dog"]).tolist() == [0, 0, 1]


def sides(seed=0):
    draw = np.random.default_rng(seed)
    rows = np.array([3, 5, 8, 9, 12, 20])
    image = Side(rows=rows, values=draw.standard_normal((6, 4)).astype(np.float16), encoder="eye")
    text = Side(
        rows=rows[:5],
        values=draw.standard_normal((5, 3, 2)).astype(np.float16),
        mask=draw.random((5, 3)) < 0.7,
        encoder="ear",
    )
    return rows, image, text


def test_batches_hold_features_by_row_whatever_order_the_cache_was_read_in():
    rows, image, text = sides()
    groups = {int(r): int(r) % 2 for r in rows}
    batches = FeatureBatches({"image": image, "text": text}, ShuffledSampler(rows, 3, 1), groups)
    for batch in batches(0, 4):
        for i, row in enumerate(batch["rows"].tolist()):
            place = rows.tolist().index(row)
            assert torch.equal(
                batch["features"]["image"][i], torch.tensor(image.values[place]).float()
            )
            assert batch["groups"][i] == row % 2
            there = "present" not in batch or bool(batch["present"]["text"][i])
            assert there == (row != 20)
            if there:
                want = torch.tensor(text.values[place]).float()
                assert torch.equal(batch["features"]["text"][i], want)
                assert batch["masks"]["text"][i].tolist() == text.mask[place].tolist()
        assert batch["features"]["image"].dtype == torch.float32
    shuffled = np.random.default_rng(3).permutation(6)
    order = shuffled[np.argsort(rows[shuffled])]
    again = Side(rows=rows[order], values=image.values[order], encoder="eye")
    other = FeatureBatches({"image": again, "text": text}, ShuffledSampler(rows, 3, 1))
    for one, two in zip(batches(0, 4), other(0, 4), strict=True):
        assert torch.equal(one["features"]["image"], two["features"]["image"])
    assert batches.describe() == other.describe()


def test_taking_rows_keeps_what_belongs_to_them():
    rows, _, text = sides()
    some = text.take(rows[[1, 3]])
    assert (some.values == text.values[[1, 3]]).all()
    assert (some.mask == text.mask[[1, 3]]).all()
    assert some.dim == 2


def test_bad_input_rows_without_features():
    rows, _, text = sides()
    with pytest.raises(DataError, match="row 20 has no features of encoder 'ear'"):
        text.take(rows)
    with pytest.raises(DataError, match="rows must increase"):
        Side(rows=np.array([2, 1]), values=np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="two or more sides"):
        FeatureBatches({"image": text}, ShuffledSampler(3, 1))
    with pytest.raises(ConfigError, match="3 groups for 4 rows"):
        DistinctSampler(4, [0, 1, 2], 1)
