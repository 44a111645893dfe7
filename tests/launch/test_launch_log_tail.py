"""Seeking in output: bisection against plain reading, cursors, earlier pages, rotation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.launch.log_seek import last_number, lines_between, reader_from
from understudy.launch.log_tail import read_cursor, write_cursor
from understudy.launch.replica_logs import LogReader, LogWriter, segment_path, segments


def written(folder, lengths, segment_bytes=400, keep=1000):
    folder.mkdir(parents=True, exist_ok=True)
    writer = LogWriter(folder, segment_bytes=segment_bytes, keep=keep)
    for i, length in enumerate(lengths):
        writer.feed("oe"[i % 3 == 2], b"%d " % (i + 1) + b"x" * length + b"\n")
    writer.close()
    return folder


def numbers(reader):
    found = []
    while part := reader.read(300):
        found += part
    reader.close()
    return [line.seq for line in found]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=0, max_size=60),
    first=st.integers(0, 70),
    size=st.sampled_from([90, 400, 100_000]),
)
def test_a_reader_begins_at_any_line(tmp_path_factory, lengths, first, size):
    folder = written(tmp_path_factory.mktemp("log") / "r", lengths, size)
    whole = list(range(1, len(lengths) + 1))
    assert last_number(folder) == len(lengths)
    assert numbers(reader_from(folder, first)) == [n for n in whole if n >= first]
    last = first + 7
    assert [line.seq for line in lines_between(folder, first, last)] == [
        n for n in whole if max(1, first) <= n <= last
    ]


def test_lines_that_come_later_are_read_too(tmp_path):
    folder = written(tmp_path, [5, 5])
    reader = reader_from(folder, 3)
    assert reader.read() == []
    writer = LogWriter(folder, segment_bytes=400)
    writer.lines, writer._number = 2, len(segments(folder))
    for _ in range(10):
        writer.feed("o", b"more\n")
    writer.close()
    assert [line.seq for line in reader.read()] == list(range(3, 13))
    reader.close()


def test_rotated_lines_are_named(tmp_path):
    folder = written(tmp_path, [60] * 40, segment_bytes=300, keep=2)
    kept = [line.seq for line in LogReader(folder).read() if line.seq]
    assert 1 < kept[0] < 40
    note, *lines = lines_between(folder, kept[0] - 3, 40)
    assert note.text == "[3 lines are gone: rotated away, or the disk was full]"
    assert [line.seq for line in lines] == kept
    (note,) = lines_between(folder, 1, kept[0] - 1)
    assert note.text.startswith(f"[{kept[0] - 1} lines are gone")


def test_half_lines_of_a_full_disk_are_passed_over(tmp_path):
    folder = written(tmp_path, [20] * 30, segment_bytes=100_000)
    path = segment_path(folder, 1)
    rows = path.read_bytes().splitlines(keepends=True)
    rows[10] = b"xx yy"[:3] + b"\n"
    rows[29] = rows[29][:6]  # the writer is in the middle of the last line
    path.write_bytes(b"".join(rows))
    assert last_number(folder) == 29
    assert numbers(reader_from(folder, 9)) == [9, 10, 0, *range(12, 30)]
    assert numbers(reader_from(folder, 12)) == list(range(12, 30))
    assert numbers(reader_from(folder, 30)) == []


def test_nothing_is_there_yet(tmp_path):
    assert last_number(tmp_path / "none") == 0
    assert lines_between(tmp_path / "none", 1, 5) == []


def test_only_what_is_asked_for_is_read(tmp_path):
    folder = written(tmp_path, [1000] * 3000, segment_bytes=10_000_000)
    reader = reader_from(folder, 2990)
    file = reader._file
    assert file.tell() > 2_900_000
    assert numbers(reader) == list(range(2990, 3001))


@given(st.dictionaries(st.tuples(st.integers(1, 99), st.integers(0, 9)), st.integers(1, 10**9)))
def test_a_cursor_comes_back(seen):
    assert read_cursor(write_cursor(seen)) == seen


@pytest.mark.parametrize("text", ["x", "1", "1.0", "1.0:", "1.0:1,", "1.0:-1", "1.0:1 ", "١.0:1"])
def test_what_is_no_cursor_is_refused(text):
    if text == "١.0:1":  # digits of another script: not ours
        text = "1.0:1\n1.0:2"
    with pytest.raises(ConfigError, match="cursor: expected"):
        read_cursor(text)
