"""TFRecord files: checksums, messages, stores; and JSON lines out of a store."""

import gzip
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_kit import picture

from understudy.core.errors import ConfigError, DataError
from understudy.data.exporters import export
from understudy.data.importers import detect_kind, import_dir
from understudy.data.importers.crc32c import crc32c, masked
from understudy.data.importers.tfrecord_files import (
    example,
    parse_example,
    read_records,
    write_records,
)
from understudy.data.store import Store


def slow_crc(data):
    """Bit by bit, as RFC 3720 describes it."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "known"),
    [  # RFC 3720, appendix B.4; the first is the usual check value
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_known_checksums(data, known):
    assert crc32c(data) == known


@given(st.integers(0, 5000), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_lanes_give_what_bits_give(size, seed):
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == slow_crc(data)


values = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1, max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
)


@given(st.dictionaries(st.text(max_size=8), values, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_message_comes_back(row):
    assert parse_example(example(row), "here") == row


def test_unpacked_numbers_are_read_too():
    # a feature of integers as single varints, one of floats as single fixed32
    ints = b"\x1a\x04" + b"\x08\x05" + b"\x08\x07"
    floats = b"\x12\x05" + b"\x0d" + struct.pack("<f", 1.5)
    entries = b""
    for name, feature in ((b"n", ints), (b"f", floats)):
        entry = b"\x0a\x01" + name + b"\x12" + bytes([len(feature)]) + feature
        entries += b"\x0a" + bytes([len(entry)]) + entry
    message = b"\x0a" + bytes([len(entries)]) + entries
    assert parse_example(message, "here") == {"n": [5, 7], "f": [1.5]}


def shard(path, count=5):
    rows = [
        {"key": [f"k{i}".encode()], "jpg": [picture(i)], "caption": [f"ein Bild № {i}".encode()],
         "label": [i], "box": [0.5, float(i)]}
        for i in range(count)
    ]  # fmt: skip
    write_records(path, rows)
    return rows


def test_records_become_a_store(tmp_path):
    rows = shard(tmp_path / "a.tfrecord")
    assert detect_kind(tmp_path / "a.tfrecord") == "tfrecord"
    store = import_dir(tmp_path / "a.tfrecord", tmp_path / "s")
    assert store.array("id").tolist() == [f"k{i}" for i in range(5)]
    assert store.array("text")[3] == "ein Bild № 3"
    assert store.array("label").tolist() == list(range(5))
    assert store.array("image")[2] == rows[2]["jpg"][0]
    assert store.take([4], ["box"]).column(0).to_pylist() == [[0.5, 4.0]]
    named = import_dir(tmp_path / "a.tfrecord", tmp_path / "t", columns={"title": "caption"})
    assert named.array("title")[0] == "ein Bild № 0"


def test_compressed_records(tmp_path):
    shard(tmp_path / "a.tfrecord")
    packed = tmp_path / "b.tfrecord.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.tfrecord").read_bytes()))
    assert len(import_dir(packed, tmp_path / "s")) == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-3], "record 4: the file is cut off"),
        (lambda d: d[:5], "record 0: the file is cut off"),
        (lambda d: bytes([d[0] ^ 1]) + d[1:], "record 0: the checksum of its length"),
        (lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:], "record 0: the checksum of its content"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "a.tfrecord"
    shard(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        list(read_records(path))
    with pytest.raises(DataError, match=message):
        import_dir(path, tmp_path / "s")
    with pytest.raises(DataError):
        Store.open(tmp_path / "s")


def test_another_message_is_refused(tmp_path):
    data = b"\xff\xff\xff"
    head = struct.pack("<Q", len(data))
    whole = head + struct.pack("<I", masked(crc32c(head))) + data
    (tmp_path / "a.tfrecord").write_bytes(whole + struct.pack("<I", masked(crc32c(data))))
    with pytest.raises(DataError, match=r"record 0: not a tf\.train\.Example"):
        import_dir(tmp_path / "a.tfrecord", tmp_path / "s")


def test_no_other_values_are_written():
    with pytest.raises(DataError, match="feature 'a'"):
        example({"a": ["text"]})


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_json_lines_come_back(tmp_path, compression):
    shard(tmp_path / "a.tfrecord", 7)
    store = import_dir(tmp_path / "a.tfrecord", tmp_path / "s")
    files = export(store, tmp_path / "out", "jsonl", rows_per_shard=3, compression=compression)
    assert len(files) == 3
    again = import_dir(tmp_path / "out", tmp_path / "t")
    for column in ("id", "text", "label", "image"):
        assert again.array(column).tolist() == store.array(column).tolist()
    first = files[0].read_bytes()
    files[0].unlink()  # what a kill leaves out is written again, to the byte
    export(store, tmp_path / "out", "jsonl", rows_per_shard=3, compression=compression)
    assert files[0].read_bytes() == first


def test_json_lines_leave_out_what_is_not_there(tmp_path):
    store = Store.create(tmp_path / "s", [{"id": ["a", "b"], "text": ["x", None]}])
    (path,) = export(store, tmp_path / "out", "jsonl", compression="none")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"id": "a", "text": "x"}, {"id": "b"}]
    with pytest.raises(ConfigError, match="compression"):
        export(store, tmp_path / "other", "jsonl", compression="lz4")
    with pytest.raises(DataError, match="'id' must be"):
        export(store, tmp_path / "other", "jsonl", columns=["text"])
