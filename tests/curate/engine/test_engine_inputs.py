"""Inputs: tables and stores, and folders cut into units that depend on nothing else."""

from __future__ import annotations

import gzip
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.core.errors import DataError
from understudy.curate.engine.inputs import InputUnit, find_inputs
from understudy.curate.text.sources import read_input
from understudy.curate.text.sources_bad import Skipped
from understudy.data.store import Store


def read(*inputs, unit_bytes=1 << 26):
    skipped, pages = Skipped(True), []
    for unit in find_inputs(inputs, unit_bytes=unit_bytes).units:
        pages += read_input(unit, skipped)
    return pages, skipped


def lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_parquet_by_row_groups(tmp_path):
    table = pa.table({"text": [f"p{i}" for i in range(50)], "n": range(50), "url": ["u"] * 50})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=10)
    whole, _ = read(path)
    parts, _ = read(path, unit_bytes=1)
    assert [u.key for u in find_inputs([path], unit_bytes=1).units] == [
        f"a.parquet[{i}:{i + 1}]" for i in range(5)
    ]
    assert [(p.id, p.text) for p in whole] == [(p.id, p.text) for p in parts]
    assert whole[7].facts() == {"n": 7}
    pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(DataError, match="a.parquet: no column 'text'; the file has body"):
        read(path)
    pq.write_table(pa.table({"text": ["x", None]}), path)
    with pytest.raises(DataError, match="a.parquet, row 1: no field 'text'"):
        read(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="a.parquet: not a readable Parquet file"):
        read(path)


def test_stores_by_rows(tmp_path):
    rows = [{"id": f"i{n}", "text": f"text {n} " * 5, "n": n, "v": [1.0]} for n in range(40)]
    path = tmp_path / "s"
    Store.create(path, [pa.Table.from_pylist(rows)])
    whole, _ = read(path)
    parts, _ = read(path, unit_bytes=200)
    assert len(find_inputs([path], unit_bytes=200).units) > 3
    assert [p.id for p in whole] == [r["id"] for r in rows] == [p.id for p in parts]
    assert whole[3].facts() == {"n": 3}
    assert whole[3].source == "s"
    Store.create(tmp_path / "none", [{"id": ["a"], "body": ["x"]}])
    with pytest.raises(DataError, match="none: the store has no column 'text'; it has id, body"):
        find_inputs([tmp_path / "none"])


def test_inputs_that_share_a_name_are_both_named(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        lines(tmp_path / folder / "x.jsonl", [{"text": "x"}])
    one, two = tmp_path / "a", tmp_path / "b"
    with pytest.raises(DataError, match="a/x.jsonl and .*b/x.jsonl: both would go by the name"):
        find_inputs([one / "x.jsonl", two / "x.jsonl"])
    # folders are told apart by their names, if these differ
    for inputs in ([tmp_path], [one, two]):
        assert [u.source for u in find_inputs(inputs).units] == ["a/x.jsonl", "b/x.jsonl"]
    (two / "a").mkdir()
    lines(two / "a" / "x.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match="a/x.jsonl and .*b/a/x.jsonl: both would go by the name"):
        find_inputs([one, two / "a"])
    (one / "p.html").write_text("<p>a")
    (two / "p.html").write_text("<p>b")
    pages, _ = read(one, two)
    assert [(p.source, p.text) for p in pages if p.text != "x"] == [
        ("a/p.html", "<p>a"),
        ("b/p.html", "<p>b"),
    ]
    with pytest.raises(DataError, match="a/x.jsonl: comes twice, by the inputs .*a, .*a/x.jsonl"):
        find_inputs([one, one / "x.jsonl"])
    (one / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n'))
    with pytest.raises(DataError, match="leave one out if it is a copy"):
        find_inputs([one])


def test_units_do_not_depend_on_where_the_folder_lies(tmp_path):
    for name in "ab":
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in ("z.jsonl", "sub/y.jsonl"):
            lines(tmp_path / name / file, [{"text": "x" * 50}] * 10)
    a, b = (find_inputs([tmp_path / n], unit_bytes=100).units for n in "ab")
    assert [u.key for u in a] == [u.key for u in b]
    ranges = [(u.start, u.stop) for u in a if u.source == "z.jsonl"]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == (tmp_path / "a" / "z.jsonl").stat().st_size
    assert all(x[1] == y[0] for x, y in itertools.pairwise(ranges))
    assert InputUnit.from_plain(json.loads(json.dumps(a[0].to_plain()))) == a[0]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    (tmp_path / "in").mkdir()
    lines(tmp_path / "blob", [{"text": "linked"}])
    (tmp_path / "in" / "x.jsonl").symlink_to(tmp_path / "blob")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    assert [p.text for p in read(tmp_path / "in")[0]] == ["linked"]


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_inputs([tmp_path / "none"])
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"no pages in this folder \(1 files of other kinds\)"):
        find_inputs([tmp_path])
    with pytest.raises(DataError, match="its name says nothing of its kind; known endings are"):
        find_inputs([tmp_path / "a.bin"])
    with pytest.raises(DataError, match="nothing to curate"):
        find_inputs([])
