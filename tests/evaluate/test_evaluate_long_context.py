"""Hidden numbers, loss by position, questions about many documents, memorised texts."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_toys import Bigram, Bytes, Recurrent, slow_losses

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.evaluate.lm_tasks_generate import greedy
from understudy.evaluate.long_context import (
    loss_by_position,
    number_matches,
    passkey,
    passkey_grid,
    position_curve,
    powers_of_two,
)
from understudy.evaluate.long_context_qa import (
    Question,
    answer_scores,
    first_line,
    multi_document,
    multi_document_prompt,
    read_multi_document,
)
from understudy.evaluate.memorisation import matched_tokens, memorisation, wilson
from understudy.evaluate.token_losses import ReadConfig

CODER = Bytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(150, 900), st.floats(0, 1), st.integers(0, 5))
def test_passkey_documents_are_exact(length, depth, number):
    made = passkey(CODER, length, depth, number=number)
    assert len(made.prompt) + len(made.answer) == length
    text = CODER.decode(made.prompt)
    assert text.count(made.key) == 2
    assert CODER.decode(made.answer) == f" {made.key}"
    start = text.index(" The secret number is " + made.key)
    room = (
        length
        - len(made.answer)
        - (len(text) - text.rindex(" What is"))
        - len(f" The secret number is {made.key}. Remember that the secret number is {made.key}.")
    )
    assert start == round(depth * room)
    assert made == passkey(CODER, length, depth, number=number)


def test_passkeys_differ_and_have_bounds():
    keys = {passkey(CODER, 300, 0.5, number=i).key for i in range(20)}
    assert len(keys) > 15
    with pytest.raises(ConfigError, match="20 tokens have no room .* which are 1"):
        passkey(CODER, 20, 0.5)
    with pytest.raises(ConfigError, match="depth in"):
        passkey(CODER, 300, 1.5)


def reader(prompts, max_tokens, stop=None):
    """Read the number where it stands."""
    found = [re.search(r"secret number is (\d+)", CODER.decode(p)) for p in prompts]
    return [list(f" {m.group(1)}".encode())[:max_tokens] for m in found]


def test_the_grid_tells_readers_from_guessers():
    model = Recurrent(context=400)
    grid = passkey_grid(model, [200, 400], [0.0, 1.0], count=3, generate=reader)
    assert [(c.length, c.depth) for c in grid] == [(200, 0), (200, 1), (400, 0), (400, 1)]
    assert all(c.accuracy == 1 for c in grid)
    blind = passkey_grid(model, [200], [0.5], count=3, generate=lambda p, n, stop=None: [[49]] * 3)
    assert blind[0].accuracy == 0
    made = [passkey(CODER, 200, 0.5, number=i) for i in range(3)]
    losses = [slow_losses(model, m.prompt + m.answer, last=len(m.answer)).mean() for m in made]
    assert blind[0].loss == pytest.approx(np.mean(losses), abs=1e-4)
    with pytest.raises(ConfigError, match="500 tokens are more than the context of 400"):
        passkey_grid(model, [500])
    assert number_matches("is 123.", "123")
    assert not number_matches("1234", "123")
    assert not number_matches("none", "1")


def test_loss_by_position_by_hand():
    rows = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, np.nan])]
    bins = loss_by_position(rows, [1, 2, 4, 9])
    assert [(b.start, b.stop, b.tokens) for b in bins] == [(1, 2, 2), (2, 4, 2), (4, 9, 1)]
    assert [b.loss for b in bins] == [3.0, 2.5, 4.0]
    assert np.isnan(loss_by_position(rows, [50, 60])[0].loss)
    assert powers_of_two(16) == [1, 2, 4, 8, 17]
    for edges in ([3], [4, 2], [1, 1]):
        with pytest.raises(ConfigError, match="ascending edges"):
            loss_by_position(rows, edges)


def test_the_curve_takes_the_same_documents_at_every_position():
    model = Recurrent(context=16)
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 256, n) for n in (40, 17, 16, 5)]
    bins = position_curve(model, rows)
    assert sum(b.tokens for b in bins) == 2 * 16
    expected = np.stack([slow_losses(model, row[:17]) for row in rows[:2]])
    for b in bins:
        assert b.loss == pytest.approx(expected[:, b.start - 1 : b.stop - 1].mean(), abs=1e-5)
    loose = position_curve(model, rows, whole=False)
    assert sum(b.tokens for b in loose) == 2 * 16 + 15 + 4
    with pytest.raises(DataError, match="no document has the 17 tokens .* longest has 16"):
        position_curve(model, rows[2:])


QUESTION = {
    "question": "Who built it?",
    "answers": ["Ada Lovelace", "Lovelace"],
    "ctxs": [
        {"title": f"T{i}", "text": f"text {i}", "isgold": i == 2} for i in range(6)
    ],
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_multi_document_prompts(tmp_path):
    (question,) = read_multi_document(write(tmp_path / "q.jsonl", QUESTION))
    assert question.gold == (2,)
    prompt = multi_document_prompt(question, 3)
    assert [m for m in re.findall(r"text (\d)", prompt)] == ["0", "1", "2"]
    assert prompt.endswith("Question: Who built it?\nAnswer:")
    for place in range(3):
        moved = re.findall(r"text (\d)", multi_document_prompt(question, 3, place=place))
        assert moved.index("2") == place
        assert sorted(moved) == ["0", "1", "2"]
    assert "Document 1 (T2): text 2" in multi_document_prompt(question, 1)
    with pytest.raises(DataError, match="6 documents, 7 were asked for"):
        multi_document_prompt(question, 7)
    with pytest.raises(ConfigError, match="place 3"):
        multi_document_prompt(question, 3, place=3)


def test_answers_are_the_first_line():
    assert first_line("\n \n  Ada \nnext") == "Ada"
    assert first_line("\n") == ""
    assert answer_scores("\nthe LOVELACE!\nx", ["Lovelace"]) == (True, True)
    assert answer_scores("It was Ada Lovelace.", ["Ada Lovelace"]) == (False, True)
    assert answer_scores("Lovelaces", ["Lovelace"]) == (False, False)
    assert answer_scores("none\nAda Lovelace", ["Ada Lovelace"]) == (False, False)


def test_multi_document_scores(tmp_path):
    questions = read_multi_document(write(tmp_path / "q.jsonl", QUESTION, QUESTION))
    model = Recurrent(context=300)
    lengths = []

    def writer(prompts, max_tokens, stop=None):
        lengths.append([len(p) for p in prompts])
        assert stop(list(b"\nyes\n"))
        assert not stop(list(b"\n"))
        return [list(b" Lovelace\nx"), list(b" It was Lovelace\n")]

    found = multi_document(model, questions, (2, 6), max_tokens=100, generate=writer)
    assert found[2] == {"exact": 0.5, "contains": 1.0, "count": 2.0, "cut": 0.0}
    assert found[6]["cut"] == 1.0
    assert max(lengths[1]) == 200
    with pytest.raises(ConfigError, match="leave no room"):
        multi_document(model, questions, (2,), max_tokens=300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": 3}, "field 'question'"),
        ({"answers": []}, "field 'answers'"),
        ({"ctxs": [{"title": "x"}]}, "document 0: expected a text"),
        ({"ctxs": [{"text": "x"}]}, "no document is marked"),
        ({"gold": 9}, "field 'gold'"),
    ],
)
def test_wrong_multi_document_lines(tmp_path, change, message):
    with pytest.raises(DataError, match=f"line 1.*{message}"):
        read_multi_document(write(tmp_path / "q.jsonl", {**QUESTION, **change}))


def test_plain_documents_and_gold_numbers(tmp_path):
    row = {"question": "q", "answers": ["a"], "documents": ["x", "y"], "gold": 1}
    (found,) = read_multi_document(write(tmp_path / "q.jsonl", row))
    assert found == Question("q", ("a",), (("", "x"), ("", "y")), (1,))


# -- greedy decoding and memory


def micro(context=64):
    model = models.create("openlm-micro", seed=0, **{"decoder.context": context}).eval()
    with torch.no_grad():  # fresh weights repeat one token; these do not
        for value in model.parameters():
            value.mul_(3)
    return model


def test_greedy_with_a_cache_equals_calling_anew():
    model = micro()

    def plain(ids):
        return model(ids)

    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9], [10, 11, 12]]
    cached = greedy(model, end_ids=(0,))(prompts, 12)
    anew = greedy(plain, end_ids=(0,), context=64)(prompts, 12)
    assert cached == anew
    assert all(0 < len(row) <= 12 for row in cached)
    assert len({tuple(row) for row in cached}) > 1
    with pytest.raises(ConfigError, match="prompt of 60 and 12 new tokens do not fit .* of 64"):
        greedy(model)([[1] * 60], 12)
    with pytest.raises(ModelError, match="training mode"):
        greedy(micro().train())([[1]], 2)


@pytest.mark.parametrize("size", [1, 3])
def test_greedy_reads_a_few_prompts_at_once(size):
    model, rows = micro(), []
    prefill = model.prefill
    model.prefill = lambda prompts: rows.append(len(prompts)) or prefill(prompts)
    prompts = [[i] * (1 + i % 4) for i in range(1, 8)]
    assert greedy(model, batch_size=size)(prompts, 4) == greedy(model)(prompts, 4)
    assert max(rows[:-1]) == size


def test_greedy_stops():
    model = Bigram({1: 2, 2: 3, 3: 4, 4: 256})
    assert greedy(model, end_ids=(256,))([[1], [3]], 10) == [[2, 3, 4], [4]]
    assert greedy(model)([[1]], 2) == [[2, 3]]
    assert greedy(model)([[1]], 10, lambda ids: ids[-1] == 3) == [[2, 3]]


def test_memorisation_by_repeat_count():
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 200, 120) for _ in range(8)] + [draw.integers(0, 200, 99)]
    counts = [1, 1, 1, 1, 16, 16, 4, 4, 16]
    known = {tuple(row[:50]): row[50:100].tolist() for row in rows[4:7]}

    def generate(prompts, max_tokens, stop=None):
        return [known.get(tuple(p), [999] * max_tokens)[:max_tokens] for p in prompts]

    found = memorisation(rows, counts, generate)
    assert [(r.count, r.documents, r.memorised, r.rate) for r in found.rates] == [
        (1, 4, 0, 0.0), (4, 2, 1, 0.5), (16, 2, 2, 1.0),
    ]  # fmt: skip
    assert [r.matched for r in found.rates] == [0.0, 25.0, 50.0]
    assert found.skipped == 1
    assert memorisation(rows, counts, generate, continuation_tokens=49).skipped == 0
    with pytest.raises(DataError, match="no document has 400 tokens, the longest has 120"):
        memorisation(rows, counts, generate, prompt_tokens=350)
    with pytest.raises(DataError, match="9 documents and 1 counts"):
        memorisation(rows, [1], generate)
    with pytest.raises(ConfigError, match="at least 1 token"):
        memorisation(rows, counts, generate, prompt_tokens=0)


def test_memorisation_of_a_model_that_learnt_one_text_by_heart():
    ring = Bigram({i: (i + 1) % 200 for i in range(200)})
    learnt, other = [i % 200 for i in range(110)], [(7 * i) % 200 for i in range(110)]
    found = memorisation([learnt, other], [8, 1], greedy(ring))
    assert [(r.count, r.rate) for r in found.rates] == [(1, 0.0), (8, 1.0)]


def test_matching_tokens_and_intervals():
    assert matched_tokens([1, 2, 9], [1, 2, 3]) == 2
    assert matched_tokens([1], [1, 2]) == 1
    low, high = wilson(0, 10)
    assert low == 0
    assert high == pytest.approx(0.2775, abs=1e-4)
    low, high = wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_context_can_be_lowered():
    rows = [np.arange(40) % 200]
    low = position_curve(Recurrent(context=32), rows, config=ReadConfig(context=8))
    assert low[-1].stop == 9
