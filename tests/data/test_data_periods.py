"""Periods: times of all kinds, merged, and the rows whose time cannot be."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data.periods import PeriodRule, find_periods
from understudy.data.periods_time import parse_time
from understudy.data.store import Store
from understudy.recipes.tic_clip_config import EMOJI_PERIODS


def store_of(path, times, kind=None, **columns) -> Store:
    values = pa.array(times, kind) if kind is not None else pa.array(times)
    table = pa.table({"id": [f"r{i}" for i in range(len(times))], "time": values, **columns})
    return Store.create(path / "s", table.to_batches())


def test_years_are_periods_in_order(tmp_path):
    found = find_periods(store_of(tmp_path, [2019, 2017, 2019, 2018]), PeriodRule())
    assert found.names == ("2017", "2018", "2019")
    assert found.of_row.tolist() == [2, 0, 2, 1]
    assert found.sizes == {"2017": 1, "2018": 1, "2019": 2}
    assert found.rows("2019").tolist() == [0, 2]
    assert found.note() == ""
    with pytest.raises(ConfigError, match="'2016' is not one of 2017, 2018, 2019"):
        found.rows("2016")


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (["2018-03-01", "2017-12-31"], None),
        (["2018-03-01T10:00:00", "2017-12-31 23:59"], None),
        (["201803", "201712"], None),
        ([datetime.date(2018, 3, 1), datetime.date(2017, 12, 31)], pa.date32()),
        ([datetime.datetime(2018, 3, 1), datetime.datetime(2017, 12, 31)], pa.timestamp("us")),
    ],
)
def test_dates_of_all_kinds_by_month(tmp_path, times, kind):
    store = store_of(tmp_path, times, kind)
    assert find_periods(store, PeriodRule(grain="month")).names == ("2017-12", "2018-03")


def test_merged_years_include_their_ends(tmp_path):
    store = store_of(tmp_path, ["2014-01-01", "2016-12-31", "2017-06-30", "2018-01-01"])
    rule = PeriodRule(merge=("early=2014..2016", "2017", "2018-01..2018-06"))
    found = find_periods(store, rule)
    assert found.names == ("early", "2017", "2018-01..2018-06")
    assert found.of_row.tolist() == [0, 0, 1, 2]


def test_versions_compare_as_versions(tmp_path):
    store = store_of(tmp_path, ["12.1", "2.0", "10.0", "0.6", "0.7", "1.0"])
    found = find_periods(store, PeriodRule())
    assert found.names == ("0.6", "0.7", "1.0", "2.0", "10.0", "12.1")


def test_emoji_versions_make_seven_steps(tmp_path):
    known = "0.6 0.7 1.0 2.0 3.0 4.0 5.0 11.0 12.0 12.1 13.0 13.1 14.0 15.0 15.1 16.0".split()
    store = store_of(tmp_path, known)
    found = find_periods(store, PeriodRule(kind="version", merge=EMOJI_PERIODS))
    assert found.of_row.tolist() == [0, 0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 6, 6, 6]
    assert not found.unknown


def test_unknown_and_impossible_times_are_counted_and_shown(tmp_path):
    store = store_of(tmp_path, ["2018-01-01", None, "2018-13-01", "soon", "20180"])
    found = find_periods(store, PeriodRule(kind="date"))
    assert found.unknown == 4
    assert found.of_row.tolist() == [0, -1, -1, -1, -1]
    assert found.note() == (
        "4 of 5 rows have no possible time in 'time' (row 1: None, row 2: '2018-13-01', row 3: "
        "'soon'): they are left out (periods.unknown = drop or bucket)."
    )
    bucket = find_periods(store, PeriodRule(kind="date", unknown="bucket"))
    assert bucket.names == ("2018", "unknown")
    assert bucket.of_row.tolist() == [0, 1, 1, 1, 1]
    assert "in the period 'unknown'" in bucket.note()


def test_a_time_outside_all_ranges_is_unknown(tmp_path):
    store = store_of(tmp_path, [2015, 2017, 2030])
    found = find_periods(store, PeriodRule(merge=("2014..2016", "2017")))
    assert (found.of_row.tolist(), found.unknown) == ([0, 1, -1], 1)
    assert "row 2: 2030" in found.note()


def test_what_is_refused(tmp_path):
    store = store_of(tmp_path, ["never", "soon"])
    with pytest.raises(DataError, match="no column 'date' to take times from; it has id, time"):
        find_periods(store, PeriodRule(column="date"))
    with pytest.raises(DataError, match="none of 2 rows has a possible time"):
        find_periods(store, PeriodRule())
    with pytest.raises(ConfigError, match="'2019..2017' ends before it begins"):
        PeriodRule(merge=("2019..2017",)).groups("date")
    with pytest.raises(ConfigError, match="'2016..2018' begins before '2014..2016' ends"):
        PeriodRule(merge=("2014..2016", "2016..2018")).groups("date")
    with pytest.raises(ConfigError, match="'2016-07' begins before '2016' ends"):
        PeriodRule(merge=("2016", "2016-07")).groups("date")
    with pytest.raises(ConfigError, match="two periods are called 'a'"):
        PeriodRule(merge=("a=2014", "a=2015")).groups("date")
    with pytest.raises(ConfigError, match="'early..' is no range of dates"):
        PeriodRule(merge=("early..",)).groups("date")
    with pytest.raises(ConfigError, match="grain: 'week' is not one of year, month, day"):
        PeriodRule(grain="week")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="earliest 2000 and latest 1990 enclose no year"):
        PeriodRule(earliest=2000, latest=1990)


def test_a_grain_finer_than_the_times(tmp_path):
    with pytest.raises(DataError, match="has the time 2018, which names no month"):
        find_periods(store_of(tmp_path, [2018, 2019]), PeriodRule(grain="month"))


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    b=st.lists(st.integers(0, 30), min_size=1, max_size=4),
)
def test_version_keys_order_as_padded_lists(a, b):
    rule = PeriodRule().possible
    keys = [parse_time(".".join(map(str, v)), "version", rule) for v in (a, b)]
    padded = [v + [0] * (4 - len(v)) for v in (a, b)]
    assert (keys[0] < keys[1]) == (padded[0] < padded[1])  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.dates(datetime.date(1950, 1, 1), datetime.date(2090, 1, 1)))
def test_dates_round_trip(day):
    rule = PeriodRule().possible
    wanted = (day.year, day.month, day.day)
    for value in (day, day.isoformat(), day.strftime("%Y%m%d")):
        assert parse_time(value, "date", rule) == wanted
    assert parse_time(day.year, "date", rule) == wanted[:1]
    assert parse_time(float("nan"), "number", rule) is None
