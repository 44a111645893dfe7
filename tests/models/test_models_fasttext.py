"""fastText files: the same hashes, the same probabilities, and one sentence for garbage."""

from __future__ import annotations

import heapq
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError, ModelError, UnderstudyError
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_bin import MAGIC, read_bin
from understudy.models.text.fasttext_dictionary import Dictionary
from understudy.models.text.fasttext_hash import char_ngrams, fnv1a, word_ngrams
from understudy.models.text.fasttext_lines import split_lines
from understudy.models.text.fasttext_matrix import DenseMatrix, SparseRows, project, segment_sums
from understudy.models.text.fasttext_output import hierarchical, huffman_paths, table_sigmoid
from understudy.models.text.fasttext_runs import merge_runs, run_sums, select_runs

GOLDEN = Path(__file__).parent / "fasttext_golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
NAMES = sorted(EXPECTED["models"])
DENSE = [name for name in NAMES if name.endswith(".bin")]


def slow_hash(word: bytes) -> int:
    h = 2166136261
    for (byte,) in struct.iter_unpack("b", word):  # signed
        h = ((h ^ (byte & 0xFFFFFFFF)) * 16777619) % 2**32
    return h


def slow_chars(word: bytes, low: int, high: int, buckets: int) -> list[int]:
    marked = b"<" + word + b">"
    places = [i for i, byte in enumerate(marked) if byte & 0xC0 != 0x80] + [len(marked)]
    chars = [marked[a:b] for a, b in pairwise(places)]
    out = []
    for i in range(len(chars)):
        for n in range(1, high + 1):
            if i + n > len(chars) or n < low:
                continue
            if n == 1 and (i == 0 or i + n == len(chars)):
                continue
            out.append(slow_hash(b"".join(chars[i : i + n])) % buckets)
    return out


def slow_words(hashes: list[int], order: int, buckets: int) -> list[int]:
    signed = [h - 2**32 if h >= 2**31 else h for h in hashes]
    out = []
    for i in range(len(signed)):
        h = signed[i] % 2**64
        for j in range(i + 1, min(i + order, len(signed))):
            h = (h * 116049371 + signed[j]) % 2**64
            out.append(h % buckets)
    return out


def test_fnv_known_answers():
    # from the reference list of the FNV authors (ASCII, where signs do not matter)
    got = fnv1a([b"", b"a", b"foobar"])
    assert got.tolist() == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]
    assert fnv1a(["é".encode()])[0] != 0xA4B5A6E7  # unsigned bytes would give another number
    assert fnv1a(["é".encode()])[0] == slow_hash("é".encode())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=9), st.binary(min_size=60, max_size=70))))
def test_fnv_equals_a_plain_loop(words):
    assert fnv1a(words).tolist() == [slow_hash(word) for word in words]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.one_of(st.text(max_size=7).map(str.encode), st.binary(max_size=6)), max_size=6
    ),
    low=st.integers(1, 4),
    more=st.integers(0, 3),
    buckets=st.integers(1, 999),
)
def test_char_ngrams_equal_a_plain_loop(words, low, more, buckets):
    values, counts = char_ngrams(words, low, low + more, buckets)
    edges = np.cumsum(counts)
    for word, count, stop in zip(words, counts, edges, strict=True):
        expected = slow_chars(word, low, low + more, buckets)
        assert sorted(values[stop - count : stop]) == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=7), max_size=5),
    order=st.integers(2, 4),
)
def test_word_ngrams_equal_a_plain_loop(lines, order):
    hashes = np.array([h for line in lines for h in line], np.uint32)
    counts = np.array([len(line) for line in lines], np.int64)
    values, sizes = merge_runs(word_ngrams(hashes, counts, order, 977))
    stops = np.cumsum(sizes)
    for line, size, stop in zip(lines, sizes, stops, strict=True):
        assert sorted(values[stop - size : stop]) == sorted(slow_words(line, order, 977))


def test_runs():
    counts = np.array([2, 0, 1])
    assert run_sums(np.array([1, 2, 5]), counts).tolist() == [3, 0, 5]
    values, sizes = select_runs(np.array([7, 8, 9]), counts, np.array([2, 0, 0, 1]))
    assert (values.tolist(), sizes.tolist()) == ([9, 7, 8, 7, 8], [1, 2, 2, 0])
    for width in (2, 20):
        rows = np.arange(3 * width, dtype=np.float32).reshape(3, width)
        sums = segment_sums(rows, counts)
        assert np.array_equal(sums, [rows[:2].sum(0), np.zeros(width), rows[2]])


