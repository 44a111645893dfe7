"""Exact deduplication: the first copy in order stays and stands for the others."""

from __future__ import annotations

import random

import pytest
from dedup_kit import ids, parallel, rows_of, run_step, units_of

from understudy.core.errors import ConfigError
from understudy.curate.dedup import copies, exact
from understudy.curate.dedup.copies import read_matches
from understudy.curate.dedup.exact import ExactDedup, comparable

TEXTS = [["a", "b", "a"], [], ["c", "b", "d"], ["a", "e"]]


def test_first_copy_wins_and_is_counted(tmp_path):
    units = units_of(tmp_path, TEXTS)
    found = run_step(ExactDedup(), units, tmp_path / "work")
    assert [(r["id"], r["dup_count"]) for r in rows_of(found)] == [
        ("u0-0", 3),
        ("u0-1", 2),
        ("u2-0", 1),
        ("u2-2", 1),
        ("u3-1", 1),
    ]
    assert [unit.key for unit in found] == ["u0", "u1", "u2", "u3"]
    assert [unit.rows for unit in found] == [2, 0, 2, 1]
    matches = [row for unit in found for row in read_matches(unit.folder).to_pylist()]
    assert [(m["id"], m["row"], m["of_unit"], m["of_row"], m["of_id"]) for m in matches] == [
        ("u0-2", 2, "u0", 0, "u0-0"),
        ("u2-1", 1, "u0", 1, "u0-1"),
        ("u3-0", 0, "u0", 0, "u0-0"),
    ]


def test_all_copies_can_go(tmp_path):
    units = units_of(tmp_path, TEXTS)
    found = run_step(ExactDedup(keep="none", matches=False), units, tmp_path / "work")
    assert ids(found) == ["u2-0", "u2-2", "u3-1"]
    assert not (found[0].folder / copies.MATCHES).exists()


def test_counts_of_earlier_steps_are_added(tmp_path):
    units = units_of(tmp_path, [["a", "b"], ["a", "a"]], [[2, 7], [3, 1]])
    found = run_step(ExactDedup(), units, tmp_path / "work")
    assert [(r["id"], r["dup_count"]) for r in rows_of(found)] == [("u0-0", 6), ("u0-1", 7)]


@pytest.mark.parametrize(
    ("how", "text", "expected"),
    [
        ("raw", " A  b\n", " A  b\n"),
        ("spaces", " A \t b\n", "A b"),
        ("letters", " A--b_Ｃ!\n", "a b c"),
    ],
)
def test_what_is_compared(how, text, expected):
    assert comparable(text, how) == expected


def test_normalised_texts_are_copies(tmp_path):
    units = units_of(tmp_path, [["Hello, World!", "hello  world", "Hello,  World!"]])
    kept = {how: ids(run_step(ExactDedup(text=how), units, tmp_path / how)) for how in exact.TEXTS}
    assert kept == {
        "raw": ["u0-0", "u0-1", "u0-2"],
        "spaces": ["u0-0", "u0-1"],
        "letters": ["u0-0"],
    }


def test_parts_and_workers_do_not_matter(tmp_path, monkeypatch):
    generator = random.Random(0)
    texts = [[str(generator.randrange(40)) for _ in range(n)] for n in (30, 0, 25, 61)]
    units = units_of(tmp_path, texts)
    one = run_step(ExactDedup(), units, tmp_path / "one")
    monkeypatch.setattr(exact, "ROWS_PER_PART", 7)
    many = run_step(ExactDedup(), units, tmp_path / "many")
    two = parallel(ExactDedup(), units, tmp_path / "two")
    assert len(list((tmp_path / "many/groups").glob("part-*"))) == 17
    assert [u.hash for u in one] == [u.hash for u in many] == [u.hash for u in two]
    flat = [t for part in texts for t in part]
    assert [r["text"] for r in rows_of(one)] == list(dict.fromkeys(flat))
    assert all(r["dup_count"] == flat.count(r["text"]) for r in rows_of(one))


def test_nothing_in_nothing_out(tmp_path):
    assert run_step(ExactDedup(), [], tmp_path / "a") == []
    assert ids(run_step(ExactDedup(), units_of(tmp_path, [[], []]), tmp_path / "b")) == []


def test_statistics_are_a_count(tmp_path):
    from understudy.core.files import read_json

    units = units_of(tmp_path, [["aé", "aé", "b"]])
    found = run_step(ExactDedup(), units, tmp_path / "work")
    count = read_json(found[0].folder / "_done.json")["stats"]["count"]
    assert count["pages_in"] == 3
    assert count["pages_out"] == 2
    assert count["bytes_in"] == 7
    assert count["bytes_out"] == 4
    assert count["reasons"] == {"exact-dedup": 1}


def test_bad_options():
    with pytest.raises(ConfigError, match="text: expected one of raw, spaces, letters, got 'x'"):
        ExactDedup(text="x")
    with pytest.raises(ConfigError, match="keep: expected one of first, none, got 'last'"):
        ExactDedup(keep="last")
