"""Packing and the two-stage shuffle: nothing lost, any order as likely, flat memory, kill -9."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import tokens_kit as kit
from scipy import stats

from understudy.core.errors import ConfigError, DataError
from understudy.curate.tokens.cells import draw_cells, groups, plan_cells, units_by_tokens
from understudy.curate.tokens.chunk import chunk
from understudy.curate.tokens.decompose import decompose
from understudy.curate.tokens.jobs import TokenRun, made_by
from understudy.curate.tokens.pack import pack_documents
from understudy.curate.tokens.pack_config import PackConfig
from understudy.curate.tokens.parts import gather, rows_for_batch, spans
from understudy.data.sampler_buckets import BucketSampler
from understudy.data.tokens import TokenStore

ONE = TokenRun(workers=1)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return kit.write_documents(tmp_path_factory.mktemp("docs") / "d.store", 1500)


def pack_to(documents, path, run=ONE, **options):
    options = {"memory": 400_000, "context": 64, "min_log2": 4, "max_log2": 7, **options}
    return pack_documents(documents.path, path, PackConfig(**options), run)


def as_counter(rows):
    return Counter(row.tobytes() for row in rows)


def test_buckets_hold_every_piece_once(tmp_path, documents):
    made = pack_to(documents, tmp_path / "b", kind="buckets", seed=2)
    whole = documents.take(range(documents.num_rows))
    lengths = documents.lengths.astype(np.int64) + 1
    cut = decompose(lengths, 4, 7, seed=2)
    expected = [
        whole[d][a : a + n] for d, a, n in zip(cut.document, cut.start, cut.size, strict=True)
    ]
    rows = made.take(range(made.num_rows))
    assert as_counter(rows) == as_counter(expected)
    table = made.store.take(
        range(made.num_rows), ["id", "doc", "piece", "bucket", "length"]
    ).to_pydict()
    assert table["bucket"] == sorted(table["bucket"])
    assert [2**k for k in table["bucket"]] == table["length"] == [len(r) - 1 for r in rows]
    for name, doc, piece, row in zip(table["id"], table["doc"], table["piece"], rows, strict=True):
        assert name == f"{doc}#{piece}"
        number = int(doc[1:])
        (at,) = np.flatnonzero((cut.document == number) & (cut.piece == piece))
        np.testing.assert_array_equal(row, whole[number][cut.start[at] :][: cut.size[at]])
    made_stats = made_by(made)["stats"]
    assert made_stats["cells"] > 4  # several cells a bucket, or this tests little
    assert made_stats["largest_cell_bytes"] <= 400_000 // 4
    assert made_stats["dropped"] == cut.dropped.sum()
    assert made_stats["tokens"] + made_stats["dropped"] == documents.info.num_tokens
    assert made_stats["buckets"] == {str(k): len(v) for k, v in made.buckets.items()}
    assert (made.info.min_log2, made.info.max_log2, made.info.context) == (4, 7, 128)


@pytest.mark.parametrize("overlap", [0, 1])
def test_concat_keeps_the_stream(tmp_path, documents, overlap):
    made = pack_to(documents, tmp_path / "c", kind="concat", overlap=overlap)
    assert (made.lengths == 64).all()
    total = documents.info.num_tokens
    made_stats = made_by(made)["stats"]
    if not overlap:
        assert made.num_rows == total // 65
        assert made_stats["dropped"] == total % 65
        flat = np.concatenate(made.take(range(made.num_rows)))
        source = np.concatenate(documents.take(range(documents.num_rows)))
        lost = Counter(source.tolist()) - Counter(flat.tolist())
        assert sum(lost.values()) == total % 65
        assert not Counter(flat.tolist()) - Counter(source.tolist())
    else:
        # the predictions of the stream, but one for each unit's start and the last rest
        assert total // 64 - 40 < made.num_rows <= (total - 1) // 64
    # a new segment begins after each end of text, and nowhere else but at the row's start
    for row, parts in zip(made.take(range(300)), made.segments(range(300)), strict=True):
        ends = np.flatnonzero(row == 0) + 1
        edges = np.cumsum(parts)
        assert set(edges[:-1]) == set(ends[ends < len(row)])


def test_units_that_leave_tokens_over_lose_none(tmp_path, documents):
    made = pack_to(documents, tmp_path / "c", kind="concat", context=500, memory=700_000)
    ids = made.store.array("id")
    assert any(i.startswith("tail-") for i in ids)
    assert len({i[:6] for i in ids}) > 5


def test_packed_rows_hold_every_token_once(tmp_path, documents):
    made = pack_to(documents, tmp_path / "p", kind="packed")
    rows = made.take(range(made.num_rows))
    assert max(map(len, rows)) == 65
    flat = Counter(np.concatenate(rows).tolist())
    source = Counter(np.concatenate(documents.take(range(documents.num_rows))).tolist())
    dropped = made_by(made)["stats"]["dropped"]
    assert sum((source - flat).values()) == dropped <= 5
    assert not flat - source
    assert made.info.num_tokens / made.num_rows / 65 > 0.99
    for row, parts in zip(rows[:300], made.segments(range(300)), strict=True):
        ends = np.flatnonzero(row == 0) + 1
        assert set(ends[ends < len(row)]) <= set(np.cumsum(parts))


def test_the_result_depends_on_the_seed_only(tmp_path, documents):
    one = pack_to(documents, tmp_path / "a", kind="buckets")
    two = pack_to(documents, tmp_path / "b", kind="buckets", run=TokenRun(workers=2))
    assert one.fingerprint == two.fingerprint
    assert one.store.content_hash() == two.store.content_hash()
    other = pack_to(documents, tmp_path / "c", kind="buckets", seed=1, randomize=False)
    assert other.fingerprint != one.fingerprint


def test_every_place_is_as_likely():
    # 24 rows of 3 units into 5 cells, each shuffled: where does row 0 of unit 0 come to lie?
    from understudy.core.seeds import rng

    def order(seed):
        cells = [draw_cells(np.zeros(8, np.int64), {0: 5}, seed, unit) for unit in range(3)]
        out = []
        for cell in range(5):
            names = [
                8 * unit + row
                for unit in range(3)
                for _, c, rows in groups(np.zeros(8, np.int64), cells[unit])
                for row in rows
                if c == cell
            ]
            out += (
                np.array(names)[
                    rng("token-shuffle", seed, 0, cell).permutation(len(names))
                ].tolist()
                if names
                else []
            )
        return out

    orders = np.array([order(seed) for seed in range(800)])
    assert (np.sort(orders, axis=1) == np.arange(24)).all()
    for row in (0, 13, 23):
        places = np.argwhere(orders == row)[:, 1]
        assert stats.chisquare(np.bincount(places, minlength=24)).pvalue > 1e-3
    # neighbours in the corpus are no neighbours afterwards
    together = np.abs(np.argwhere(orders == 0)[:, 1] - np.argwhere(orders == 1)[:, 1]) == 1
    assert abs(together.mean() - 2 / 24) < 0.03


def test_rows_of_a_store_lie_anywhere(tmp_path, documents):
    made = pack_to(documents, tmp_path / "c", kind="concat")
    units = np.array([i[:6] for i in made.store.array("id")])
    names, counts = np.unique(units, return_counts=True)
    large = names[counts > 30]
    halves = units[: len(units) // 2]
    for name in large:
        share = (halves == name).sum()
        assert stats.binomtest(int(share), int((units == name).sum()), 0.5).pvalue > 1e-4


def run_kit(*arguments, **options):
    command = [sys.executable, kit.__file__, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, **options)


@pytest.mark.parametrize("stage", ["documents", "units", "cells"])
def test_killed_and_run_again(tmp_path, stage):
    kit.write_tokenizer(tmp_path)
    kit.write_lines(tmp_path / "a.jsonl", kit.texts(400))
    process = run_kit("work", tmp_path)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        done = list(tmp_path.glob(f"*.store.work/{stage}/*/_done.json"))
        if len(done) >= 2:
            break
        time.sleep(0.001)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "rows.store" / "_versions").exists()
    config = kit.TokeniseConfig(tokenizer=str(tmp_path / "tokenizer.json"), **kit.TOKENISE)
    again = kit.tokenise(tmp_path / "a.jsonl", tmp_path / "docs.store", config, ONE)
    rows = pack_documents(again.path, tmp_path / "rows.store", kit.PACK, ONE)
    clean = kit.tokenise(tmp_path / "a.jsonl", tmp_path / "clean.docs", config, ONE)
    expected = pack_documents(clean.path, tmp_path / "clean.rows", kit.PACK, ONE)
    assert again.fingerprint == clean.fingerprint
    assert rows.fingerprint == expected.fingerprint
    assert rows.store.content_hash() == expected.store.content_hash()
    assert not list(tmp_path.glob("*.work"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_while_input_grows_tenfold(tmp_path):
    memory = 4_000_000
    peaks, largest = [], []
    for count in (1_500, 15_000):
        kit.write_documents(tmp_path / f"{count}", count, mean=400)
        process = run_kit(
            "rss", tmp_path / f"{count}", tmp_path / f"{count}.out", memory, stdout=subprocess.PIPE
        )
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        peak, cell, _, tokens = map(int, out.split())
        peaks.append(peak * 1024)
        largest.append(cell)
        assert tokens > count * 350
    # there are 11 MB more; 12 bytes a document and row are held, and the rest is noise
    assert peaks[1] - peaks[0] < 6_000_000
    assert max(largest) <= memory // 4


def test_cells_hold_what_was_planned():
    rows, row_bytes, memory = 100_000, 300, 1_000_000
    cells = plan_cells(rows, row_bytes, memory)
    fits = memory // 4 // row_bytes
    assert cells > rows / fits  # room for chance
    for seed in range(5):
        drawn = draw_cells(np.zeros(rows, np.int64), {0: cells}, seed, 0)
        assert np.bincount(drawn).max() <= fits
    assert plan_cells(fits, row_bytes, memory) == 1
    with pytest.raises(ConfigError, match="hold 83 sequences of 3,000 bytes a cell, too few"):
        plan_cells(rows, 3_000, memory)


def test_units_fit_and_do_not_depend_on_anything_else():
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    units = units_by_tokens(lengths, 2, 16_000)
    assert units[0][0] == 0
    assert units[-1][1] == 1000
    assert all(a[1] == b[0] for a, b in itertools.pairwise(units))
    sizes = [lengths[a:b].sum() for a, b in units]
    assert max(sizes) <= 500
    assert min(sizes[:-1]) > 450
    assert units_by_tokens(np.array([600, 3, 900]), 2, 16_000) == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(ConfigError, match="a document of 9,000 tokens alone needs 72,000"):
        units_by_tokens(np.array([9_000]), 2, 16_000)


def test_pieces_are_gathered():
    flat = np.arange(100)
    np.testing.assert_array_equal(
        gather(flat, np.array([3, 90]), np.array([2, 3])), [3, 4, 90, 91, 92]
    )
    np.testing.assert_array_equal(gather(flat, np.array([3, 90]), np.array([2, 2])), [3, 4, 90, 91])
    assert len(gather(flat, np.empty(0, np.int64), np.empty(0, np.int64))) == 0
    counts = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(spans(counts, np.array([2, 0, 1])), [2, 3, 4, 0, 1])
    assert rows_for_batch(np.array([5, 5, 5, 5]), 10) == [(0, 2), (2, 4)]
    assert rows_for_batch(np.empty(0, np.int64)) == []


def test_the_same_again_and_another_configuration(tmp_path, documents):
    first = pack_to(documents, tmp_path / "b", kind="buckets")
    assert pack_to(documents, tmp_path / "b", kind="buckets").store.version == first.store.version
    with pytest.raises(DataError, match="of other inputs or options"):
        pack_to(documents, tmp_path / "b", kind="concat")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_log2": 9, "max_log2": 8}, "got min_log2 9 and max_log2 8"),
        (
            {"max_log2": 13, "limit": 2048},
            "2^13 = 8,192 tokens (buckets 2^8 to 2^13), and the model reads 2,048",
        ),
        (
            {"kind": "concat", "context": 4096, "max_log2": 11, "limit": 2048},
            "4,096 tokens, and the model reads 2,048",
        ),
        ({"kind": "bucket"}, "Did you mean 'buckets'"),
        ({"edges": "pure"}, "'pure' is not one of spent, shared"),
        ({"context": 0}, "context: expected at least 1"),
        ({"overlap": 2}, "overlap: expected 0 or 1"),
        ({"memory": 0}, "memory: expected bytes above 0"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ConfigError) as error:
        PackConfig(**{"kind": "buckets", **options})
    assert words in str(error.value)


def test_nothing_long_enough_and_nothing_to_pack(tmp_path, documents):
    with pytest.raises(DataError) as error:
        pack_to(documents, tmp_path / "b", kind="buckets", min_log2=14, max_log2=14)
    assert "no document gives a sequence (1,500 documents, by floor(log2(tokens)): {" in str(
        error.value
    )
    made = pack_to(documents, tmp_path / "c", kind="concat")
    with pytest.raises(DataError, match="holds 'concat'; only documents can be packed"):
        pack_to(made, tmp_path / "x", kind="buckets")


def test_shared_edges_at_rest(tmp_path, documents):
    made = pack_to(
        documents,
        tmp_path / "b",
        kind="buckets",
        edges="shared",
        min_log2=0,
        max_log2=9,
        memory=700_000,
    )
    total = documents.lengths.astype(np.int64).sum()  # every token but the first of a document
    assert made.lengths.astype(np.int64).sum() == total
    assert isinstance(made, TokenStore)
    assert made_by(made)["stats"]["dropped"] == 0


def test_a_sampler_draws_its_steps_from_the_store(tmp_path, documents):
    made = pack_to(documents, tmp_path / "b", kind="buckets")
    sampler = BucketSampler(made.buckets, 1024, fingerprint=made.fingerprint)
    for step in range(0, sampler.steps, 17):
        batch = sampler.batch(step)
        block = made.block(batch.rows)
        assert block.shape == (1024 // batch.size, batch.size + 1)
        np.testing.assert_array_equal(block[-1], made.take(batch.rows[-1:])[0])


def test_chunk_of_nothing():
    assert len(chunk(np.empty(0, np.int64), 4).rows.counts) == 0
