"""Repeated substrings: against brute force, element by element, and the step on pages."""

from __future__ import annotations

import random

import numpy as np
import pytest
from dedup_kit import backwards, ids, rows_of, run_step, sentence, texts, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.curate.dedup import repeats, substring_step, substring_tasks
from understudy.curate.dedup.hashing import mix64
from understudy.curate.dedup.repeats import first_equal, first_equal_by_suffixes, repeated, runs
from understudy.curate.dedup.substring_step import SubstringDedup
from understudy.curate.dedup.words import segment, words_of

DOCUMENTS = st.lists(st.lists(st.integers(0, 2), max_size=14), max_size=6)


def brute_force(documents, length, remove_all=False):
    """Return which elements are cut, document by document."""
    windows = [
        (d, i, tuple(text[i : i + length]))
        for d, text in enumerate(documents)
        for i in range(len(text) - length + 1)
    ]
    cut = [[False] * len(text) for text in documents]
    for number, (d, i, window) in enumerate(windows):
        same = [(e, j) for e, j, other in windows if other == window]
        earlier = [(e, j) for e, j, other in windows[:number] if other == window]
        # an earlier copy that does not overlap, or any other one
        copy = len(same) > 1 if remove_all else any(e < d or j + length <= i for e, j in earlier)
        for place in range(i, i + length) if copy else ():
            cut[d][place] = True
    return cut


def flat(documents, dtype):
    starts = np.cumsum([0, *(len(d) for d in documents)])[:-1].astype(np.int64)
    values = np.array([v for d in documents for v in d], dtype)
    return (mix64(values) if dtype == np.uint64 else values), starts


@settings(max_examples=120, deadline=None)
@given(DOCUMENTS, st.integers(1, 5), st.booleans(), st.sampled_from([np.uint8, np.uint64]))
def test_windows_equal_brute_force(documents, length, remove_all, dtype):
    found = repeated(first_equal(*flat(documents, dtype), length), length, remove_all)
    expected = brute_force(documents, length, remove_all)
    assert found.tolist() == [flag for document in expected for flag in document]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 5))
def test_suffix_arrays_give_the_same(documents, length):
    pytest.importorskip("pydivsufsort")
    values, starts = flat(documents, np.uint8)
    expected = first_equal(values, starts, length)
    assert np.array_equal(first_equal_by_suffixes(values, starts, length), expected)


def test_blocks_do_not_matter(monkeypatch):
    values = np.random.default_rng(0).integers(0, 2, 600).astype(np.uint8)
    starts = np.array([0, 0, 100, 350])
    whole = first_equal(values, starts, 9)
    monkeypatch.setattr(repeats, "BLOCK", 32)
    assert np.array_equal(first_equal(values, starts, 9), whole)
    assert (whole != np.arange(600)).sum() > 30


def test_equal_hashes_are_not_taken_for_equal_windows(monkeypatch):
    monkeypatch.setattr(
        repeats, "window_hashes", lambda values, n: np.zeros(len(values) - n + 1, np.uint64)
    )
    values = np.arange(20, dtype=np.uint8)
    values[10:15] = values[0:5]
    found = first_equal(values, np.array([0]), 5)
    # only windows equal to the first of the crowd can be told apart from it
    assert found[10] == 0
    assert (found[:10] == np.arange(10)).all()


def test_runs():
    begin, end = runs(np.array([1, 1, 0, 1, 0, 0, 1], bool))
    assert begin.tolist() == [0, 3, 6]
    assert end.tolist() == [2, 4, 7]


def test_one_window_of_a_periodic_text_stays():
    values = np.zeros(100, np.uint8)
    assert repeated(first_equal(values, np.array([0]), 8), 8).tolist() == [False] * 8 + [True] * 92


def words_cut(documents, length, remove_all=False):
    """Return the texts without the words that brute force cuts, spaces with the words."""
    spans, found = [segment([d]) for d in documents], []
    flags = brute_force([words_of(d) for d in documents], length, remove_all)
    for text, span, cut in zip(documents, spans, flags, strict=True):
        starts = [*span.starts.tolist(), len(text)]
        head = text[: starts[0]]
        found.append(
            head + "".join(text[starts[i] : starts[i + 1]] for i, c in enumerate(cut) if not c)
        )
    return found


def repetitive(seed: int, documents: int) -> list[str]:
    generator = random.Random(seed)
    pool = [sentence(generator, generator.randrange(3, 15)) for _ in range(6)]
    return [
        generator.choice(["", " ", "\n"])
        + generator.choice([". ", "\n", " é "]).join(
            generator.choices([*pool, sentence(generator, 8)], k=generator.randrange(0, 5))
        )
        for _ in range(documents)
    ]


