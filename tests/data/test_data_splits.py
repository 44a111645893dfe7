"""The rows to learn from when nobody says which."""

from __future__ import annotations

import pytest

from understudy.data.splits import training_filter
from understudy.data.store import Store


def make(path, *splits):
    rows = {"id": [f"s{i}" for i in range(len(splits))], "split": list(splits)}
    return Store.create(path, [rows])


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", "test", None), [0]),
        (("a", "val", "test", None, "b"), [0, 3, 4]),
        (("val", "test"), []),
    ],
)
def test_rows_to_learn_from(tmp_path, splits, expected):
    store = make(tmp_path / "store", *splits)
    assert store.where(training_filter(store)).tolist() == expected


def test_rows_without_splits_are_all_for_learning(tmp_path):
    assert training_filter(Store.create(tmp_path / "store", [{"id": ["a", "b"]}])) == ""
