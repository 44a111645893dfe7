"""Time steps: who learns from what, who is scored on what, and never both."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data.periods import PeriodRule
from understudy.data.periods_stream import (
    Stream,
    StreamRule,
    TimeStep,
    describe_stream,
    joined_rows,
)
from understudy.data.store import Store


def make(path, years, **columns) -> Store:
    table = {"id": [f"r{i}" for i in range(len(years))], "time": years, **columns}
    return Store.create(path / "s", pa.table(table).to_batches())


def test_splits_of_the_store(tmp_path):
    split = ["train", "test", "val", "train", "train", "test"]
    store = make(tmp_path, [2018, 2018, 2018, 2019, 2019, 2019], split=split)
    stream = Stream.of(store, PeriodRule())
    assert stream.names == ("2018", "2019")
    assert [s.rows.tolist() for s in stream] == [[0], [3, 4]]
    assert [s.eval_rows.tolist() for s in stream] == [[1], [5]]
    assert [s.held_rows.tolist() for s in stream] == [[2], []]
    assert stream.sizes == (1, 2)
    assert joined_rows(stream.steps).tolist() == [0, 3, 4]
    assert describe_stream(stream)[1] == {
        "name": "2019", "rows": 2, "eval_rows": 1, "held_rows": 0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no time step '2020'; the stream has 2018, 2019"):
        stream.index("2020")


def test_shares_are_drawn_by_row_and_bear_late_rows(tmp_path):
    rule = StreamRule(test_share=0.3, held_share=0.2)
    years = [2018, 2019] * 300
    before = Stream.of(make(tmp_path, years), rule)
    after = Stream.of(make(tmp_path / "more", years + [2018] * 50), rule)
    for step, later in zip(before, after, strict=True):
        parts = [step.rows, step.eval_rows, step.held_rows]
        assert len(np.unique(np.concatenate(parts))) == 300
        assert 60 < len(step.eval_rows) < 120
        assert 20 < len(step.held_rows) < 70
        for name in ("rows", "eval_rows", "held_rows"):
            mine, theirs = getattr(step, name), getattr(later, name)
            np.testing.assert_array_equal(mine, theirs[theirs < 600])
    other = Stream.of(make(tmp_path / "seed", years), StreamRule(test_share=0.3, seed=1))
    assert other[0].eval_rows.tolist() != before[0].eval_rows.tolist()


def test_filters_that_overlap_are_refused(tmp_path):
    store = make(tmp_path, [2018] * 4, vendor=["a", "a", "b", "b"])
    stream = Stream.of(store, StreamRule(train="vendor = 'a'", test="vendor = 'b'"))
    assert (stream[0].rows.tolist(), stream[0].eval_rows.tolist()) == ([0, 1], [2, 3])
    with pytest.raises(DataError, match="2 evaluation rows of .* are inside its training rows"):
        Stream.of(store, StreamRule(train="vendor < 'z'", test="vendor = 'b'"))


def test_evaluation_rows_inside_training_rows_of_any_step():
    a = TimeStep(name="a", rows=np.arange(5), eval_rows=np.array([9]))
    b = TimeStep(name="b", rows=np.arange(5, 10), eval_rows=np.array([11]))
    with pytest.raises(DataError) as caught:
        Stream(steps=(a, b))
    assert "time step 'b': 1 evaluation rows of 'a' are inside its training rows, first 9" in str(
        caught.value
    )
    with pytest.raises(DataError, match="the time step 'a' is there twice"):
        Stream(steps=(a, a))
    with pytest.raises(DataError, match="there is no time step"):
        Stream(steps=())


def test_contents_are_compared_by_uid(tmp_path):
    uid = ["x", "y", "z", "y"]
    split = ["train", "train", "test", "test"]
    store = make(tmp_path, [2018, 2019, 2018, 2018], uid=uid, split=split)
    with pytest.raises(DataError, match="time step '2019': 1 evaluation ids are inside it, first"):
        Stream.of(store, PeriodRule())


def test_small_and_empty_steps_are_named(tmp_path):
    split = ["train"] * 3 + ["test"] * 2
    store = make(tmp_path, [2018, 2018, 2019, 2018, 2020], split=split)
    stream = Stream.of(store, PeriodRule())
    with pytest.raises(DataError, match="time step 2, '2019': 1 rows are fewer than a batch of 2"):
        stream.check_steps(2, evaluated=False)
    with pytest.raises(DataError, match="time step 3, '2020': it is empty"):
        stream.check_steps(1, evaluated=False)
    with pytest.raises(DataError, match="time step 2, '2019': no rows to score on"):
        stream.check_steps(1)
    with pytest.raises(ConfigError, match=r"test_share must lie in \[0, 1\), got 1.5"):
        StreamRule(test_share=1.5)
