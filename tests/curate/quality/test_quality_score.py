"""Scores of pages: a classifier's probability, features of prose, a language model's loss."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from quality_world import ENGLISH, batch, classifier

from understudy.core.errors import ConfigError, DataError
from understudy.curate.quality.perplexity import ModelLosses, PerplexityScore, perplexity_scores
from understudy.curate.quality.prose import (
    DOME,
    TRAPEZOIDS,
    features,
    prose_scores,
    trapezoid,
)
from understudy.curate.quality.score import QualityScore
from understudy.curate.quality.train import measure, train_classifier
from understudy.curate.text.sample import sample_texts
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_fit import FastTextConfig

GOOD, BAD = "good1 good2 w3\nw4 good5", "noise1 w2 noise3 noise4"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return classifier().save(tmp_path_factory.mktemp("model") / "quality.safetensors")


def test_score_is_the_probability_of_hq(model):
    stage = QualityScore(model=str(model))
    found = stage(batch([GOOD, BAD, None]))
    scores = found.column("score.quality")
    assert scores.type == pa.float32()
    got = scores.to_numpy(zero_copy_only=False)
    p = FastText.load(model).score([GOOD, BAD, ""], "hq")
    np.testing.assert_array_equal(got, p)
    assert got[0] > 0.8 > 0.2 > got[1]
    flat = stage(batch([GOOD.replace("\n", " ")])).column("score.quality")[0].as_py()
    assert flat == got[0]  # a line break is a space


def test_texts_without_a_prediction_have_no_score(tmp_path):
    # a dictionary without </s> and without n-grams knows nothing about other words
    from understudy.models.text.fasttext_bin import BinParts
    from understudy.models.text.fasttext_dictionary import Dictionary
    from understudy.models.text.fasttext_matrix import DenseMatrix

    dictionary = Dictionary(
        words=[b"good"],
        word_counts=np.ones(1, np.int64),
        labels=("__label__hq", "__label__cc"),
        label_counts=np.ones(2, np.int64),
        word_ngrams=1,
        buckets=0,
    )
    parts = BinParts(
        dictionary=dictionary,
        input=DenseMatrix(np.ones((1, 2), np.float32)),
        output=DenseMatrix(np.array([[1, 1], [0, 0]], np.float32)),
        loss="softmax",
    )
    path = FastText(parts).save(tmp_path / "m.safetensors")
    scores = QualityScore(model=str(path))(batch(["good", "what"])).column("score.quality")
    assert scores.to_pylist() == [pytest.approx(1 / (1 + np.exp(-2)) + 1e-5), None]


def test_other_labels_need_a_mapping(tmp_path):
    path = classifier(labels=("1", "0")).save_bin(tmp_path / "other.bin")
    with pytest.raises(
        ConfigError, match="no label 'hq'; its labels: 0, 1. Say which one means good"
    ):
        QualityScore(model=str(path))
    for label in ("1", "__label__1", 1):
        scores = QualityScore(model=str(path), label=label)(batch([GOOD, BAD]))
        assert scores.column("score.quality")[0].as_py() > 0.8
    turned = QualityScore(model=str(path), label="0", column="score.noise")
    assert turned(batch([GOOD])).column("score.noise")[0].as_py() < 0.2
    assert dict(turned.adds) == {"score.noise": pa.float32()}


def test_missing_model(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    with pytest.raises(DataError) as error:
        QualityScore()
    message = str(error.value)
    assert str(tmp_path / "models" / "quality.safetensors") in message
    assert "scorer: prose" in message
    (tmp_path / "models").mkdir()
    classifier().save(tmp_path / "models" / "quality.safetensors")
    assert QualityScore()(batch([GOOD])).num_rows == 1
    with pytest.raises(ConfigError, match="the scorer 'prose' has none"):
        QualityScore(scorer="prose", model="x")
    with pytest.raises(ConfigError, match="Did you mean 'prose'"):
        QualityScore(scorer="pros")


def test_identity(model):
    first = QualityScore(model=str(model)).describe()
    assert first == QualityScore(model=str(model)).describe()
    assert first["model"] != QualityScore(scorer="prose").describe().get("model")


def test_scoring_needs_no_torch(model):
    code = (
        "import sys; from understudy.curate.quality.score import QualityScore;"
        "from understudy.models.text.fasttext import FastText;"
        f"good = FastText.load({str(model)!r}).score(['good1 good2'])[0] > .5;"
        "print(good, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]


# -- features of prose


def test_features_by_hand():
    text = "The Cat sat, and (it was) happy. 42 naïve days!"
    found = {name: values[0] for name, values in features(pa.array([text])).items()}
    letters = sum(c.isalpha() for c in text)
    visible = sum(not c.isspace() for c in text)
    assert found["letters"] == pytest.approx(letters / visible)
    assert found["digits"] == pytest.approx(2 / visible)
    assert found["capitals"] == pytest.approx(2 / (letters - 1))  # ï is beyond ASCII
    assert found["log_words"] == pytest.approx(1)
    assert found["word_length"] == pytest.approx(letters / 10)
    assert found["stop_words"] == pytest.approx(4 / 10)  # the, and, it, was
    assert found["sentence_words"] == pytest.approx(10 / 2)
    assert found["variety"] == pytest.approx(1)
    twice = {n: v[0] for n, v in features(pa.array(["a b a b"])).items()}
    assert twice["variety"] == pytest.approx(np.log(2) / np.log(4))


def test_trapezoid():
    x = np.array([-1.0, 0, 0.5, 1, 2, 3, 3.5, 4, 9])
    ends = 1 - DOME
    expected = [0, 0, ends / 2, ends, 1, ends, ends / 2, 0, 0]
    assert trapezoid(x, 0, 1, 3, 4).tolist() == pytest.approx(expected)


def test_good_pages_differ_so_that_a_share_can_be_chosen():
    rng = np.random.default_rng(0)
    words = ENGLISH.split() * 3
    texts = [" ".join(rng.permutation(words)[: rng.integers(60, len(words))]) for _ in range(50)]
    assert len(np.unique(prose_scores(pa.array(texts)))) > 45


def test_prose_formula_and_order():
    prose = ENGLISH * 1 + " " + ENGLISH.replace("budget", "school").replace("Thursday", "Friday")
    code = "def f(x):\n    return {k: v[0] for k, v in x.items() if k != 'a_b'}\n" * 12
    log = "\n".join(
        f"2026-01-{d:02d} 12:{d:02d}:01 INFO [pid {d * 97}] GET /x/{d}" for d in range(1, 29)
    )
    shout = prose.upper()
    repeated = "buy now. cheap watches here. " * 40
    texts = pa.array([prose, code, log, shout, repeated, ""])
    scores = prose_scores(texts)
    assert scores.dtype == np.float32
    assert scores[0] > 0.95
    assert scores[0] > scores[1:].max() + 0.15
    assert scores[5] == scores.min()
    values = {name: v[1] for name, v in features(texts).items()}
    parts = [max(trapezoid(np.array([v]), *TRAPEZOIDS[n])[0], 0.02) for n, v in values.items()]
    assert scores[1] == pytest.approx(np.prod(parts) ** (1 / 8), rel=1e-5)
    for i in range(6):  # alone or in company
        assert prose_scores(texts.slice(i, 1))[0] == scores[i]
    stage = QualityScore(scorer="prose")
    np.testing.assert_array_equal(
        stage(batch([prose, log])).column("score.quality").to_numpy(), scores[[0, 2]]
    )


# -- a language model's loss


class Bigrams(torch.nn.Module):
    """Logits that depend on the last token alone."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(256, 256, generator=generator))

    def forward(self, ids):
        assert ids.shape[1] <= 8
        return {"logits": self.table[ids]}


