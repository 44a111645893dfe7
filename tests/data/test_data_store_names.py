from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.data import store_rows
from understudy.data.store_names import (
    check_columns,
    check_name,
    logical,
    physical,
    rewrite_filter,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-+/@]{0,20}", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(names=st.sets(NAMES, max_size=6))
def test_stored_names_are_one_to_one_and_have_no_dots(names: set[str]):
    stored = {physical(check_name(name)) for name in names}
    assert len(stored) == len(names)
    assert {logical(name) for name in stored} == names
    assert not any("." in name for name in stored)


@pytest.mark.parametrize("name", ["", "a:b", "a b", ".a", "_rowid", "row", "a'b", "a`b", "ü!"])
def test_bad_input_column_name(name: str):
    with pytest.raises(DataError, match="cannot be a column name"):
        check_name(name)


def test_bad_input_unknown_column_has_near_matches():
    columns = ["id", "image", "view.main.0", "view.main.1"]
    assert check_columns(["image", "id"], columns, "it") == ["image", "id"]
    with pytest.raises(DataError, match=r"no column 'view.main.2'. Did you mean view.main.\d or"):
        check_columns(["view.main.2"], columns, "s")
    with pytest.raises(DataError, match="It has: id, image"):
        check_columns(["zzzz"], columns, "s")
    with pytest.raises(DataError, match="no column was asked for"):
        check_columns([], columns, "s")
    with pytest.raises(DataError, match="list of names, got the string"):
        check_columns("id", columns, "s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label = 1", "label = 1"),
        ("view.main.0 IS NOT NULL", "`view:main:0` IS NOT NULL"),
        ("`view.main.0` IS NULL", "`view:main:0` IS NULL"),
        ("Split = 'view.main.0'", "`Split` = 'view.main.0'"),
        ("text = 'it''s label' or label=2", "text = 'it''s label' or label=2"),
        ("ViT-B/16.text is null", "`ViT-B/16:text` is null"),
        ("other.name = 1", "other.name = 1"),
    ],
)
def test_filters_name_logical_columns(text: str, expected: str):
    columns = ["label", "text", "Split", "view.main.0", "ViT-B/16.text"]
    assert rewrite_filter(text, columns) == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(0, 3000), extra=st.integers(0, 50))
def test_row_sets_survive_encoding_and_appended_rows(data: st.DataObject, count: int, extra: int):
    odds = data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    mask = np.random.default_rng(count).random(count) < odds
    text = store_rows.encode(mask)
    np.testing.assert_array_equal(store_rows.decode(text, count), mask)
    longer = store_rows.decode(text, count + extra)
    assert longer[:count].tolist() == mask.tolist()
    assert not longer[count:].any()
    np.testing.assert_array_equal(store_rows.to_mask(store_rows.to_ranges(mask), count), mask)


def test_many_ranges_become_a_bitmap():
    mask = np.zeros(4000, bool)
    mask[::2] = True
    assert "bits" in store_rows.encode(mask)
    assert len(store_rows.encode(mask)) < 200


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"ranges":[[0,11]]}', '{"ranges":[[5,5]]}', '{"bits":"eA==","rows":9}', "[]"],
)
def test_bad_input_row_set(text: str):
    with pytest.raises(DataError, match="unreadable set of finished rows"):
        store_rows.decode(text, 10)
