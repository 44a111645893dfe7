"""Tokenizers against a slow reference, truncation, persistence, bad files."""

import copy
import gzip
import json
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.models.text.clean import clean_text
from understudy.models.text.tokenizer import ClipTokenizer, Tokenizer
from understudy.models.text.train_tokenizer import train_bpe, train_words
from understudy.models.text.vocabulary import byte_symbols

CAPTIONS = ["a large 3 left of a small 7", "a small 3", "the seven's left", "a large large 7"] * 5
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "a t</w>", "Ġ x", "d o", "do g</w>", "' s</w>"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.txt.gz"
    path.write_bytes(gzip.compress(("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode()))
    return path


def reference_bpe(word, merges, vocab):
    """Apply merges by rank to the bytes of one word: the textbook loop."""
    symbols = byte_symbols()
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = dict(zip([*plain, *(b for b in range(256) if b not in plain)], symbols, strict=True))
    parts = [table[b] for b in word.encode()]
    parts[-1] += "</w>"
    while True:
        ranked = [
            (merges.index(pair), i) for i, pair in enumerate(pairwise(parts)) if pair in merges
        ]
        if not ranked:
            return [vocab[p] for p in parts]
        i = min(ranked)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@settings(max_examples=30, deadline=None)
@given(words=st.lists(st.text("thecadogs'é日ß", min_size=1, max_size=8), min_size=1, max_size=4))
def test_bpe_against_the_textbook_loop(vocabulary, words):
    tokenizer = ClipTokenizer(vocabulary)
    for word in words:
        cleaned = clean_text(word, "clip")
        if not cleaned.isalpha():
            continue
        assert tokenizer.encode(word) == reference_bpe(cleaned, tokenizer.merges, tokenizer.vocab)


def test_rows_have_start_end_and_zeros(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, context_length=8)
    assert tokenizer.vocab_size == 512 + len(MERGES) + 2
    assert tokenizer.end_id == tokenizer.vocab_size - 1 == max(tokenizer.vocab.values()) + 2
    rows = tokenizer(["The   CAT", ""])
    the, cat = tokenizer.vocab["the</w>"], tokenizer.vocab["cat</w>"]
    assert rows[0].tolist() == [tokenizer.start_id, the, cat, tokenizer.end_id, 0, 0, 0, 0]
    assert rows[1].tolist() == [tokenizer.start_id, tokenizer.end_id, 0, 0, 0, 0, 0, 0]
    assert rows.dtype == torch.int64
    assert tokenizer([]).shape == (0, 8)
    assert torch.equal(tokenizer("the cat"), rows[:1])


def test_too_long_texts_keep_their_end_and_are_counted(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, context_length=6)
    rows = tokenizer(["the the the the", "the the the the the", "cat " * 100])
    assert tokenizer.num_truncated == 2
    assert (rows.argmax(-1) == 5).all()
    assert (rows[:, -1] == tokenizer.end_id).all()
    tokenizer(["cat " * 9])
    assert tokenizer.num_truncated == 3


def test_marks_inside_a_text(vocabulary):
    tokenizer = ClipTokenizer(vocabulary)
    the = tokenizer.vocab["the</w>"]
    ids = tokenizer.encode("the <end_of_text> the")
    assert ids == [the, tokenizer.end_id, the]


def test_cleaning():
    assert clean_text("  A\t B\n&amp;lt;C&gt; ", "clip") == "a b <c>"
    assert clean_text("  A &amp; B ", "lower") == "a &amp; b"
    assert clean_text("  A  B ", "whitespace") == "A B"


@pytest.mark.parametrize("kind", ["clip", "bpe", "words"])
def test_json_pickle_and_copy_keep_the_ids(vocabulary, kind):
    tokenizer = {
        "clip": lambda: ClipTokenizer(vocabulary),
        "bpe": lambda: train_bpe(CAPTIONS, 600, context_length=16),
        "words": lambda: train_words(CAPTIONS, context_length=16),
    }[kind]()
    texts = [*CAPTIONS, "unseen wörds!"]
    expected = tokenizer(texts)
    again = Tokenizer.from_json(tokenizer.to_json())
    assert torch.equal(again(texts), expected)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert torch.equal(pickle.loads(pickle.dumps(tokenizer))(texts), expected)
    assert torch.equal(copy.deepcopy(tokenizer)(texts), expected)
    longer = tokenizer.with_context(40)(texts)
    assert longer.shape[1] == 40
    assert tokenizer.with_context(40).fingerprint() != tokenizer.fingerprint()


def test_transformers_file_gives_the_same_ids(vocabulary, tmp_path):
    ours = ClipTokenizer(vocabulary)
    vocab = {**ours.vocab, "<|startoftext|>": ours.start_id, "<|endoftext|>": ours.end_id}
    model = {"type": "BPE", "vocab": vocab, "merges": [" ".join(m) for m in ours.merges]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert torch.equal(ClipTokenizer(path)(CAPTIONS), ours(CAPTIONS))


def test_trained_bpe():
    tokenizer = train_bpe(CAPTIONS, 560, context_length=20)
    assert tokenizer.vocab_size <= 560
    assert len(tokenizer.encode("large")) == 1
    assert tokenizer.decode(tokenizer("A large  7")[0]) == "a large 7"
    assert tokenizer.decode(tokenizer("日本 7")[0]) == "日本 7"
    assert train_bpe(CAPTIONS[::-1], 560).to_json() == train_bpe(CAPTIONS, 560).to_json()
    assert 0 not in tokenizer.encode("".join(chr(i) for i in range(33, 256)))


def test_trained_words():
    tokenizer = train_words(CAPTIONS, context_length=16)
    assert tokenizer.decode(tokenizer("a small 7")[0]) == "a small 7"
    assert tokenizer.encode("a zebra") == [tokenizer.vocab["a"], 1]
    small = train_words(CAPTIONS, 6)
    assert small.vocab_size == 6
    assert small.encode("a large zoo") == [2, 3, 1]
    assert tokenizer.vocab["<pad>"] == 0


def test_bad_input(vocabulary, tmp_path):
    with pytest.raises(DataError, match=r"none.txt: no such vocabulary file"):
        ClipTokenizer(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"a folder without tokenizer.json or merges.txt"):
        ClipTokenizer(tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_text("hello\nworld\n")
    with pytest.raises(DataError, match="its first line names no version"):
        ClipTokenizer(bad)
    bad.write_text("#version\na b\na b c\n")
    with pytest.raises(DataError, match=r"bad.txt, line 3: expected two symbols"):
        ClipTokenizer(bad)
    (tmp_path / "x.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="not a BPE merges list"):
        ClipTokenizer(tmp_path / "x.txt.gz")
    other = tmp_path / "other.json"
    other.write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(DataError, match="expected a BPE tokenizer, got Unigram"):
        ClipTokenizer(other)
    with pytest.raises(ConfigError, match="leaves no room for a word"):
        ClipTokenizer(vocabulary, context_length=2)
    with pytest.raises(ConfigError, match="bytes alone take 512"):
        train_bpe(CAPTIONS, 300)
    with pytest.raises(DataError, match="not a tokenizer's JSON"):
        Tokenizer.from_json("{}")
    with pytest.raises(DataError, match=r"ids are not 0..n-1"):
        Tokenizer("words", {"a": 1}, unknown=1)
