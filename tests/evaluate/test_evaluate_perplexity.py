"""Held-out loss: exact per token, each token once, the same whatever the batches."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_toys import Bytes, Finishing, Recurrent, Uniform, slow_losses

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.store import Store
from understudy.data.tokens import TokenInfo, TokenStore
from understudy.evaluate.perplexity import HeldOutLoss, held_out_loss, ratio_interval
from understudy.evaluate.perplexity_documents import (
    Document,
    encode_text,
    read_jsonl,
    read_store,
)
from understudy.evaluate.token_losses import ReadConfig, token_losses, windows

LENGTHS = (2, 33, 7, 32, 1, 100, 7, 0, 64, 65)


def documents(seed=0, lengths=LENGTHS):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, n) for n in lengths]


@given(st.integers(0, 200), st.integers(1, 40), st.data())
def test_windows_score_every_place_once_with_context(inputs, context, data):
    stride = data.draw(st.integers(1, context))
    seen = np.zeros(inputs, int)
    for start, stop, first in windows(inputs, context, stride):
        assert 0 <= start <= first < stop <= inputs
        assert stop - start <= context
        # what is scored after the first window has at least context - stride places before it
        assert first == 0 or first - start >= min(context - stride, first)
        seen[first:stop] += 1
    assert (seen == 1).all()


def test_losses_are_those_of_one_forward_a_token():
    model = Recurrent(context=128)
    for ids, score in zip(documents(), token_losses(model, documents()), strict=True):
        np.testing.assert_allclose(score.losses, slow_losses(model, ids), atol=1e-5)
        assert len(score.greedy) == max(len(ids) - 1, 0)


@pytest.mark.parametrize("stride", [1, 3, 6, 12])
def test_long_documents_slide_without_double_counting(stride):
    model, ids = Recurrent(context=12), documents()[5][:40]
    losses = token_losses(model, [ids], ReadConfig(stride=stride))[0].losses
    assert not np.isnan(losses).any()
    expected = np.full(len(ids) - 1, np.nan)
    for start, stop, first in windows(len(ids) - 1, 12, stride):
        whole = slow_losses(model, ids[start : stop + 1])
        expected[first:stop] = whole[first - start :]
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    if stride == 1:  # then every token has all the context that there is
        np.testing.assert_allclose(losses, slow_losses(model, ids, context=12), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=12), st.integers(1, 300))
def test_batches_by_length_equal_one_by_one(lengths, batch_tokens):
    model, rows = Recurrent(context=24), documents(3, lengths)
    single = token_losses(model, rows, ReadConfig(batch_tokens=0))
    batched = token_losses(model, rows, ReadConfig(batch_tokens=batch_tokens))
    for a, b in zip(single, batched, strict=True):
        np.testing.assert_allclose(a.losses, b.losses, atol=1e-5)


def test_batches_save_calls_and_keep_their_limit():
    model = Recurrent(context=24)
    token_losses(model, documents(1, [20] * 16), ReadConfig(batch_tokens=76))
    assert model.calls == 4
    widths = []
    model.register_forward_pre_hook(lambda m, args: widths.append(args[0].numel()))
    token_losses(model, documents(2, range(25)), ReadConfig(batch_tokens=76))
    assert max(widths) <= 76


def test_a_model_without_its_head_gives_the_same():
    model = Finishing(context=64)
    plain = Finishing(context=64)
    plain.forward = lambda ids, segments=None: Finishing.forward(plain, ids)
    for a, b in zip(
        token_losses(model, documents()), token_losses(plain, documents()), strict=True
    ):
        np.testing.assert_allclose(a.losses, b.losses, atol=1e-5)
        np.testing.assert_array_equal(a.greedy, b.greedy)


def test_scored_from_reads_only_what_it_needs():
    model, ids = Recurrent(context=16), documents()[5]
    part = token_losses(model, [ids], scored_from=[95])[0].losses
    assert model.calls == 1
    assert np.isnan(part[:94]).all()
    whole = token_losses(model, [ids])[0].losses
    np.testing.assert_allclose(part[94:], whole[94:], atol=1e-6)
    with pytest.raises(DataError, match="sequence 0: scored from token 101; it has 100"):
        token_losses(model, [ids], scored_from=[101])


def test_known_answers_of_uniform_models():
    text = "some text, and a little more of it"
    single = Document("b", np.array([0, *text.encode()]), len(text))
    by_byte = held_out_loss(Uniform(256), [single])
    assert by_byte.summary().loss == pytest.approx(math.log(256))
    assert by_byte.summary().perplexity == pytest.approx(256, rel=1e-4)
    # the same text in pairs of bytes: other tokens, the same number of bits a byte
    pairs = np.frombuffer(text.encode(), np.uint16).astype(np.int64)
    by_pair = Document("p", np.concatenate([[0], pairs]), len(text))
    summary = held_out_loss(Uniform(65_536), [by_pair]).summary()
    assert summary.tokens * 2 == by_byte.summary().tokens
    assert summary.bits_per_byte == pytest.approx(8, rel=1e-5)
    assert by_byte.summary().bits_per_byte == pytest.approx(8, rel=1e-5)


def test_the_first_token_is_scored_only_after_an_end():
    alone = encode_text("äbc", Bytes())
    assert (len(alone.ids), alone.num_bytes) == (4, 2)  # to whole characters
    after = encode_text("äbc", Bytes(), lead="end", close=True)
    assert after.ids.tolist() == [256, 0xC3, 0xA4, 98, 99, 256]
    assert after.num_bytes == 4


def loss_of(nll, tokens, groups=None):
    n = len(nll)
    return HeldOutLoss(
        ids=tuple(f"d{i}" for i in range(n)),
        nll=np.asarray(nll, float),
        tokens=np.asarray(tokens),
        num_bytes=np.asarray(tokens) * 4,
        groups=tuple(groups or [{}] * n),
    )


def test_summaries_weigh_tokens_and_groups():
    facts = [{"source": "a"}, {"source": "b"}, {"source": "a"}]
    loss = loss_of([10.0, 30.0, 2.0], [10, 10, 1], facts)
    summary = loss.summary()
    assert summary.loss == pytest.approx(42 / 21)
    assert summary.document_loss == pytest.approx((1 + 3 + 2) / 3)
    assert summary.bits_per_byte == pytest.approx(42 / math.log(2) / 84)
    groups = loss.by("source")
    assert list(groups) == ["a", "b"]
    assert groups["a"].loss == pytest.approx(12 / 11)
    assert groups["b"].low == groups["b"].high == groups["b"].loss == 3
    with pytest.raises(DataError, match="document 'd0' has no 'time'"):
        loss.by("time")


def test_intervals_resample_documents():
    draw = np.random.default_rng(0)
    tokens = draw.integers(10, 100, 400)
    nll = tokens * draw.normal(3.0, 0.5, 400)
    low, high = ratio_interval(nll, tokens)
    assert low < nll.sum() / tokens.sum() < high
    # the delta method's standard error of a ratio
    ratio = nll.sum() / tokens.sum()
    error = np.sqrt(((nll - ratio * tokens) ** 2).sum()) / tokens.sum()
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert ratio_interval(nll, tokens) == (low, high)


def test_jsonl_documents_and_what_is_wrong_with_them(tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_text(
        json.dumps({"text": "hello there", "source": "web", "time": 2024}) + "\n"
        + json.dumps({"text": "second", "source": "book", "time": None, "id": "x"}) + "\n"
    )  # fmt: skip
    found = read_jsonl(file, Bytes(), by=("source", "time"))
    assert [d.id for d in found] == ["line-1", "x"]
    assert found[0].groups == {"source": "web", "time": "2024"}
    assert len(read_jsonl(file, Bytes(), limit=1)) == 1
    with pytest.raises(DataError, match="line 1: no field 'lang' to report by"):
        read_jsonl(file, Bytes(), by=("lang",))
    for row, message in (
        ({"body": "x"}, "line 1: no text"),
        ({"text": ""}, "line 1: no text"),
        ({"text": 3}, "line 1: a text of type int"),
    ):
        file.write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=message):
            read_jsonl(file, Bytes())
    file.write_text("")
    with pytest.raises(DataError, match="no documents in this file"):
        read_jsonl(file, Bytes())


def test_stores_of_texts_and_of_tokens(tmp_path):
    texts = ["first text here", "the second one", "third"]
    rows = {"id": list("abc"), "text": texts, "split": ["test", "test", "train"]}
    Store.create(tmp_path / "texts", [rows])
    found = read_store(tmp_path / "texts", Bytes(), split="test")
    assert [Bytes().decode(d.ids) for d in found] == texts[:2]
    with pytest.raises(DataError, match="no column 'source'"):
        read_store(tmp_path / "texts", Bytes(), by=("source",))

    pieces = [[*t.encode(), 256] for t in texts]
    info = TokenInfo(
        kind="concat", tokenizer="bytes", tokenizer_hash=Bytes().fingerprint(), vocab_size=257,
        eot_id=256, context=64,
    )  # fmt: skip
    batch = {
        "id": ["row0", "row1"],
        "tokens": [np.array([*pieces[0], *pieces[1]], np.uint16), np.array(pieces[2], np.uint16)],
        "segments": [[len(pieces[0]), len(pieces[1])], [len(pieces[2])]],
    }
    import pyarrow as pa

    facts = {"segments": pa.list_(pa.int32())}
    TokenStore.create(tmp_path / "tokens", [batch], info, facts=facts)
    inside = read_store(tmp_path / "tokens", Bytes())
    assert [d.id for d in inside] == ["row0/0", "row0/1", "row1"]
    assert [d.ids.tolist() for d in inside] == pieces
    assert [d.num_bytes for d in inside] == [len(t) - 1 for t in texts]
    # documents inside a packed row are scored as if they stood alone
    model = Recurrent(context=64)
    packed = held_out_loss(model, inside)
    alone = [slow_losses(model, p).sum() for p in pieces]
    np.testing.assert_allclose(packed.nll, alone, rtol=1e-5)
    with pytest.raises(ConfigError, match="scored as they are"):
        read_store(tmp_path / "tokens", Bytes(), close=True)

    class Other(Bytes):
        def fingerprint(self):
            return "0" * 32

    with pytest.raises(DataError, match="tokenizer bytes .* not of the model"):
        read_store(tmp_path / "tokens", Other())


def test_what_cannot_be_scored():
    model = Recurrent()
    with pytest.raises(DataError, match="none of 2 documents has a token to score"):
        held_out_loss(model, [Document("a", np.array([1]), 0), Document("b", np.array([]), 0)])
    mixed = [Document("a", np.array([1]), 0), Document("b", np.array([1, 2]), 1)]
    assert held_out_loss(model, mixed).skipped == 1
    with pytest.raises(DataError, match="sequence 0: ids from 1 to 999; the model has 0 to 256"):
        token_losses(model, [[1, 999]])
    with pytest.raises(ConfigError, match="context: 99 is more than the model's 32"):
        token_losses(model, [[1, 2]], ReadConfig(context=99))
    with pytest.raises(ConfigError, match="stride: 20 is more than the context of 10"):
        ReadConfig(context=10, stride=20)
    with pytest.raises(ConfigError, match="the model does not say its own"):
        token_losses(lambda ids: ids, [[1, 2]])
    with pytest.raises(ModelError, match="training mode"):
        token_losses(Recurrent().train(), [[1, 2]])
    with pytest.raises(ModelError, match="expected logits"):
        token_losses(lambda ids: "x", [[1, 2]], ReadConfig(context=8))
    broken = Recurrent()
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        token_losses(broken, [[1, 2]])