@pytest.mark.parametrize("remove", ["copies", "all"])
def test_pages_of_words(tmp_path, remove):
    documents = repetitive(0, 40)
    units = units_of(tmp_path, [documents[:15], [], documents[15:]])
    step = SubstringDedup(length=7, remove=remove)
    found = run_step(step, units, tmp_path / "work")
    names = [f"u0-{i}" for i in range(15)] + [f"u2-{i}" for i in range(25)]
    cut = dict(zip(names, words_cut(documents, 7, remove == "all"), strict=True))
    changed = {n for n, d in zip(names, documents, strict=True) if cut[n] != d}
    expected = {n: t for n, t in cut.items() if t.strip() or n not in changed}
    assert {r["id"]: r["text"] for r in rows_of(found)} == expected
    assert len(changed) > 10
    again = backwards(step, units, tmp_path / "again")
    assert [u.hash for u in again] == [u.hash for u in found]


@pytest.mark.parametrize("method", ["windows", "suffixes"])
def test_pages_of_bytes_keep_whole_characters(tmp_path, method):
    if method == "suffixes":
        pytest.importorskip("pydivsufsort")
    # the copy begins within a character: \u00e9 is c3 a9, \u0129 is c4 a9
    documents = ["\u0129abcdefgh!", "x\u00e9abcdefgh?", "plain text", "\u0129abcdefgh!"]
    units = units_of(tmp_path, [documents])
    step = SubstringDedup(over="bytes", length=6, method=method)
    found = run_step(step, units, tmp_path / "work")
    assert texts(found) == ["\u0129abcdefgh!", "x\u00e9?", "plain text"]
    assert ids(found) == ["u0-0", "u0-1", "u0-2"]
    stats = read_json(found[0].folder / "_done.json")["stats"]
    assert stats["count"]["reasons"] == {"nothing left": 1}


def test_cuts_name_where_they_stand_first(tmp_path):
    generator = random.Random(0)
    long, tail = sentence(generator, 60), sentence(generator, 10)
    units = units_of(tmp_path, [["short", long], ["a " + long + " " + tail, long]])
    found = run_step(SubstringDedup(), units, tmp_path / "work")
    assert texts(found) == ["short", long, "a " + tail]
    with ipc.open_file(found[1].folder / substring_tasks.CUTS) as reader:
        cuts = reader.read_all().to_pylist()
    assert cuts == [
        {"row": 0, "id": "u1-0", "start": 2, "end": 3 + len(long)}
        | {"of_unit": "u0", "of_row": 1, "of_id": "u0-1"},
        {"row": 1, "id": "u1-1", "start": 0, "end": len(long)}
        | {"of_unit": "u0", "of_row": 1, "of_id": "u0-1"},
    ]


def test_shards_are_independent(tmp_path):
    long = sentence(random.Random(0), 60)
    units = units_of(tmp_path, [[long], [long], [long]])
    found = run_step(SubstringDedup(shards=2), units, tmp_path / "work")
    assert ids(found) == ["u0-0", "u1-0"]


def test_a_shard_beyond_the_memory_is_refused(tmp_path):
    documents = [sentence(random.Random(i), 100) for i in range(4)]
    units = units_of(tmp_path, [[d] for d in documents])
    cost = substring_step.BYTES_PER_ELEMENT["words", "windows"]
    step = SubstringDedup(memory_bytes=200 * cost)
    with pytest.raises(DataError) as caught:
        run_step(step, units, tmp_path / "work")
    message = str(caught.value)
    assert f"a shard of 400 words needs {400 * cost:,} bytes" in message
    assert "At most 200 words fit: use at least 2 shards." in message
    two = SubstringDedup(memory_bytes=200 * cost, shards=2)
    assert len(ids(run_step(two, units, tmp_path / "two"))) == 4
    with pytest.raises(DataError, match="smaller units \\(one has 100\\) or more memory"):
        run_step(SubstringDedup(memory_bytes=99 * cost, shards=4), units, tmp_path / "four")


def test_nothing_in_nothing_out(tmp_path):
    assert run_step(SubstringDedup(), [], tmp_path / "a") == []
    units = units_of(tmp_path, [[], ["", "a"]])
    for over in ("words", "bytes"):
        found = run_step(SubstringDedup(over=over, length=1), units, tmp_path / over)
        assert texts(found) == ["", "a"]


def test_bad_options():
    with pytest.raises(ConfigError, match="over: expected words or bytes, got 'x'"):
        SubstringDedup(over="x")
    with pytest.raises(ConfigError, match="method: expected windows or suffixes, got 'x'"):
        SubstringDedup(method="x")
    with pytest.raises(ConfigError, match="suffixes works over bytes"):
        SubstringDedup(method="suffixes")
    with pytest.raises(ConfigError, match="remove: expected copies or all, got 'x'"):
        SubstringDedup(remove="x")
    with pytest.raises(ConfigError, match="length, shards: expected 1 or more"):
        SubstringDedup(length=0)
