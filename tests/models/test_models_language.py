"""Generation: sampling, greedy, beam search, caches, stop rules."""

import itertools

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, ModelError
from understudy.models.language.cache import KeyValues, select_rows
from understudy.models.language.generate import GenerateConfig, generate, transformers_step
from understudy.models.language.sampling import nucleus, token_draws
from understudy.models.language.stops import first_sentence, full_stop

VOCABULARY = 5
END = 4


def chain(seed: int = 0, sharpness: float = 2.0):
    """Return a step whose logits depend on the last two tokens, and a start; END ends texts."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(VOCABULARY, VOCABULARY, VOCABULARY, generator=draw) * sharpness

    def step(tokens, cache):
        before, last = (tokens[:, 0], tokens[:, -1]) if cache is None else (cache, tokens[:, -1])
        return table[before, last], last

    return table, step


def log_p(table, first, ids):
    """Return a text's log-probability after the prompt [first, first]."""
    before, last, total = first, first, 0.0
    for token in ids:
        total += float(table[before, last].log_softmax(-1)[token])
        before, last = last, token
    return total


def start(step, rows):
    prompt = torch.tensor(rows)[:, None].expand(-1, 2)
    return step(prompt, None)


def test_greedy_takes_the_likeliest_and_ends_at_the_end():
    table, step = chain()
    found = generate(step, start(step, [0, 1]), GenerateConfig(method="greedy", end_ids=(END,)))
    for row, first in enumerate((0, 1)):
        before, last, expected = first, first, []
        for _ in range(30):
            token = int(table[before, last].argmax())
            expected.append(token)
            before, last = last, token
            if token == END:
                break
        assert found.ids[row, : len(expected)].tolist() == expected
        assert int(found.lengths[row]) == len(expected)
        assert found.rows()[row] == [t for t in expected if t != END]
        assert float(found.scores[row]) == pytest.approx(log_p(table, first, expected), abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5])
def test_a_wide_beam_finds_the_best_of_all_texts(penalty):
    table, step = chain(3)
    length = 4
    config = GenerateConfig(
        method="beam", beams=64, max_tokens=length, end_ids=(END,), length_penalty=penalty
    )
    found = generate(step, start(step, [0, 2]), config, num_returns=3)
    assert found.ids.shape[0] == 6
    inner = [t for t in range(VOCABULARY) if t != END]
    texts = [list(p) for p in itertools.product(inner, repeat=length)]
    for count in range(length):
        texts += [[*p, END] for p in itertools.product(inner, repeat=count)]
    for row, first in enumerate((0, 2)):
        best = sorted(texts, key=lambda ids: -log_p(table, first, ids) / len(ids) ** penalty)
        for place in range(3):
            at = row * 3 + place
            ids = found.ids[at, : int(found.lengths[at])].tolist()
            assert ids == best[place]
            assert float(found.scores[at]) == pytest.approx(log_p(table, first, ids), abs=1e-4)


def test_one_beam_is_greedy():
    _, step = chain(1)
    common = {"max_tokens": 8, "end_ids": (END,)}
    greedy = generate(step, start(step, [0, 1, 2]), GenerateConfig(method="greedy", **common))
    beam = generate(step, start(step, [0, 1, 2]), GenerateConfig(method="beam", beams=1, **common))
    assert beam.rows() == greedy.rows()


def test_a_rows_text_depends_on_its_seed_alone():
    _, step = chain(sharpness=0.5)
    config = GenerateConfig(max_tokens=12, end_ids=(END,))
    whole = generate(step, start(step, [0, 1, 2, 3]), config, seeds=[5, 6, 7, 8]).rows()
    for row, (first, seed) in enumerate([(0, 5), (1, 6), (2, 7), (3, 8)]):
        assert generate(step, start(step, [first]), config, seeds=[seed]).rows()[0] == whole[row]
    other = generate(step, start(step, [0, 1, 2, 3]), config, seeds=[15, 16, 17, 18]).rows()
    assert other != whole


