"""Documents cut and packed: partitions, known expansions, brute force beside every rule."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.core.errors import ConfigError
from understudy.curate.tokens.best_fit import best_fit, pack
from understudy.curate.tokens.chunk import chunk
from understudy.curate.tokens.decompose import decompose, floor_log2

LENGTHS = st.lists(st.integers(0, 700), min_size=1, max_size=12)


def cut_one(tokens, lo, hi):
    """The rule of the paper's repository, one document at a time, without draws."""
    out = []
    while len(tokens) > 1:
        k = math.floor(math.log2(len(tokens) - 1))
        if k < lo:
            break
        k = min(k, hi)
        out.append((k, tokens[: 2**k + 1]))
        tokens = tokens[2**k + 1 :]
    return out, tokens


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, lo=st.integers(0, 6), more=st.integers(0, 4))
def test_decompose_is_the_rule_of_the_paper(lengths, lo, more):
    hi = lo + more
    cut = decompose(np.array(lengths), lo, hi, randomize=False)
    for number, length in enumerate(lengths):
        expected, rest = cut_one(list(range(length)), lo, hi)
        mine = cut.document == number
        found = [
            (k, list(range(a, a + n)))
            for k, a, n in zip(cut.log2[mine], cut.start[mine], cut.size[mine], strict=True)
        ]
        assert found == expected
        assert cut.piece[mine].tolist() == list(range(len(expected)))
        assert cut.dropped[number] == len(rest)


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    lo=st.integers(0, 6),
    more=st.integers(0, 4),
    draw=st.booleans(),
    seed=st.integers(0, 5),
)
def test_pieces_are_a_partition_of_a_prefix(lengths, lo, more, draw, seed):
    hi = lo + more
    cut = decompose(np.array(lengths), lo, hi, randomize=draw, seed=seed)
    assert (cut.size == 2**cut.log2 + 1).all()
    assert ((cut.log2 >= lo) & (cut.log2 <= hi)).all()
    for number, length in enumerate(lengths):
        mine = cut.document == number
        read = list(
            itertools.chain(
                *(range(a, a + n) for a, n in zip(cut.start[mine], cut.size[mine], strict=True))
            )
        )
        assert read == list(range(length - cut.dropped[number]))
        assert cut.dropped[number] < 2**lo + 1
        if length < 2 ** (hi + 1):
            assert len(set(cut.log2[mine].tolist())) == mine.sum()  # at most one a bucket


@settings(max_examples=150, deadline=None)
@given(length=st.integers(1, 5000))
def test_pure_cutting_is_the_binary_expansion(length):
    cut = decompose(np.array([length]), 0, 12, edges="pure")
    bits = [k for k in range(13) if length >> k & 1]
    assert cut.log2.tolist() == bits[::-1]
    assert cut.size.sum() == length
    assert cut.dropped[0] == 0


@settings(max_examples=100, deadline=None)
@given(length=st.integers(2, 5000), lo=st.integers(0, 5))
def test_shared_edges_predict_every_token_once(length, lo):
    cut = decompose(np.array([length]), lo, 12, edges="shared")
    targets = [t for a, n in zip(cut.start, cut.size, strict=True) for t in range(a + 1, a + n)]
    assert targets == list(range(1, 1 + len(targets)))
    assert length - 1 - len(targets) < 2**lo
    assert cut.dropped[0] == (length - 1 - len(targets) if targets else length)


def test_lo_0_loses_at_most_one_token():
    cut = decompose(np.arange(3000), 0, 11)
    assert cut.dropped.max() <= 1


def test_draws_for_over_long_documents_give_buckets_equal_tokens():
    cut = decompose(np.full(6000, 20_000), 4, 7, seed=1)
    first = cut.piece == 0
    counts = np.bincount(cut.log2[first])[4:]
    odds = 2.0 ** -np.arange(4, 8)
    assert stats.chisquare(counts, odds / odds.sum() * 6000).pvalue > 1e-3
    tokens = np.bincount(cut.log2, weights=cut.size - 1)[4:]
    np.testing.assert_allclose(tokens / tokens.mean(), 1, atol=0.02)
    fixed = decompose(np.full(3, 20_000), 4, 7, randomize=False)
    assert (fixed.log2[fixed.piece < 100] == 7).all()


