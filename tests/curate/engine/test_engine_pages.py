"""Pages, files of pages, and chains of stages."""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import engine_steps

from understudy.core.errors import DataError
from understudy.core.hashing import hash_file
from understudy.curate.engine import units as units_module
from understudy.curate.engine.function_stage import FunctionStage
from understudy.curate.engine.pages import Page, batch_of, page_id, page_schema, pages_of
from understudy.curate.engine.stage import Count, Stage, chain
from understudy.curate.engine.units import PAGES, read_pages, text_lengths, write_pages

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=40)


def pages(found, **more):
    return [Page(id=str(i), text=t, source="s", **more) for i, t in enumerate(found)]


@settings(max_examples=15, deadline=None)
@given(texts, st.data())
def test_equal_pages_give_equal_bytes_however_they_are_batched(found, data):
    whole = batch_of(pages(found), {"n": pa.int32()})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(found)), max_size=5)))
    bounds = [0, *cuts, len(found)]
    parts = [whole.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    rows, size = units_module.BATCH_ROWS, units_module.BATCH_BYTES
    units_module.BATCH_ROWS = data.draw(st.integers(1, 70))
    units_module.BATCH_BYTES = data.draw(st.integers(1, 300))
    try:
        with tempfile.TemporaryDirectory() as name:
            hashes = []
            for which, batches in enumerate(([whole], parts)):
                folder = Path(name) / str(which)
                folder.mkdir()
                assert write_pages(folder, batches, whole.schema) == len(found)
                hashes.append(hash_file(folder / PAGES))
            read = list(read_pages(folder))
        assert hashes[0] == hashes[1]
        assert [t for b in read for t in b.column("text").to_pylist()] == found
        for batch in read:
            lengths = text_lengths(batch)
            assert batch.num_rows <= units_module.BATCH_ROWS
            # a batch ends with the row that fills it
            assert lengths[:-1].sum() < units_module.BATCH_BYTES
    finally:
        units_module.BATCH_ROWS, units_module.BATCH_BYTES = rows, size


@settings(max_examples=30, deadline=None)
@given(texts)
def test_text_lengths_are_bytes(found):
    batch = batch_of(pages(found), {})
    assert text_lengths(batch).tolist() == [len(t.encode()) for t in found]
    assert text_lengths(batch.slice(len(found) // 2)).sum() == sum(
        len(t.encode()) for t in found[len(found) // 2 :]
    )


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match="pages.arrow: cannot be read"):
        list(read_pages(tmp_path))
    (tmp_path / PAGES).write_bytes(b"ARROW1\0\0 and then nothing")
    with pytest.raises(DataError, match="pages.arrow: cannot be read"):
        list(read_pages(tmp_path))


def test_ids_of_copies_share_their_first_half_only():
    a, b = page_id("u", "text", "a.jsonl", 0), page_id("u", "text", "a.jsonl", 90)
    c, d = page_id("u", "text", "b.jsonl", 0), page_id("u", "other", "a.jsonl", 0)
    assert len({a, b, c, d}) == 4
    assert a[:16] == b[:16] == c[:16] != d[:16]
    assert len(a) == 32
    assert page_id(None, "\ud800") == page_id("", "\ud800")


def test_cached_facts_go_with_the_text():
    page, made = Page(id="1", text="a b"), []

    def words(text):
        made.append(text)
        return text.split()

    assert page.cached("w", words) is page.cached("w", words)
    page.text = "a b"  # the same text
    page.cached("w", words)
    assert made == ["a b"]
    page.text = "c"
    assert page.cached("w", words) == ["c"]


def test_a_batch_needs_the_base_columns():
    with pytest.raises(DataError, match="missing column url, source, metadata"):
        pages_of(pa.record_batch({"id": ["1"], "text": ["a"]}))


def test_split_pages_have_ids_and_columns_of_their_own():
    page = Page(id="p", text="ab", url="u", metadata='{"a": 1}', data={"n": 1})
    first, second = page.split(["a", "b"])
    first.data["n"] = 2
    assert [p.id for p in (first, second)] == ["p#0", "p#1"]
    assert second.data == {"n": 1}
    assert second.facts() == {"a": 1}


def test_chain_counts_by_hand():
    stages = [
        FunctionStage("upper", engine_steps.upper, {}),
        engine_steps.AtLeast(chars=3),
        engine_steps.EvenRows(),
        FunctionStage("halves", engine_steps.halves, {}),
        engine_steps.WordCount(),
    ]
    seen = []
    batch = batch_of(pages(["ß", "abcd", "é é é", "xy z"]), {})
    out, counts = chain(stages, batch, lambda n, page, why: seen.append((n, page.id, why)))
    # "ß" becomes "SS": 2 bytes both; too short. Of the three left the second goes.
    assert [(c.pages_in, c.pages_out) for c in counts] == [(4, 4), (4, 3), (3, 2), (2, 4), (4, 4)]
    assert [(c.bytes_in, c.bytes_out) for c in counts] == [
        (18, 18),
        (18, 16),
        (16, 8),
        (8, 8),
        (8, 8),
    ]
    assert seen == [(1, "0", "too short"), (2, "2", "even-rows")]
    assert [dict(c.reasons) for c in counts[:3]] == [{}, {"too short": 1}, {"even-rows": 1}]
    assert out.column("id").to_pylist() == ["1#0", "1#1", "3#0", "3#1"]
    assert out.column("words").to_pylist() == [1, 1, 1, 1]
    assert out.schema == page_schema({"words": pa.int32()})


def test_stages_over_batches_keep_what_is_known_of_texts():
    made = []

    class Known(engine_steps.WordCount):
        def pages(self, page):
            page.cached("w", lambda text: made.append(text))
            return [page]

    class Upper(Stage):
        name = "upper"

        def __call__(self, batch):
            texts = [t.upper() for t in batch.column("text").to_pylist()]
            return batch.set_column(1, "text", pa.array(texts))

    chain([Known(), engine_steps.EvenRows(), Known(), Upper(), Known()], batch_of(pages("aBc"), {}))
    assert made == ["a", "B", "c", "A", "C"]


def test_a_stage_alone_is_a_chain_of_one():
    batch = batch_of(pages(["abc", "a"]), {})
    assert engine_steps.AtLeast(chars=2)(batch).column("text").to_pylist() == ["abc"]


def test_a_failing_stage_names_page_and_step():
    stage = FunctionStage("mine:breaks", engine_steps.breaks, {})
    with pytest.raises(DataError, match="mine:breaks: page '0' of s failed .RuntimeError: no such"):
        chain([stage], batch_of(pages(["a"]), {}))
    with pytest.raises(DataError, match="expected a list of pages, got Page"):
        chain([FunctionStage("w", engine_steps.wrong, {})], batch_of(pages(["a"]), {}))
    with pytest.raises(DataError, match="columns surprise were not announced; add _adds"):
        chain([FunctionStage("u", engine_steps.unannounced, {})], batch_of(pages(["a"]), {}))
    # announced by the pipeline, it is a column
    stage = FunctionStage("u", engine_steps.unannounced, {}, {"surprise": "int8"})
    assert chain([stage], batch_of(pages(["a"]), {}))[0].column("surprise").to_pylist() == [1]


counts = st.builds(
    Count,
    pages_in=st.integers(0, 9),
    pages_out=st.integers(0, 9),
    bytes_in=st.integers(0, 9),
    seconds=st.integers(0, 9).map(float),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(counts, max_size=5))
def test_counts_add_in_any_order(found):
    forward, backward = Count(), Count()
    for one in found:
        forward.add(one)
    for one in reversed(found):
        backward.add(one.to_plain())
    assert forward == backward