def test_lines_split_like_fasttext():
    lines = split_lines(["  a\tb\n\nc ", "", "x\0y", "cut </s> here", "\x0b\x0c\r "])
    words = [lines.words[c].decode() for c in lines.codes]
    assert words == ["a", "b", "c", "</s>", "</s>", "x", "y", "</s>", "cut", "</s>", "</s>"]
    assert lines.counts.tolist() == [4, 1, 3, 2, 1]
    other_spaces = split_lines(["a\u00a0b\u2003c"])  # only ASCII white space separates
    assert other_spaces.counts.tolist() == [2]


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_fasttext(name):
    model = FastText.load(GOLDEN / name)
    got = model.probabilities(EXPECTED["texts"])
    compared = 0
    for row, expected in zip(got, EXPECTED["models"][name], strict=True):
        if not expected:
            assert np.isnan(row).all()
            continue
        assert set(expected) == set(model.labels)
        for label, value in zip(model.labels, row, strict=True):
            assert abs(value - expected[label]) < 1e-6
            compared += 1
    assert compared >= 20 * 5


@pytest.mark.parametrize("name", NAMES)
def test_a_text_does_not_depend_on_its_company(name):
    texts = EXPECTED["texts"]
    together = FastText.load(GOLDEN / name).probabilities(texts)
    model = FastText.load(GOLDEN / name)
    alone = np.concatenate([model.probabilities([text]) for text in reversed(texts)])[::-1]
    np.testing.assert_array_equal(together, alone)
    array = pa.array([None, *texts], pa.large_string())
    np.testing.assert_array_equal(model.probabilities(array)[1:], together)
    chunked = pa.chunked_array([texts[:5], texts[5:]], pa.string())
    np.testing.assert_array_equal(model.probabilities(chunked), together)


def test_a_small_cache_changes_nothing():
    texts = EXPECTED["texts"]
    model = FastText.load(GOLDEN / "quant-hs.ftz")
    before = model.probabilities(texts)
    model._sums.limit = 40
    for text, row in zip(texts, before, strict=True):
        np.testing.assert_array_equal(model.probabilities([text])[0], row)


def test_predict_and_score():
    model = FastText.load(GOLDEN / "softmax.bin")
    names, p = model.predict(EXPECTED["texts"])
    best = [max(row, key=row.get) for row in EXPECTED["models"]["softmax.bin"]]
    assert names == best
    np.testing.assert_allclose(
        p, [max(r.values()) for r in EXPECTED["models"]["softmax.bin"]], 1e-5
    )
    a = model.score(EXPECTED["texts"], "a")
    np.testing.assert_array_equal(a, model.score(EXPECTED["texts"], "__label__a"))
    with pytest.raises(ConfigError, match="no label 'hq'; its labels: "):
        model.score(["x"], "hq")
    assert model.probabilities([]).shape == (0, 5)