def test_a_document_is_cut_alone():
    lengths = np.random.default_rng(0).integers(0, 9000, 50)
    whole = decompose(lengths, 3, 6, seed=9, keys=np.arange(100, 150))
    for number in (0, 17, 49):
        alone = decompose(lengths[number : number + 1], 3, 6, seed=9, keys=np.array([100 + number]))
        mine = whole.document == number
        np.testing.assert_array_equal(alone.log2, whole.log2[mine])
    assert not np.array_equal(decompose(lengths, 3, 6, seed=8).log2, whole.log2)


def test_floor_log2_is_exact_at_powers():
    values = np.array([v for k in range(45) for v in (2**k, 2**k + 1, 2 ** (k + 1) - 1)])
    assert floor_log2(values).tolist() == [int(v).bit_length() - 1 for v in values]


def test_bad_cuts_are_named():
    with pytest.raises(ConfigError, match="got min_log2 9 and max_log2 8"):
        decompose(np.array([5]), 9, 8)
    with pytest.raises(ConfigError, match="'none' is not one of spent, shared, pure"):
        decompose(np.array([5]), edges="none")


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=20),
    context=st.integers(1, 12),
    overlap=st.integers(0, 1),
)
def test_chunks_are_the_stream_cut_by_hand(lengths, context, overlap):
    stream = [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    cut = chunk(np.array(lengths, np.int64), context, overlap=overlap)

    def parts(windows):
        at, out = 0, []
        for count in windows.counts:
            row = []
            for p in range(at, at + count):
                assert windows.size[p] > 0
                row += [
                    (int(windows.document[p]), int(windows.start[p]) + i)
                    for i in range(windows.size[p])
                ]
            out.append(row)
            at += count
        return out

    size, stride = context + 1, context + 1 - overlap
    expected, at = [], 0
    while at + size <= len(stream):
        expected.append(stream[at : at + size])
        at += stride
    assert parts(cut.rows) == expected
    rest = stream[at:]
    if overlap and expected and len(rest) == 1:
        rest = []  # it was the last target
    assert parts(cut.rest) == ([rest] if rest else [])


def test_2049_tokens_a_row():
    cut = chunk(np.array([2049, 2049, 100]), 2048)
    assert cut.rows.counts.tolist() == [1, 1]
    assert cut.rows.size.tolist() == [2049, 2049]
    assert cut.rest.size.tolist() == [100]
    for options in ({"context": 0}, {"context": 4, "overlap": 2}):
        with pytest.raises(ConfigError, match="expected"):
            chunk(np.array([9]), **options)


def best_fit_slow(lengths, capacity):
    """Every open row looked at, for every piece."""
    room, placed = [], {}
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fits = [r for r, free in enumerate(room) if free >= lengths[i]]
        if fits:
            row = min(fits, key=lambda r: room[r])
        else:
            row = len(room)
            room.append(capacity)
        room[row] -= lengths[i]
        placed[i] = row
    return room, placed


@settings(max_examples=200, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 40))
def test_best_fit_fills_rows_as_the_slow_rule_does(data, capacity):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=40))
    rows = best_fit(np.array(lengths, np.int64), capacity)
    room, _ = best_fit_slow(lengths, capacity)
    used = np.bincount(rows, weights=lengths, minlength=len(room)) if lengths else np.empty(0)
    assert len(used) == len(room)
    assert sorted(used.tolist()) == sorted(capacity - r for r in room)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 100), min_size=1, max_size=30), context=st.integers(1, 30))
def test_packing_keeps_every_token_once(lengths, context):
    packed = pack(np.array(lengths), context)
    assert (
        np.bincount(packed.row, weights=packed.size, minlength=packed.rows) <= context + 1
    ).all()
    assert (np.diff(packed.row) >= 0).all()
    seen = sorted(
        (d, a + i)
        for d, a, n in zip(packed.document, packed.start, packed.size, strict=True)
        for i in range(n)
    )
    assert seen == [(d, i) for d, n in enumerate(lengths) for i in range(n)]


def test_pieces_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="pieces of 3 to 9 tokens for rows of 8; cut them first"):
        best_fit(np.array([3, 9]), 8)