def test_sampling_follows_the_models_probabilities():
    table, step = chain(sharpness=1.0)
    config = GenerateConfig(max_tokens=1, top_p=1.0)
    count = 4000
    found = generate(step, start(step, [0] * count), config, seeds=range(count))
    shares = np.bincount(found.ids[:, 0].numpy(), minlength=VOCABULARY) / count
    assert np.abs(shares - table[0, 0].softmax(-1).numpy()).max() < 0.03


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.7), (3, 1.0), (3, 0.8)])
def test_kept_tokens_are_those_of_transformers(top_k, top_p):
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(40, 11, generator=torch.Generator().manual_seed(2)) * 2
    wanted = logits.clone()
    if top_k:
        wanted = TopKLogitsWarper(top_k)(None, wanted)
    if top_p < 1:
        wanted = TopPLogitsWarper(top_p)(None, wanted)
    draws = torch.linspace(0, 1 - 1e-9, 200, dtype=torch.float64)
    for row in range(len(logits)):
        drawn = nucleus(logits[row].expand(200, -1), draws, top_p, 1.0, top_k)
        kept = set(torch.isfinite(wanted[row]).nonzero()[:, 0].tolist())
        assert set(drawn.tolist()) <= kept
        shares = torch.bincount(drawn, minlength=11) / 200
        assert (shares - wanted[row].softmax(-1)).abs().max() < 0.02


def test_fixed_length_changes_no_text():
    _, step = chain(sharpness=0.5)
    calls = []

    def counted(tokens, cache):
        calls.append(1)
        return step(tokens, cache)

    seeds = list(range(6))
    short = GenerateConfig(max_tokens=20, end_ids=(END,))
    first = generate(counted, start(step, [0] * 6), short, seeds=seeds)
    early = len(calls)
    calls.clear()
    long = GenerateConfig(max_tokens=20, end_ids=(END,), fixed_length=True)
    second = generate(counted, start(step, [0] * 6), long, seeds=seeds)
    assert first.rows() == second.rows()
    assert second.ids.shape[1] == 20
    assert early < len(calls) == 19


WORDS = ["a", "dog", "2.", "5", ".", "cat"]


def decode(ids):
    return " ".join(WORDS[i] for i in ids).replace("2. 5", "2.5").replace(" .", ".")


def test_a_text_ends_at_its_first_full_stop():
    stop = full_stop(decode)
    assert not stop([0, 1])
    assert not stop([0, 1, 4])  # the next token decides whether it ends a word
    assert stop([0, 1, 4, 0])
    assert not stop([0, 2, 3])  # 2.5
    assert first_sentence("A  dog. It runs") == "A dog"
    assert first_sentence("a 2.5 m dog") == "a 2.5 m dog"

    script = torch.tensor([0, 1, 4, 5, 5, 5])

    def step(tokens, cache):
        logits = torch.full((len(tokens), 6), -9.0)
        logits[:, script[min(cache, 5)]] = 9.0
        return logits, cache + 1

    config = GenerateConfig(method="greedy", max_tokens=6)
    found = generate(step, step(torch.zeros(2, 1), 0), config, stop=stop)
    whole = generate(step, step(torch.zeros(2, 1), 0), config)
    assert found.lengths.tolist() == [4, 4]
    cut = [first_sentence(decode(row)) for row in found.rows()]
    assert cut == [first_sentence(decode(row)) for row in whole.rows()] == ["a dog"] * 2


@pytest.fixture(scope="module")
def tiny_lm():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=23, n_positions=32, n_embd=16, n_layer=2, n_head=2, eos_token_id=22
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)  # fresh weights prefer nothing
    return model


def test_a_transformers_model_with_its_cache(tiny_lm):
    step = transformers_step(tiny_lm)
    prompt = torch.tensor([[3, 4, 5], [7, 8, 9]])
    config = GenerateConfig(method="greedy", max_tokens=10, end_ids=(22,))
    ours = generate(step, step(prompt, None), config)
    theirs = tiny_lm.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=10,
        do_sample=False,
        pad_token_id=0,
    )[:, 3:]
    for row, ids in zip(ours.rows(), theirs.tolist(), strict=True):
        assert row == (ids[: ids.index(22)] if 22 in ids else ids)


