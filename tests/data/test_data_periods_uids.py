"""128-bit ids: halves that keep the order, splits that are refused, shards that disagree."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.data.periods_uids import (
    UID,
    check_disjoint,
    check_sizes,
    members,
    pack_uids,
    read_period,
    read_split,
    read_uid_text,
    sort_uids,
    unpack_uids,
    write_split,
)

HEX = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
UIDS = st.lists(HEX, unique=True, max_size=30)


@settings(max_examples=100, deadline=None)
@given(UIDS)
def test_round_trip_and_order(uids):
    halves = pack_uids(uids)
    assert halves.dtype == np.dtype("u8,u8")
    assert unpack_uids(halves) == uids
    assert unpack_uids(sort_uids(halves)) == sorted(uids)


def test_halves_are_the_two_ends():
    assert pack_uids(["0" * 15 + "1" + "0" * 15 + "2"]).tolist() == [(1, 2)]


@settings(max_examples=50, deadline=None)
@given(UIDS, UIDS)
def test_members_against_sets(a, b):
    found = members(pack_uids(a), pack_uids(b))
    assert found.tolist() == [uid in set(b) for uid in a]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A" + "0" * 31, "upper-case letters"),
        ("0" * 31, "31 characters"),
        ("g" + "0" * 31, "the character 'g'"),
        ("", "0 characters"),
    ],
)
def test_malformed_ids_name_their_line(tmp_path, text, wrong):
    path = tmp_path / "uids.txt"
    path.write_text("\n".join(["0" * 32, text, "1" * 32]))
    with pytest.raises(DataError) as caught:
        read_uid_text(path)
    assert f"{path}, line 2" in str(caught.value)
    assert wrong in str(caught.value)
    assert "expected 32 hex digits" in str(caught.value)


def test_doubled_ids_name_both_lines(tmp_path):
    path = tmp_path / "uids.txt"
    path.write_text(f"{'0' * 32}\n{'1' * 32}\n{'0' * 32}\n")
    with pytest.raises(DataError, match=f"line 3: uid {'0' * 32} is on line 1 already"):
        read_uid_text(path)
    path.write_text(f"{'0' * 32}\n{'1' * 32}\n")
    assert len(read_uid_text(path)) == 2


def test_splits_at_rest(tmp_path):
    uids = [f"{n:032x}" for n in (7, 2**100, 3)]
    path = write_split(tmp_path / "2018.npy", pack_uids(uids))
    assert np.load(path).dtype == UID
    assert unpack_uids(read_split(path)) == sorted(uids)
    with pytest.raises(DataError, match="is there twice"):
        write_split(tmp_path / "x.npy", pack_uids(uids)[[0, 0]])
    np.save(tmp_path / "mixed.npy", pack_uids(uids))
    with pytest.raises(DataError, match="entry 2, uid .* is smaller than the one before it"):
        read_split(tmp_path / "mixed.npy")
    np.save(tmp_path / "flat.npy", np.arange(3))
    with pytest.raises(DataError, match="expected a structured array of dtype u8,u8"):
        read_split(tmp_path / "flat.npy")
    with pytest.raises(DataError, match="not an array file"):
        read_split(tmp_path / "absent.npy")


def test_months_less_evaluation_are_the_year(tmp_path):
    """The union of monthly ids, minus evaluation ids, is the yearly split."""
    months = {f"2018{m:02d}": [f"{m * 100 + i:032x}" for i in range(5)] for m in (3, 1, 2)}
    for name, uids in months.items():
        write_split(tmp_path / "2018" / f"{name}.npy", pack_uids(uids))
    whole = read_period(tmp_path / "2018")
    held = pack_uids([months["201801"][2], months["201803"][4]])
    kept = whole[~members(whole, held)]
    year = write_split(tmp_path / "2018.npy", kept)
    expected = sorted({u for uids in months.values() for u in uids} - set(unpack_uids(held)))
    assert unpack_uids(read_period(year)) == expected
    check_disjoint(read_period(year), held)
    with pytest.raises(DataError) as caught:
        check_disjoint(whole, held, "2018")
    assert "2018: 2 evaluation ids are inside it, first " + unpack_uids(held)[0] in str(
        caught.value
    )
    write_split(tmp_path / "2018" / "201804.npy", pack_uids(months["201801"][:1]))
    with pytest.raises(DataError, match="is there twice"):
        read_period(tmp_path / "2018")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no time split"):
        read_period(tmp_path / "empty")


def shard(path, keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            for suffix in ("jpg", "txt"):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))


def test_sizes_and_tars_agree_or_are_named(tmp_path):
    shard(tmp_path / "0.tar", ["a", "b"])
    shard(tmp_path / "1.tar", ["c"])
    sizes = tmp_path / "sizes.json"
    sizes.write_text(json.dumps({"0.tar": 2, "1.tar": 1}))
    assert check_sizes(tmp_path) == {"0.tar": 2, "1.tar": 1}
    sizes.write_text(json.dumps({"0.tar": 3, "1.tar": 1}))
    with pytest.raises(DataError, match=r"0\.tar: sizes\.json says 3 samples, the tar has 2"):
        check_sizes(tmp_path)
    sizes.write_text(json.dumps({"0.tar": 2}))
    with pytest.raises(DataError, match=r"1\.tar: 1 samples, but sizes\.json does not list"):
        check_sizes(tmp_path)
    sizes.write_text(json.dumps({"0.tar": 2, "1.tar": 1, "2.tar": 5}))
    with pytest.raises(DataError, match=r"2\.tar has 5 samples, but is missing"):
        check_sizes(tmp_path)