@pytest.mark.parametrize("name", DENSE)
def test_writing_gives_the_bytes_of_fasttext(name, tmp_path):
    FastText.load(GOLDEN / name).save_bin(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", DENSE)
def test_safetensors_round_trip(name, tmp_path):
    model = FastText.load(GOLDEN / name)
    saved = model.save(tmp_path / "model.safetensors")
    again = FastText.load(saved)
    texts = EXPECTED["texts"]
    np.testing.assert_array_equal(model.probabilities(texts), again.probabilities(texts))
    assert again.labels == model.labels
    again.save_bin(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (GOLDEN / name).read_bytes()
    assert again.fingerprint() != model.fingerprint()  # of the files
    assert len(again.fingerprint()) == 32


def test_quantised_models_keep_their_file(tmp_path):
    model = FastText.load(GOLDEN / "quant-cut.ftz")
    with pytest.raises(ModelError, match="kept as its .ftz file"):
        model.save(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="no dense form"):
        model.save_bin(tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())
    # without pruning a quantised table has a dense form: the numbers that the codes stand for
    model = FastText.load(GOLDEN / "quant-norm.ftz")
    dense = FastText.load(model.save_bin(tmp_path / "dense.bin"))
    texts = EXPECTED["texts"]
    np.testing.assert_allclose(model.probabilities(texts), dense.probabilities(texts), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30))
def test_huffman_tree_is_optimal_and_complete(counts):
    counts = sorted(counts, reverse=True)
    left, right = huffman_paths(np.array(counts))
    depths = (left + right).sum(1)
    heap, cost = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        cost += pair
        heapq.heappush(heap, pair)
    assert (depths * counts).sum() == cost
    assert sum(2.0**-d for d in depths) == 1.0
    outputs = np.random.default_rng(0).standard_normal((3, len(counts) - 1))
    np.testing.assert_allclose(hierarchical(outputs, left, right).sum(1), 1, atol=1e-3)


def test_table_sigmoid():
    x = np.array([[-9.0, -8.0, 0.0, 0.02, 0.04, 8.0, 9.0]])
    p = table_sigmoid(x)[0] - 1e-5
    assert abs(p[0]) < 1e-9
    assert p[6] == pytest.approx(1)
    assert p[2] == p[3] == pytest.approx(0.5, abs=1e-6)  # one step of the table is 1/32
    assert p[4] == pytest.approx(1 / (1 + np.exp(-1 / 32)), abs=1e-6)


def test_sparse_rows_equal_their_dense_table():
    rng = np.random.default_rng(1)
    dense = np.zeros((50, 4), np.float32)
    index = np.array([0, 7, 8, 49])
    dense[index] = rng.standard_normal((4, 4))
    sparse = SparseRows(50, index, dense[index])
    ids = rng.integers(0, 50, 200)
    np.testing.assert_array_equal(sparse.rows(ids), dense[ids])
    weights = rng.standard_normal((2, 4)).astype(np.float32)
    np.testing.assert_allclose(
        project(sparse, weights), project(DenseMatrix(dense), weights), atol=1e-6
    )
    empty = SparseRows(50, np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
    assert not empty.rows(ids).any()


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match="no such classifier file"):
        FastText.load(tmp_path / "none.bin")
    for content in (b"", b"PK\x03\x04 zip", b"x" * 100, b"\0" * 64):
        path = tmp_path / "file.bin"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"file\.bin"):
            FastText.load(path)
    path.write_bytes(struct.pack("<ii", MAGIC, 99) + b"\0" * 90)
    with pytest.raises(ModelError, match="version 99; versions 11 and 12"):
        FastText.load(path)
    data = bytearray((GOLDEN / "softmax.bin").read_bytes())
    struct.pack_into("<i", data, 36, 1)
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="word vectors, not a classifier"):
        FastText.load(path)


@pytest.mark.parametrize("name", ["softmax.bin", "quant-cut.ftz"])
def test_cut_files_give_one_sentence(name, tmp_path):
    data = (GOLDEN / name).read_bytes()
    path = tmp_path / "cut.bin"
    for stop in [*range(1, 200, 13), *range(200, len(data), 401), len(data) - 1]:
        path.write_bytes(data[:stop])
        with pytest.raises(UnderstudyError, match=r"cut\.bin"):
            FastText.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(DataError, match="1 bytes are left over"):
        FastText.load(path)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["hs-chars.bin", "quant-norm.ftz", "quant-cut.ftz"]),
    changes=st.lists(st.tuples(st.integers(8, 9_000), st.binary(min_size=1, max_size=8))),
)
def test_damaged_files_never_crash(name, changes, tmp_path_factory):
    data = bytearray((GOLDEN / name).read_bytes())
    for place, new in changes:
        place %= len(data) - 8
        data[place : place + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(bytes(data))
    try:
        with np.errstate(all="ignore"):
            model = FastText.load(path)
            model.probabilities(EXPECTED["texts"][:5])
        message = "damaged.bin"
    except UnderstudyError as error:
        message = str(error)
    assert "damaged.bin" in message


def test_sizes_are_believed_only_if_they_fit(tmp_path):
    data = bytearray((GOLDEN / "softmax.bin").read_bytes())
    size = read_bin(GOLDEN / "softmax.bin").dictionary
    assert struct.unpack_from("<i", data, 64)[0] == len(size.words) + len(size.labels)
    struct.pack_into("<3i", data, 64, 2**31 - 1, 2**31 - 6, 5)  # 2 billion entries
    path = tmp_path / "huge.bin"
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="the dictionary needs"):
        FastText.load(path)


def test_labels_inside_a_text_are_no_words():
    dictionary = Dictionary(
        words=[b"</s>", b"a"],
        word_counts=np.ones(2, np.int64),
        labels=("__label__x",),
        label_counts=np.ones(1, np.int64),
        word_ngrams=1,
        buckets=0,
    )
    bags = dictionary.bags(["a __label__x a", "__label__new b", "b"])
    rows, counts = bags.flat(*dictionary.word_rows(bags.vocabulary))
    assert bags.line_words.tolist() == [3, 2, 2]
    assert (rows.tolist(), counts.tolist()) == ([1, 1, 0, 0, 0], [3, 1, 1])