def test_beams_reorder_a_transformers_cache(tiny_lm):
    step = transformers_step(tiny_lm)

    def whole(tokens, cache):  # the same model without a cache
        ids = tokens if cache is None else torch.cat([cache, tokens], dim=1)
        return tiny_lm(input_ids=ids).logits[:, -1], ids

    prompt = torch.tensor([[3, 4, 5], [7, 8, 9]])
    config = GenerateConfig(method="beam", beams=3, max_tokens=8, end_ids=(22,))
    with torch.no_grad():
        cached = generate(step, step(prompt, None), config, num_returns=3)
        plain = generate(whole, whole(prompt, None), config, num_returns=3)
    assert cached.rows() == plain.rows()
    assert torch.allclose(cached.scores, plain.scores, atol=1e-4)
    assert len({tuple(row) for row in plain.rows()[:3]}) == 3


def test_caches_are_reordered_whatever_they_are_made_of():
    keys = torch.arange(12.0).reshape(3, 1, 2, 2)
    cache = [{"layer": KeyValues(keys, keys + 1)}, (keys[:, 0], None)]
    rows = torch.tensor([2, 0, 0, 1])
    found = select_rows(cache, rows)
    assert torch.equal(found[0]["layer"].value, keys[rows] + 1)
    assert torch.equal(found[1][0], keys[rows, 0])
    assert KeyValues().select(rows).length == 0
    with pytest.raises(TypeError, match="give it a method select"):
        select_rows([3], rows)


def test_no_rows_give_no_texts():
    for method in ("sample", "greedy", "beam"):
        config = GenerateConfig(method=method)
        found = generate(lambda t, c: (t, c), (torch.zeros(0, 5), None), config, seeds=[])
        assert found.rows() == []


def test_bad_input_generation():
    _, step = chain()
    with pytest.raises(ConfigError, match="2 rows need a seed each, got none"):
        generate(step, start(step, [0, 1]), GenerateConfig())
    with pytest.raises(ConfigError, match="2 rows need a seed each, got 1"):
        generate(step, start(step, [0, 1]), GenerateConfig(), seeds=[1])
    with pytest.raises(ConfigError, match="'greedy' gives one text a row, 2 were asked for"):
        generate(step, start(step, [0]), GenerateConfig(method="greedy"), num_returns=2)
    with pytest.raises(ConfigError, match="5 texts a row from 4 beams"):
        generate(step, start(step, [0]), GenerateConfig(method="beam"), num_returns=5)
    for change, message in (
        ({"top_p": 0.0}, "generate.top_p: expected a number above 0"),
        ({"temperature": 0.0}, "generate.temperature: expected a number above 0"),
        ({"max_tokens": 0}, "generate.max_tokens: expected at least 1"),
        ({"top_k": -1}, "generate.top_k: expected at least 0"),
        ({"beams": 0}, "generate.beams: expected at least 1"),
        ({"method": "beams"}, "Did you mean 'beam'"),
    ):
        with pytest.raises(ConfigError, match=message):
            GenerateConfig(**change)


@pytest.mark.parametrize("method", ["sample", "greedy", "beam"])
def test_bad_input_logits(method):
    logits = torch.zeros(3, VOCABULARY)
    logits[1, 2] = float("nan")
    config = GenerateConfig(method=method, beams=1)
    with pytest.raises(ModelError, match="logits of row 1 are not numbers"):
        generate(lambda t, c: (logits, c), (logits, None), config, seeds=[1, 2, 3])


def test_draws_belong_to_their_seed():
    assert np.array_equal(token_draws([3, 9], 5)[1], token_draws([9], 5)[0])
    assert token_draws([], 5).shape == (0, 5)
