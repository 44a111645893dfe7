"""Percentile thresholds: exact, whatever the units, and never another pool's by accident."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from quality_world import make_units, rows_of, run_here

from understudy.core.errors import ConfigError, DataError
from understudy.curate.quality.histogram import (
    Histogram,
    exact_threshold,
    key_score,
    low_counts,
    order_keys,
)
from understudy.curate.quality.threshold import POOL, QualityThreshold

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=40))
def test_keys_sort_like_scores(scores):
    scores = np.array(scores, np.float32)
    keys = order_keys(scores)
    order = np.argsort(keys, kind="stable")
    assert (np.diff(scores[order]) >= 0).all()
    assert len(np.unique(keys)) == len(np.unique(scores))
    assert [key_score(int(k)) for k in keys] == [float(s) for s in scores]


@settings(max_examples=100, deadline=None)
@given(scores=st.lists(FINITE, min_size=1, max_size=60), data=st.data())
def test_radix_selection_is_sorting(scores, data):
    scores = np.array(scores, np.float32)
    number = data.draw(st.integers(1, len(scores)))
    cut = data.draw(st.integers(0, len(scores)))
    histogram, other = Histogram(), Histogram()
    histogram.add(scores[:cut])
    other.add(scores[cut:])
    histogram.merge(other)
    high, rank = histogram.bin_of_top(number)
    found = exact_threshold(high, rank, low_counts(scores, high))
    assert found == float(np.sort(scores)[::-1][number - 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=50))
def test_ranks_never_fall(scores):
    scores = np.sort(np.array(scores, np.float32))
    histogram = Histogram()
    histogram.add(scores)
    ranks = histogram.ranks(scores)
    assert (np.diff(ranks) >= 0).all()
    assert 0 < ranks[0] <= ranks[-1] < 1 + 1e-6
    apart = len(np.unique(order_keys(scores) >> 16)) == len(scores)
    if apart:  # one score a bin: ranks are within one place of the exact ones
        exact = np.arange(len(scores)) / len(scores)
        assert (ranks >= exact - 1e-6).all()
        assert (ranks <= exact + 1 / len(scores) + 1e-6).all()
    assert np.isnan(histogram.ranks(np.array([np.nan]))).all()


def test_histogram_counts_missing_and_refuses_infinity():
    histogram = Histogram()
    histogram.add(np.array([1, np.nan, 2], np.float32))
    assert (histogram.total, histogram.missing) == (2, 1)
    with pytest.raises(DataError, match="infinite"):
        histogram.add(np.array([np.inf]))
    with pytest.raises(DataError, match="no 3-th best of 2"):
        histogram.bin_of_top(3)


def pool(count, seed=0):
    """Scores like a classifier's: nearly all close to zero."""
    rng = np.random.default_rng(seed)
    return (1 / (1 + np.exp(-rng.normal(-6, 3, count)))).astype(np.float32).tolist()


@pytest.mark.parametrize("sizes", [[200], [70, 0, 130], [1] * 3 + [197]])
def test_best_tenth_of_the_pool(sizes, tmp_path):
    scores = pool(200)
    units = make_units(tmp_path / "in", sizes, scores=scores)
    kept = QualityThreshold(keep=0.1).run(units, tmp_path / "work", run_here)
    best = np.sort(np.argsort(scores)[-20:])
    assert rows_of(kept, "id") == [f"p{i}" for i in best]
    assert [unit.key for unit in kept] == [unit.key for unit in units]
    facts = json.loads((tmp_path / "work" / POOL).read_text())
    assert facts["threshold"] == np.sort(np.float32(scores))[-20]
    assert (facts["pages"], facts["missing"], facts["wanted"]) == (200, 0, 20)


