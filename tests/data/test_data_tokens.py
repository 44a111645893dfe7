"""Token stores: what is written comes back, what does not fit is refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.data.store import Store
from understudy.data.tokens import (
    FACTS,
    TokenInfo,
    TokenStore,
    check_log2,
    list_array,
    segment_ids,
    token_dtype,
)

INFO = TokenInfo(
    kind="documents", tokenizer="toy", tokenizer_hash="abc", vocab_size=50_000, eot_id=0
)


def rows_of(lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 50_000, n + 1).astype(np.uint16) for n in lengths]


def batches(rows, size=7, **facts):
    for start in range(0, len(rows), size):
        window = slice(start, start + size)
        ids = [f"r{i}" for i in range(start, min(start + size, len(rows)))]
        yield {"id": ids, "tokens": rows[window], **{k: v[window] for k, v in facts.items()}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    lengths = [5, 1, 8, 8, 8, 300, 2, 8] * 6
    rows = rows_of(lengths)
    path = tmp_path_factory.mktemp("tokens") / "t.store"
    return TokenStore.create(path, batches(rows), INFO, rows_per_fragment=16), rows


def test_rows_come_back_in_the_order_asked_for(store):
    made, rows = store
    assert made.num_rows == len(made) == len(rows)
    np.testing.assert_array_equal(made.lengths, [len(r) - 1 for r in rows])
    assert made.lengths.dtype == np.int32
    asked = np.random.default_rng(1).integers(0, len(rows), 30)  # some twice
    for row, tokens in zip(asked, made.take(asked), strict=True):
        np.testing.assert_array_equal(tokens, rows[row])
        assert tokens.dtype == np.uint16
    assert made.take([]) == []


def test_facts_are_counted_while_writing(store):
    made, rows = store
    info = TokenStore.open(made.path).info
    assert (info.num_rows, info.documents) == (48, 48)
    assert info.num_tokens == sum(map(len, rows))
    assert info.dtype == "uint16"


def test_equal_rows_make_a_block(store):
    made, rows = store
    equal = [i for i, r in enumerate(rows) if len(r) == 9][::-1]
    block = made.block(equal)
    assert block.shape == (len(equal), 9)
    np.testing.assert_array_equal(block, np.stack([rows[i] for i in equal]))
    with pytest.raises(DataError, match="rows of 6 to 9 tokens do not make one array"):
        made.block([0, 2])


def test_fingerprint_is_of_the_content_not_of_batches(tmp_path, store):
    made, rows = store
    again = TokenStore.create(tmp_path / "a", batches(rows, 5), INFO, rows_per_fragment=9)
    assert again.fingerprint == made.fingerprint
    block = np.stack(rows_of([8] * 6))
    a = TokenStore.create(tmp_path / "b", [{"id": list("abcdef"), "tokens": block}], INFO)
    b = TokenStore.create(tmp_path / "c", batches(list(block)), INFO)
    assert a.info.content == b.info.content
    other = TokenStore.create(tmp_path / "d", batches([*block[:-1], block[-1][::-1]]), INFO)
    assert other.fingerprint != b.fingerprint
    # the same tokens, cut in other places
    flat = block.reshape(-1)
    cut = TokenStore.create(tmp_path / "e", batches([flat[:10], flat[10:]]), INFO)
    assert cut.fingerprint != b.fingerprint


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    big=st.booleans(),
)
def test_any_lengths_round_trip(tmp_path_factory, lengths, big):
    dtype = "uint32" if big else "uint16"
    info = dataclasses.replace(INFO, dtype=dtype)
    rows = [r.astype(dtype) for r in rows_of(lengths)]
    path = tmp_path_factory.mktemp("t") / "s"
    made = TokenStore.create(path, batches(rows), info)
    assert all(
        (a == b).all() and a.dtype == dtype
        for a, b in zip(made.take(range(len(rows))), rows, strict=True)
    )


def test_segments_and_buckets(tmp_path):
    rows = rows_of([8, 8, 4])
    facts = {"segments": FACTS["segments"]}
    packed = TokenStore.create(
        tmp_path / "p",
        batches(rows, segments=[[3, 6], [9], [1, 1, 3]]),
        dataclasses.replace(INFO, kind="packed", context=8),
        facts=facts,
    )
    assert [s.tolist() for s in packed.segments([2, 0])] == [[1, 1, 3], [3, 6]]
    np.testing.assert_array_equal(segment_ids(packed.segments([2])[0]), [0, 1, 2, 2, 2])
    with pytest.raises(DataError, match="its rows are 'packed', not buckets"):
        _ = packed.buckets
    info = dataclasses.replace(INFO, kind="buckets", min_log2=2, max_log2=3)
    made = TokenStore.create(
        tmp_path / "b", batches(rows, bucket=[3, 3, 2]), info, facts={"bucket": FACTS["bucket"]}
    )
    assert {k: v.tolist() for k, v in made.buckets.items()} == {2: [2], 3: [0, 1]}
    assert [s.tolist() for s in made.segments([1, 2])] == [[9], [5]]
    with pytest.raises(DataError, match=r"row r0: its segments do not add up to its 9 tokens"):
        TokenStore.create(
            tmp_path / "x",
            batches(rows, segments=[[3, 5], [9], [5]]),
            dataclasses.replace(INFO, kind="packed"),
            facts=facts,
        )
    assert not (tmp_path / "x").exists()


def test_tokens_outside_of_the_vocabulary_are_named(tmp_path):
    rows = rows_of([4, 4])
    rows[1][2] = 50_000
    with pytest.raises(DataError, match="row r1: token 50000 is outside of the 50,000 ids of toke"):
        TokenStore.create(tmp_path / "s", batches(rows), INFO)


def test_empty_rows_and_wrong_lengths_are_named(tmp_path):
    with pytest.raises(DataError, match="row r1: 0 tokens"):
        TokenStore.create(tmp_path / "s", batches([np.ones(3, np.uint16), np.empty(0)]), INFO)
    tokens = list_array([np.ones(3, np.uint16)], "uint16")
    batch = pa.record_batch({"id": ["a"], "tokens": tokens, "length": pa.array([3], pa.int32())})
    with pytest.raises(DataError, match="row a: 3 tokens with length 3"):
        TokenStore.create(tmp_path / "s", [batch], INFO)


def test_ids_that_do_not_fit_never_wrap_around():
    with pytest.raises(DataError, match="5 to 70000 do not fit uint16"):
        list_array([np.array([5, 70_000])], "uint16")


def test_dtypes():
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
    with pytest.raises(ConfigError) as error:
        token_dtype(128_256, "uint16", "llama")
    assert "tokenizer llama has 128,256 ids, and uint16 holds 65,536: use uint32" in str(
        error.value
    )
    with pytest.raises(ConfigError, match="no stored type is large enough"):
        token_dtype(2**33, "uint32", "huge")


def test_missing_end_of_text():
    for eot in (None, -1, 50_000):
        with pytest.raises(
            ConfigError, match=r"tokenizer toy \(50,000 ids\) has no end-of-text id"
        ):
            dataclasses.replace(INFO, eot_id=eot)


def test_bucket_exponents():
    check_log2(8, 13, 8192)
    with pytest.raises(ConfigError, match="got min_log2 9 and max_log2 8"):
        check_log2(9, 8)
    with pytest.raises(
        ConfigError, match="2\\^13 = 8,192 tokens .* the model reads 4,096: lower max_log2 to 12"
    ):
        check_log2(8, 13, 4096)


def test_a_tokenizer_of_other_ids_is_refused(store):
    made, _ = store
    made.check_tokenizer("toy again", "abc")
    with pytest.raises(DataError, match="tokens are of tokenizer toy .* not of other"):
        made.check_tokenizer("other", "abd")


def test_what_is_no_token_store_is_refused(tmp_path):
    Store.create(tmp_path / "s", [{"id": ["a"], "text": ["b"]}])
    with pytest.raises(DataError, match="not a token store"):
        TokenStore.open(tmp_path / "s")


def test_rows_added_later_are_refused(tmp_path):
    made = TokenStore.create(tmp_path / "s", batches(rows_of([4])), INFO)
    tokens = pa.array([[1, 2]], pa.list_(pa.uint16()))
    made.store.append(
        [pa.record_batch({"id": ["x"], "tokens": tokens, "length": pa.array([1], pa.int32())})]
    )
    with pytest.raises(DataError, match="2 rows, and 1 were written"):
        TokenStore.open(tmp_path / "s")


def test_knowledge_columns_can_join(tmp_path):
    from understudy.data.card import Card

    made = TokenStore.create(tmp_path / "s", batches(rows_of([4, 5])), INFO)
    with made.store.job([Card(column="cluster", writer="t")], {"cluster": pa.int32()}) as job:
        for unit in job.todo():
            job.write(unit, {"cluster": pa.array([7, 8], pa.int32())})
    opened = TokenStore.open(tmp_path / "s")
    assert opened.store.array("cluster").tolist() == [7, 8]
    assert opened.fingerprint == made.fingerprint