def test_every_token_is_predicted_once():
    model = Bigrams()
    logs = torch.log_softmax(model.table.detach().double(), 1)
    texts = ["", "a", "hello", "x" * 8, "abcdefghi", "the quick brown fox jumps", "é"]
    losses = ModelLosses(model, lambda t: list(t.encode()), 8, first=0, batch_tokens=30)
    found = perplexity_scores(losses, texts)
    for text, loss, tokens, size in zip(texts, found.loss, found.tokens, found.bytes, strict=True):
        ids = [0, *text.encode()]
        expected = -sum(float(logs[a, b]) for a, b in pairwise(ids))
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert tokens == len(ids) - 1 == size
    assert np.isnan(found.score[0])
    np.testing.assert_allclose(found.score[1:], -found.loss[1:] / found.bytes[1:], rtol=1e-6)
    np.testing.assert_allclose(found.perplexity[1:], np.exp(found.loss[1:] / found.tokens[1:]))
    without = ModelLosses(model, lambda t: list(t.encode()), 8)
    assert perplexity_scores(without, texts).tokens.tolist() == [0, 0, 4, 7, 8, 24, 1]


def test_language_model_as_a_step(tmp_path):
    from understudy import models
    from understudy.curate.engine.stage import chain
    from understudy.models.text.train_tokenizer import train_byte_bpe

    coder = train_byte_bpe(["the cat sat on the mat"] * 5, 270)
    model = models.create("openlm-micro", tokenizer=coder, seed=1).eval()
    path = models.save(model, tmp_path / "lm.safetensors")
    texts = ["the cat", "on the mat, the cat sat " * 30, "", "the cat" + " and" * 9]
    stage = PerplexityScore(model=str(path), max_chars=7)
    found, _ = chain([stage], batch(texts))
    scores = found.column("score.perplexity").to_pylist()
    ids = [coder.end_id, *coder.encode(texts[0])]
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ids]))["logits"][0], -1)
    loss = -sum(float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1))
    assert scores[0] == pytest.approx(-loss / len(texts[0]), rel=1e-4)
    assert scores[1] < 0
    assert scores[2] is None
    assert scores[3] == pytest.approx(scores[0], rel=1e-5)  # the same seven characters
    assert stage.describe()["model"] == PerplexityScore(model=str(path)).describe()["model"]
    whole = PerplexityScore(model=str(path), max_chars=0)(batch(texts))  # pieces of the context
    assert whole.column("score.perplexity")[1].as_py() != pytest.approx(scores[1])
    with pytest.raises(DataError, match="no such weights file"):
        PerplexityScore(model=str(tmp_path / "none"))