def test_counts_and_reasons(tmp_path):
    scores = [0.5, None, 0.1, 0.9, None]
    units = make_units(tmp_path / "in", [5], scores=scores)
    step = QualityThreshold(keep=0.5)
    records = []

    def run(tasks, label):
        records.append(run_here(tasks, label))
        return records[-1]

    kept = step.run(units, tmp_path / "work", run)
    assert rows_of(kept, "id") == ["p0", "p3"]
    count = records[-1][0]["stats"]["count"]
    assert (count["pages_in"], count["pages_out"]) == (5, 2)
    assert count["reasons"] == {"no score": 2, "quality-threshold": 1}
    assert count["bytes_in"] == 5 * len("text 0")
    assert count["bytes_out"] == 2 * len("text 0")


def test_ties_stay_together(tmp_path):
    units = make_units(tmp_path / "in", [6], scores=[0.3, 0.7, 0.7, 0.7, 0.1, 0.2])
    kept = QualityThreshold(keep=1 / 6).run(units, tmp_path / "work", run_here)
    assert rows_of(kept, "id") == ["p1", "p2", "p3"]
    everything = QualityThreshold(keep=1.0).run(units, tmp_path / "all", run_here)
    assert len(rows_of(everything, "id")) == 6


def test_rank_column(tmp_path):
    scores = pool(100)
    units = make_units(tmp_path / "in", [40, 60], scores=scores)
    kept = QualityThreshold(keep=0.3, rank="quality_rank").run(units, tmp_path / "work", run_here)
    ranks = np.array(rows_of(kept, "quality_rank"))
    assert ranks.min() >= 0.69
    got = np.array(rows_of(kept, "score.quality"))
    assert (np.diff(ranks[np.argsort(got)]) >= 0).all()


def test_absolute_threshold_only_if_asked(tmp_path):
    units = make_units(tmp_path / "in", [4], scores=[0.01, 0.018112, 0.5, None])
    kept = QualityThreshold(min_score=0.018112).run(units, tmp_path / "work", run_here)
    assert rows_of(kept, "id") == ["p1", "p2"]
    facts = json.loads((tmp_path / "work" / POOL).read_text())
    assert facts["from"] == "min_score"


def test_threshold_of_a_recorded_pool(tmp_path):
    scores = pool(300)
    whole = make_units(tmp_path / "in", [100, 100, 100], scores=scores)
    step = QualityThreshold(keep=0.2)
    together = rows_of(step.run(whole, tmp_path / "work", run_here), "id")
    record = str(tmp_path / "work" / POOL)
    part = QualityThreshold(keep=0.2, pool=record)
    apart = [rows_of(part.run([u], tmp_path / u.folder.name, run_here), "id") for u in whole]
    assert [id for ids in apart for id in ids] == together
    assert part.describe() != step.describe()
    with pytest.raises(DataError, match=r"of the column 'score\.quality', expected 'other'"):
        QualityThreshold(pool=record, column="other").describe()


def test_statistics_missing_says_scoring_pass_first(tmp_path):
    units = make_units(tmp_path / "in", [3])
    with pytest.raises(DataError, match="no column 'score.quality'; run the scoring pass first"):
        QualityThreshold().run(units, tmp_path / "work", run_here)
    with pytest.raises(DataError, match="no such pool statistics; run the scoring pass first"):
        QualityThreshold(pool=str(tmp_path / "pool.json")).describe()
    units = make_units(tmp_path / "none", [3], scores=[None, None, None])
    with pytest.raises(DataError, match="all 3 pages lack a 'score.quality'; run the scoring pass"):
        QualityThreshold().run(units, tmp_path / "work", run_here)


def test_no_pages_at_all(tmp_path):
    units = make_units(tmp_path / "in", [0, 0], scores=[])
    kept = QualityThreshold(rank="r").run(units, tmp_path / "work", run_here)
    assert [unit.rows for unit in kept] == [0, 0]
    assert "r" in kept[0].schema.names
    assert QualityThreshold().run([], tmp_path / "empty", run_here) == []


@pytest.mark.parametrize("keep", [0, -0.1, 1.1])
def test_bad_shares(keep):
    with pytest.raises(ConfigError, match=r"keep: expected a share in \(0, 1\]"):
        QualityThreshold(keep=keep)


def test_one_threshold_only():
    with pytest.raises(ConfigError, match="expected one of them, got both"):
        QualityThreshold(min_score=0.1, pool="x")
