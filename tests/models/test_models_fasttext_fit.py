"""Training the classifier: fastText's rule, whatever the batch, and the same again by seed."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.seeds import torch_generator
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_fit import FastTextConfig, fit

SMALL = {"dim": 8, "buckets": 500, "lr": 0.5}


def corpus(count: int = 400, seed: int = 0) -> tuple[list[str], list[str]]:
    """Two kinds of texts with shared words."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(count):
        label = ("hq", "cc")[i % 2]
        own = [f"{label}{k}" for k in rng.integers(0, 30, 6)]
        texts.append(" ".join(rng.permutation([*own, *(f"w{k}" for k in rng.integers(0, 30, 12))])))
        labels.append(label)
    return texts, labels


def test_defaults_are_those_of_fasttext_supervised():
    config = FastTextConfig()
    assert (config.dim, config.lr, config.epochs, config.min_count) == (100, 0.1, 5, 1)
    assert (config.buckets, config.word_ngrams, config.max_chars) == (2_000_000, 2, 0)


def test_batch_of_one_is_fasttexts_rule():
    """Against plain loops over texts, words and columns."""
    texts, labels = corpus(30)
    config = FastTextConfig(**SMALL, epochs=2, batch_size=1, shuffle=False, seed=3)
    model = fit(texts, labels, config)
    d = model.parts.dictionary
    used = model.parts.input.index
    start = torch_generator("fasttext", 3)
    import torch

    table = np.zeros((len(d.words) + 500, 8))
    table[used] = (torch.rand(len(used), 8, generator=start).double() * 2 - 1).numpy() / 8
    output = np.zeros((2, 8))
    lines = []
    for text in texts:
        bags = d.bags([text])
        lines.append(bags.flat(*d.word_rows(bags.vocabulary))[0].tolist())
    total, done = 2 * sum(map(len, lines)), 0
    for _ in range(2):
        for rows, label in zip(lines, labels, strict=True):
            lr = 0.5 * (1 - done / total)
            hidden = sum(table[r] for r in rows) / len(rows)
            scores = np.exp(output @ hidden)
            errors = -lr * scores / scores.sum()
            errors[d.label_id(label)] += lr
            gradient = (errors[:, None] * output).sum(0)
            for k in range(2):
                output[k] += errors[k] * hidden
            for r in rows:
                table[r] += gradient / len(rows)
            done += len(rows)
    ids = np.arange(len(table))
    np.testing.assert_allclose(model.parts.input.rows(ids), table, atol=2e-6)
    np.testing.assert_allclose(model.parts.output.rows(np.arange(2)), output, atol=2e-6)


def test_batches_hardly_change_the_result():
    texts, labels = corpus(600)
    held, answers = corpus(200, seed=1)
    scores = {}
    for size in (1, 32):
        model = fit(texts, labels, FastTextConfig(**SMALL, batch_size=size, epochs=10))
        scores[size] = model.score(held)
        right = (scores[size] > 0.5) == (np.array(answers) == "hq")
        assert right.mean() > 0.97
    logits = [np.log(s / (1 - s + 2e-5)) for s in scores.values()]
    assert np.corrcoef(*logits)[0, 1] > 0.995


def test_seed_decides():
    texts, labels = corpus(100)
    first = fit(texts, labels, FastTextConfig(**SMALL, seed=1))
    again = fit(texts, labels, FastTextConfig(**SMALL, seed=1))
    other = fit(texts, labels, FastTextConfig(**SMALL, seed=2))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    np.testing.assert_array_equal(first.score(texts), again.score(texts))


def test_bigrams_see_the_order_of_words():
    rng = np.random.default_rng(0)
    labels = ["hq" if k else "cc" for k in rng.integers(0, 2, 400)]
    texts = ["good not bad" if label == "hq" else "bad not good" for label in labels]
    with_pairs = fit(texts, labels, FastTextConfig(**SMALL))
    without = fit(texts, labels, FastTextConfig(**SMALL, word_ngrams=1))
    ask = ["good not bad", "bad not good"]
    assert with_pairs.predict(ask)[0] == ["hq", "cc"]
    assert abs(float(np.diff(without.score(ask))[0])) < 1e-6


def test_line_breaks_are_spaces():
    texts, labels = corpus(100)
    model = fit(texts, labels, FastTextConfig(**SMALL))
    one = model.score(["hq1 w2 hq3"])
    np.testing.assert_array_equal(model.score(["hq1\nw2\n\nhq3\n"]), one)


def test_character_ngrams_know_unseen_words():
    texts = ["walking talking", "singing ringing", "walked talked", "kicked picked"] * 30
    labels = ["now", "now", "past", "past"] * 30
    config = FastTextConfig(
        dim=8, buckets=2_000, lr=0.5, epochs=10, word_ngrams=1, min_chars=2, max_chars=4
    )
    model = fit(texts, labels, config)
    assert model.predict(["jumping", "jumped"])[0] == ["now", "past"]


def test_rare_words_and_texts_without_words(tmp_path):
    texts, labels = corpus(60)
    config = FastTextConfig(**SMALL, word_ngrams=1, min_count=61)  # more than the line ends
    with pytest.raises(DataError, match="lower min_count"):
        fit(texts, labels, config)
    model = fit([*texts, "once"], [*labels, "cc"], FastTextConfig(**SMALL, min_count=2))
    assert b"once" not in model.parts.dictionary.words
    counts = model.parts.dictionary.word_counts
    assert (np.diff(counts) <= 0).all()
    assert model.parts.dictionary.words[0] == b"</s>"
    assert counts[0] == 61
    # unseen n-grams are rows of zeros and are not stored
    path = model.save(tmp_path / "m.safetensors")
    assert path.stat().st_size < 60_000
    again = FastText.load(path)
    np.testing.assert_array_equal(again.score(texts), model.score(texts))
    np.testing.assert_allclose(
        FastText.load(model.save_bin(tmp_path / "m.bin")).score(texts), model.score(texts), 1e-6
    )


@pytest.mark.parametrize(
    ("texts", "labels", "error", "message"),
    [
        (["a"], ["hq", "cc"], ConfigError, "1 texts and 2 labels"),
        (["a", "b"], ["hq", "hq"], ConfigError, "at least two labels, got hq"),
        ([], [], ConfigError, "at least two labels, got none"),
        (["a", "b"], ["hq", "c c"], DataError, "'c c' holds white space"),
        (["a", "b"], ["hq", ""], DataError, "is empty"),
    ],
)
def test_bad_training_sets(texts, labels, error, message):
    with pytest.raises(error, match=message):
        fit(texts, labels, FastTextConfig(**SMALL))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim: expected 1 or more, got 0"),
        ({"lr": 0.0}, "lr: expected a positive number"),
        ({"min_chars": 5, "max_chars": 3}, "expected 1 to max_chars"),
        ({"buckets": 0}, "n-grams need at least 1"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ConfigError, match=message):
        FastTextConfig(**options)


def test_divergence_is_an_error():
    texts, labels = corpus(200)
    with pytest.raises(ModelError, match="lower lr, or batch_size"):
        fit(texts, labels, FastTextConfig(**{**SMALL, "lr": 1e18}, epochs=10))