def test_losses_are_checked():
    with pytest.raises(DataError, match="2 texts, but losses"):
        perplexity_scores(lambda t: (np.zeros(1), np.zeros(1)), ["a", "b"])
    with pytest.raises(DataError, match="loss of text 1 is not finite"):
        perplexity_scores(lambda t: (np.array([0, np.nan]), np.ones(2)), ["a", "b"])
    with pytest.raises(ConfigError, match="expected 2 tokens or more"):
        ModelLosses(None, list, 1)


# -- training


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


def test_train_classifier(tmp_path):
    rng = np.random.default_rng(0)

    def make(word):
        return [" ".join(f"{word}{k}" for k in rng.integers(0, 20, 12)) for _ in range(300)]

    good = write_lines(tmp_path / "good.jsonl", make("fine"))
    rest = write_lines(tmp_path / "rest.jsonl", make("junk"))
    config = FastTextConfig(dim=8, buckets=500, lr=0.5)
    found = train_classifier(
        good, [rest], tmp_path / "q.safetensors", per_class=200, held_out=0.1, config=config
    )
    assert (found.positives, found.negatives, found.held_out) == (180, 180, 40)
    assert found.accuracy == 1
    assert found.auc == 1
    record = json.loads((tmp_path / "q.json").read_text())
    assert record["config"]["lr"] == 0.5
    scores = QualityScore(model=found.path)(batch(["fine1 fine2", "junk1 junk2"]))
    assert np.diff(scores.column("score.quality").to_numpy())[0] < -0.5
    again = train_classifier(
        [good], rest, tmp_path / "r.bin", per_class=200, held_out=0.1, config=config
    )
    texts = ["fine1 junk2", "fine3"]
    np.testing.assert_allclose(
        FastText.load(found.path).score(texts), FastText.load(again.path).score(texts), 1e-5
    )


def test_samples_do_not_depend_on_order(tmp_path):
    texts = [f"text {i}" for i in range(50)] + ["text 1", "  "]
    one = write_lines(tmp_path / "a.jsonl", texts)
    other = write_lines(tmp_path / "b.jsonl", texts[::-1])
    first = sample_texts([one], 10, 0)
    assert first == sample_texts([other], 10, 0)
    assert len(set(first)) == 10
    assert first != sample_texts([one], 10, 1)
    assert first == sample_texts([one], 60, 0)[:10]
    assert len(sample_texts([one], 60, 0)) == 50
    empty = write_lines(tmp_path / "c.jsonl", [" "])
    with pytest.raises(DataError, match="no texts to learn from"):
        sample_texts([empty], 10, 0)


def test_measures(model):
    loaded = FastText.load(model)
    accuracy, auc = measure(loaded, [GOOD, BAD, BAD], ["hq", "cc", "hq"])
    assert accuracy == pytest.approx(2 / 3)
    assert auc == pytest.approx((1 + 0.5) / 2)  # the second good one ties
    assert np.isnan(measure(loaded, [GOOD], ["hq"])).all()
