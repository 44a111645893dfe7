"""Several samplers as one stream: exact odds, arithmetic resume, sources read on in order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from understudy.core.errors import ConfigError
from understudy.data.sampler_buckets import BucketSampler
from understudy.data.sampler_mixture import MixtureSampler
from understudy.data.samplers import Sampler, ShuffledSampler

NEW, OLD = range(100), range(100, 400)
ODDS = {"new": 1.0, "old": 3.0}


def sources(**options):
    return {
        "new": ShuffledSampler(np.array(NEW), 4, 1, **options),
        "old": ShuffledSampler(np.array(OLD), 8, 2, **options),
    }


def test_is_a_sampler():
    assert isinstance(MixtureSampler(sources()), Sampler)


def test_steps_are_shared_out_exactly_and_each_source_is_read_in_order():
    mixed = MixtureSampler(sources(), ODDS, 7, period=20)
    plain, names = sources(), []
    at = Counter()
    for step in range(80):
        name = mixed.source(step)
        names.append(name)
        np.testing.assert_array_equal(mixed.batch(step).rows, plain[name].batch(at[name]).rows)
        at[name] += 1
    assert [names[i : i + 20].count("new") for i in range(0, 80, 20)] == [5] * 4
    assert names[:20] != names[20:40]


def test_any_step_can_be_asked_for_first():
    whole = [MixtureSampler(sources(), ODDS, 7, period=20).batch(s) for s in range(60)]
    for step in (59, 3, 41, 20, 19):
        fresh = MixtureSampler(sources(), ODDS, 7, period=20).batch(step)
        np.testing.assert_array_equal(fresh.rows, whole[step].rows)
        assert fresh.step == step


def test_rows_are_mixed_in_one_batch():
    mixed = MixtureSampler(sources(), ODDS, 3, mode="row", batch_size=10, period=8)
    rows = np.concatenate([mixed.batch(s).rows for s in range(40)])
    assert len(rows) == 400
    for start in range(0, 400, 80):
        assert np.count_nonzero(rows[start : start + 80] < 100) == 20
    plain = sources()
    new = np.concatenate([plain["new"].batch(s).rows for s in range(25)])
    old = np.concatenate([plain["old"].batch(s).rows for s in range(40)])
    np.testing.assert_array_equal(rows[rows < 100], new[: np.count_nonzero(rows < 100)])
    np.testing.assert_array_equal(rows[rows >= 100], old[: np.count_nonzero(rows >= 100)])
    fresh = MixtureSampler(sources(), ODDS, 3, mode="row", batch_size=10, period=8)
    np.testing.assert_array_equal(fresh.batch(33).rows, rows[330:340])


def test_all_lays_one_batch_of_every_source_end_to_end():
    mixed = MixtureSampler(sources(), mode="all", offsets={"new": 0, "old": 1000})
    batch, plain = mixed.batch(9), sources()
    np.testing.assert_array_equal(batch.rows[:4], plain["new"].batch(9).rows)
    np.testing.assert_array_equal(batch.rows[4:], plain["old"].batch(9).rows + 1000)
    assert [p.source for p in mixed.parts(9)] == ["new", "old"]


def test_places_of_a_source_are_spread_evenly():
    seen = Counter()
    for seed in range(200):
        mixed = MixtureSampler(sources(), ODDS, seed, period=8)
        seen.update(s for s in range(8) if mixed.source(s) == "new")
    assert stats.chisquare([seen[s] for s in range(8)]).pvalue > 1e-3


def test_sizes_of_buckets_travel_with_the_batch():
    rows = {2: np.arange(64), 3: np.arange(64, 128)}
    mixed = MixtureSampler({"a": BucketSampler(rows, 32), "b": BucketSampler(rows, 64)}, period=4)
    for step in range(12):
        batch = mixed.batch(step)
        assert len(batch.rows) * batch.size == (32 if mixed.source(step) == "a" else 64)
    wrong = MixtureSampler(
        {
            "a": BucketSampler(rows, 32, curriculum="only-2"),
            "b": BucketSampler(rows, 32, curriculum="only-3"),
        },
        mode="all",
    )
    with pytest.raises(ConfigError, match="ask for sizes"):
        wrong.batch(0)


def test_micro_batches_of_a_step_come_from_one_source():
    rows = {3: np.arange(128)}
    parts = {n: BucketSampler(rows, 64, i, accumulate=4) for i, n in enumerate("ab")}
    mixed = MixtureSampler(parts, period=6, accumulate=4)
    for step in range(12):
        names = {mixed.source(step * 4 + m) for m in range(4)}
        assert len(names) == 1
        taken = np.concatenate([mixed.batch(step * 4 + m).rows for m in range(4)])
        assert len(np.unique(taken)) == 8


def test_views_of_sources():
    views = {n: ShuffledSampler(40, 4, s, num_views=3) for s, n in enumerate("ab")}
    batch = MixtureSampler(views, mode="all").batch(17)
    expected = [views[n].batch(17).view for n in "ab" for _ in range(4)]
    assert np.broadcast_to(batch.view, 8).tolist() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"odds": {"new": 1.0}}, "odds {'new': 1.0} for the sources new, old"),
        ({"odds": {"new": 0.0, "old": 1.0}}, "expected numbers above 0"),
        ({"odds": {"new": 1.0, "old": 999.0}, "period": 10}, "set period to 1000 or more"),
        ({"mode": "row"}, "batch_size is given with mode 'row'"),
        ({"batch_size": 3}, "batch_size is given with mode 'row'"),
        ({"mode": "rows"}, "Did you mean 'row'"),
        ({"offsets": {"new": 1}}, "offsets {'new': 1} for the sources new, old"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ConfigError) as error:
        MixtureSampler(sources(), **options)
    assert words in str(error.value)


def test_no_sources_and_uneven_batches():
    with pytest.raises(ConfigError, match="no sources"):
        MixtureSampler({})
    uneven = {"a": ShuffledSampler(10, 4, drop_last=False), "b": ShuffledSampler(40, 4)}
    mixed = MixtureSampler(uneven, mode="row", batch_size=8)
    with pytest.raises(ConfigError, match="different numbers of rows"):
        [mixed.batch(s) for s in range(9)]
    with pytest.raises(ConfigError, match="several sources"):
        mixed.source(0)


def test_describe_holds_the_sources():
    a = MixtureSampler(sources(), ODDS).describe()
    assert a["sources"]["new"]["num_rows"] == 100
    assert MixtureSampler(sources(), {"new": 1.0, "old": 2.0}).describe() != a
