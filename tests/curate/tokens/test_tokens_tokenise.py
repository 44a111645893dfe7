"""Tokenising: any tokenizer, ids that come back as text, bad documents named and counted."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest
import tokens_kit as kit

from understudy.core.errors import ConfigError, DataError, MissingExtraError
from understudy.curate.tokens import encoders
from understudy.curate.tokens.encoders import TiktokenEncoder, load_encoder
from understudy.curate.tokens.jobs import TokenRun, made_by
from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
from understudy.data.store import Store
from understudy.data.tokens import TokenStore
from understudy.models.language.coder import read_coder
from understudy.models.text.train_tokenizer import train_byte_bpe, train_words

ONE = TokenRun(workers=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return kit.write_tokenizer(tmp_path_factory.mktemp("tok"))


def config(tokenizer, **options):
    return TokeniseConfig(tokenizer=str(tokenizer), **options)


def test_documents_come_back_as_text(tmp_path, tokenizer):
    documents = [*kit.texts(30), "Ünï\u4f60\u597d\tcode <|endoftext|> and\n\n spaces  "]
    source = kit.write_lines(tmp_path / "a.jsonl", documents)
    made = tokenise(source, tmp_path / "s", config(tokenizer, facts=("source", "time:int64")), ONE)
    coder = read_coder(tokenizer.read_text())
    rows = made.take(range(made.num_rows))
    assert [coder.decode(row) for row in rows] == documents
    # the end of text is at the end, and nowhere else, even where a page spells it out
    assert all((row == coder.end_id).nonzero()[0].tolist() == [len(row) - 1] for row in rows)
    assert made.info.kind == "documents"
    made.check_tokenizer("the model's", coder.fingerprint())
    assert made.store.array("time").tolist() == list(range(31))
    assert set(made.store.array("source")) == {"a.jsonl"}
    stats = made_by(made)["stats"]
    assert stats["documents"] == 31
    assert stats["tokens"] == made.info.num_tokens == sum(map(len, rows))
    assert stats["characters"] == sum(map(len, documents))
    assert sum(stats["lengths"].values()) == 31
    assert not (tmp_path / "s.work").exists()


def test_units_workers_and_kinds_of_files_do_not_matter(tmp_path, tokenizer):
    documents = kit.texts(60)
    plain = kit.write_lines(tmp_path / "a.jsonl", documents)
    whole = tokenise(plain, tmp_path / "s1", config(tokenizer), ONE)
    cut = config(tokenizer, unit_bytes=2_000)
    parts = tokenise(plain, tmp_path / "s2", cut, TokenRun(workers=2))
    assert parts.info.content == whole.info.content
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert (
        tokenise(packed, tmp_path / "s3", config(tokenizer), ONE).info.content == whole.info.content
    )
    Store.create(tmp_path / "pages", [{"id": [f"d{i}" for i in range(60)], "text": documents}])
    stored = tokenise(tmp_path / "pages", tmp_path / "s4", config(tokenizer), ONE)
    assert stored.info.content == whole.info.content


def test_the_same_command_again_does_nothing_and_another_is_refused(tmp_path, tokenizer):
    source = kit.write_lines(tmp_path / "a.jsonl", kit.texts(9))
    first = tokenise(source, tmp_path / "s", config(tokenizer), ONE)
    again = tokenise(source, tmp_path / "s", config(tokenizer), ONE)
    assert again.store.version == first.store.version
    kit.write_lines(source, kit.texts(10))
    with pytest.raises(DataError, match="of other inputs or options; --overwrite replaces it"):
        tokenise(source, tmp_path / "s", config(tokenizer), ONE)
    other = tokenise(source, tmp_path / "s", config(tokenizer), TokenRun(workers=1, overwrite=True))
    assert other.num_rows == 10


BAD = [
    ('{"id": "a", "text": "to be"}', None),
    ('{"id": "b"}', "line 2"),
    ('{"id": "c", "text": 5}', "line 3"),
    ("not json", "line 4"),
    ("[1]", "line 5"),
    ('{"id": "f", "text": "  "}', "a.jsonl"),
    ('{"id": "g", "text": "or not"}', None),
]


def test_bad_documents_are_counted_with_their_places(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(line for line, _ in BAD))
    made = tokenise(path, tmp_path / "s", config(tokenizer, strict=False), ONE)
    assert made.store.array("id").tolist() == ["a", "g"]
    stats = made_by(made)["stats"]
    assert stats["skipped"] == {"empty": 1, "no object": 1, "no text": 2, "not JSON": 1}
    assert str(path) in stats["examples"][0]
    assert "line 2" in stats["examples"][0]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_strict_stops_at_the_first_bad_document(tmp_path, tokenizer, number):
    line, place = BAD[number]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join([*(good for good, p in BAD[:number] if p is None), *[" "] * (number - 1), line])
    )
    with pytest.raises(DataError) as error:
        tokenise(path, tmp_path / "s", config(tokenizer), ONE)
    assert str(place) in str(error.value)
    assert "a.jsonl" in str(error.value)
    assert not (tmp_path / "s").exists()


def test_a_file_that_is_cut_off(tmp_path, tokenizer):
    plain = kit.write_lines(tmp_path / "x.jsonl", kit.texts(200)).read_bytes()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(plain)[:-300])
    with pytest.raises(DataError, match="damaged or cut off"):
        tokenise(path, tmp_path / "s", config(tokenizer), ONE)
    made = tokenise(path, tmp_path / "s", config(tokenizer, strict=False), ONE)
    assert 0 < made.num_rows < 200
    assert made_by(made)["stats"]["skipped"] == {"cut off": 1}


def test_nothing_usable(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n')
    with pytest.raises(DataError, match=r"no document could be used \(2 no text\)"):
        tokenise(path, tmp_path / "s", config(tokenizer, strict=False), ONE)


def test_more_workers_than_units(tmp_path, tokenizer):
    source = kit.write_lines(tmp_path / "a.jsonl", kit.texts(9))
    with pytest.raises(ConfigError, match="workers: 7 for 1 units of input .*; use 1 or fewer"):
        tokenise(source, tmp_path / "s", config(tokenizer), TokenRun(workers=7))


def test_facts_of_another_type_are_named(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "to be", "time": "soon"}\n')
    with pytest.raises(
        DataError, match="document 'a': field 'time' holds 'soon', which is not int"
    ):
        tokenise(path, tmp_path / "s", config(tokenizer, facts=("time:int64",)), ONE)
    with pytest.raises(ConfigError, match="'number' of 'time' is not an Arrow type"):
        config(tokenizer, facts=("time:number",))
    with pytest.raises(ConfigError, match="'length' is a column of every token store"):
        config(tokenizer, facts=("length",))


def test_a_transformers_folder_and_a_bare_file(tmp_path, tokenizer):
    plain = json.dumps(json.loads(tokenizer.read_text())["tokenizer"])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(plain)
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    ours, theirs, bare = (load_encoder(p) for p in (tokenizer, folder, folder / "tokenizer.json"))
    text = "to be, or not <|endoftext|>"
    assert len({tuple(e.encode_batch([text])[0]) for e in (ours, theirs, bare)}) == 1
    assert ours.eot_id == theirs.eot_id == bare.eot_id == 0
    assert ours.fingerprint == theirs.fingerprint
    assert theirs.name == "model"
    no_end = plain.replace("<|endoftext|>", "<|stop|>")
    (folder / "tokenizer.json").write_text(no_end)
    with pytest.raises(
        ConfigError, match=r"tokenizer model \(291 ids\): none of its special tokens \(<\|stop\|>\)"
    ):
        load_encoder(folder / "tokenizer.json")
    assert load_encoder(folder / "tokenizer.json", eot="<|stop|>").eot_id == 0
    with pytest.raises(ConfigError, match="no token '<eos>'"):
        load_encoder(folder / "tokenizer.json", eot="<eos>")


def test_small_tokenizers_of_our_own(tmp_path):
    words = train_words(kit.texts(20))
    path = tmp_path / "words.json"
    path.write_text(words.to_json())
    encoder = load_encoder(path)
    assert encoder.encode_batch(["to be"])[0].tolist() == words.encode("to be")
    assert (encoder.eot_id, encoder.fingerprint) == (words.end_id, words.fingerprint())


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_encoder(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("no")
    with pytest.raises(DataError, match="not a tokenizer.json"):
        load_encoder(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises((DataError, ConfigError)):
        load_encoder(tmp_path / "y.json")


def test_a_vocabulary_that_does_not_fit_the_type(tokenizer, monkeypatch):
    assert load_encoder(tokenizer, dtype="uint32").encode_batch(["be"])[0].dtype == np.uint32
    monkeypatch.setattr(encoders.JsonCoder, "vocab_size", 128_000)
    with pytest.raises(ConfigError, match="tokenizer .* has 128,000 ids, and uint16 holds 65,536"):
        load_encoder(tokenizer, dtype="uint16")


def test_tiktoken_encodings():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)} | {b"be": 256, b" be": 257}
    encoding = tiktoken.Encoding(
        "toy",
        pat_str=r" ?\w+|\s+|[^\w\s]+",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 258},
    )
    encoder = TiktokenEncoder(encoding)
    ids = encoder.encode_batch(["to be<|endoftext|>"])[0]
    assert encoding.decode(ids.tolist()) == "to be<|endoftext|>"
    assert 258 not in ids
    assert (encoder.eot_id, encoder.vocab_size, ids.dtype) == (258, 259, np.uint16)
    other = tiktoken.Encoding(
        "toy", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 258}
    )
    assert TiktokenEncoder(other).fingerprint != encoder.fingerprint
    with pytest.raises(ConfigError, match="no end-of-text id"):
        TiktokenEncoder(encoding, eot="<eos>")
    with pytest.raises(ConfigError, match="tiktoken has no encoding 'none'; it has: .*gpt2"):
        load_encoder("tiktoken:none")


def test_tiktoken_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtraError, match="tiktoken:gpt2"):
        load_encoder("tiktoken:gpt2")


def test_byte_bpe_depends_on_the_texts_alone_and_loses_nothing():
    documents = [*kit.texts(80), "\x00\t \n naïve \U0001f600"]
    a, b = (train_byte_bpe(iter(documents), 400) for _ in range(2))
    assert a.fingerprint() == b.fingerprint()
    assert a.vocab_size == 291  # no pair is left that occurs twice
    assert train_byte_bpe(documents, 270).vocab_size == 270
    for text in documents[-3:]:
        assert a.decode(a.encode(text)) == text
    assert train_byte_bpe(documents[:9], 400).fingerprint() != a.fingerprint()
    with pytest.raises(ConfigError, match="vocab_size 200 is below 257"):
        train_byte_bpe(documents, 200)


def test_a_token_store_of_documents_opens(tmp_path, tokenizer):
    source = kit.write_lines(tmp_path / "a.jsonl", kit.texts(5))
    tokenise([source], tmp_path / "s", config(tokenizer), ONE)
    assert TokenStore.open(tmp_path / "s").num_rows == 5
