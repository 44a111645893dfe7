"""Caption scores: each equals a loop; a held-out scorer orders noise; what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data import scenes
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.scenes.words import DIGIT_WORDS
from understudy.evaluate import caption_scores as cs
from understudy.evaluate.captions import Nouns, arm_texts, check_held_out, score_captions
from understudy.models.text.train_tokenizer import train_words

quick = settings(max_examples=40, deadline=None)
LEXICON = {w: w for w in DIGIT_WORDS} | {str(d): w for d, w in enumerate(DIGIT_WORDS)}


def vectors(seed, count, dim=6):
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(count, dim, generator=draw) for _ in range(2))


def test_align_is_the_clip_score_and_never_negative():
    images, texts = vectors(0, 20)
    found = cs.align(images, texts)
    for i, t, value in zip(images, texts, found, strict=True):
        cosine = float(i @ t / (i.norm() * t.norm()))
        assert value == pytest.approx(max(100 * cosine, 0), abs=1e-4)
    assert found.min() == 0
    assert cs.align(images, images) == pytest.approx(np.full(20, 100.0), abs=1e-3)


@quick
@given(count=st.integers(2, 30), block=st.integers(2, 12), seed=st.integers(0, 50))
def test_ranks_equal_a_loop_over_blocks(count, block, seed):
    images, texts = vectors(seed, count)
    found = cs.ranks(images, texts, block=block, seed=seed)
    image, text = (torch.nn.functional.normalize(e, dim=1) for e in (images, texts))
    expected = np.zeros(count, int)
    for rows, own in cs.blocks_of(count, block, seed):
        assert len(set(rows.tolist())) == len(rows) == min(block, count)
        for i in rows[:own]:
            right = float(image[i] @ text[i])
            expected[i] = 1 + sum(float(image[i] @ text[j]) > right + 1e-7 for j in rows if j != i)
    assert found.tolist() == expected.tolist()


def test_every_row_is_ranked_once_in_blocks_of_one_size():
    counted = np.concatenate([rows[:own] for rows, own in cs.blocks_of(2300, 1000, 4)])
    assert sorted(counted.tolist()) == list(range(2300))
    assert [len(rows) for rows, _ in cs.blocks_of(2300, 1000, 4)] == [1000] * 3


def test_grounded_nouns():
    captions = ["a SEVEN and a 3, far from the house", "two twos", "nothing", "Zero zero nine"]
    seen = [{"seven"}, {"two"}, {"one"}, {"zero", "nine"}]
    found = cs.grounded(captions, LEXICON | {"twos": "two"}, seen)
    assert found[:2].tolist() == [0.5, 1.0]
    assert math.isnan(found[2])
    assert found[3] == 1.0
    phrases = {"hot dog": "sausage", "dog": "dog"}
    assert cs.grounded(["a hot dog"], phrases, [{"sausage"}]).tolist() == [1.0]
    assert cs.grounded(["a hot, dog"], phrases, [{"dog"}]).tolist() == [0.0]


@quick
@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcdef"), max_size=5).map(" ".join), min_size=2, max_size=12
    ),
    threshold=st.sampled_from([0.3, 0.5, 1.0]),
)
def test_near_duplicates_equal_a_loop(texts, threshold):
    sets = [set(t.split()) for t in texts]

    def near(a, b):
        return 1.0 if not a | b else len(a & b) / len(a | b)

    expected = [
        any(near(a, b) >= threshold - 1e-9 for j, b in enumerate(sets) if j != i)
        for i, a in enumerate(sets)
    ]
    assert cs.near_duplicates(texts, threshold=threshold).tolist() == expected


def test_words_and_their_variety():
    assert cs.words_of("A red-ish 7, isn't_it?") == ["a", "red", "ish", "7", "isn", "t", "it"]
    assert cs.type_token_ratio(["a b", "b a"]) == 0.5
    assert math.isnan(cs.type_token_ratio(["", "..."]))


def test_summary():
    found = cs.summary(np.array([1.0, 2.0, 3.0, math.nan]))
    assert found == pytest.approx({"mean": 2.0, "p10": 1.2, "p50": 2.0, "p90": 2.8})
    assert all(math.isnan(v) for v in cs.summary(np.array([math.nan])).values())


def test_bad_input_of_the_functions():
    images, texts = vectors(1, 4)
    with pytest.raises(DataError, match=r"expected the same \[N, D\]"):
        cs.align(images, texts[:3])
    with pytest.raises(DataError, match="an image embedding is not finite"):
        cs.align(images * math.nan, texts)
    with pytest.raises(ConfigError, match="at least 2 rows"):
        cs.ranks(images, texts, block=1)
    with pytest.raises(ConfigError, match="empty lexicon"):
        cs.grounded(["a"], {}, [set()])
    with pytest.raises(DataError, match="1 captions and facts of 2"):
        cs.grounded(["a"], LEXICON, [set(), set()])
    with pytest.raises(ConfigError, match=r"threshold must lie in"):
        cs.near_duplicates(["a"], threshold=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("captions") / "store"
    store = scenes.to_store(
        "photo-scenes", path, train=24, teacher=0, test=6, seed=1000, size=48, num_captions=2
    )
    words = store.take(range(30), ["text"]).column(0).to_pylist()
    words += ["a photo of a " + w for w in DIGIT_WORDS]
    tokenizer = train_words(words, context_length=24)
    return store, models.create("clip-conv-nano", seed=0, tokenizer=tokenizer).eval()


def test_scores_of_a_stores_arms(world):
    store, scorer = world
    arms = {
        "alt": "text",
        "syn": "caption.template",
        "mix": {"text": 1.0, "caption.template": 3.0},
    }
    nouns = Nouns(lexicon=LEXICON, facts="digits")
    found = score_captions(scorer, store, arms, split="train", nouns=nouns, block=10)
    assert found["rows"] == 24
    assert found["block"] == 10
    assert found["scorer"]["name"] == "clip-conv-nano"
    assert len(found["scorer"]["hash"]) == 32
    assert found["arms"]["syn"]["grounded"]["mean"] == 1.0  # templates say what is there
    assert found["arms"]["alt"]["length"]["mean"] < found["arms"]["syn"]["length"]["mean"]
    for arm in found["arms"].values():
        for score in ("align", "rank", "grounded", "length"):
            assert set(arm[score]) == {"mean", "p10", "p50", "p90"}
            assert arm[score]["p10"] <= arm[score]["p50"] <= arm[score]["p90"]
        assert 0 <= arm["near_duplicates"] <= 1
        assert 0 < arm["type_token_ratio"] <= 1
    assert found["arms"]["mix"]["source"] == arms["mix"]
    again = score_captions(scorer, store, arms, split="train", nouns=nouns, block=10)
    assert again == found
    asked = score_captions(scorer, store, {"syn": "caption.template"}, nouns=Nouns(lexicon=LEXICON))
    assert 0 <= asked["arms"]["syn"]["grounded"]["mean"] <= 1
    assert "grounded" not in score_captions(scorer, store, {"a": "text"})["arms"]["a"]


def test_mixed_arms_draw_by_their_odds_and_keep_their_rows(world):
    store, _ = world
    rows = np.arange(24)
    both = [store.take(rows, ["text"]).column(0).to_pylist()]
    both.append(arm_texts(store, "caption.template", rows, seed=1))
    mixed = arm_texts(store, {"text": 1.0, "caption.template": 1.0}, rows, seed=1)
    assert all(m in pair for m, pair in zip(mixed, zip(*both, strict=True), strict=True))
    assert 0 < sum(m == a for m, a in zip(mixed, both[0], strict=True)) < 24
    assert arm_texts(store, {"text": 1.0}, rows) == both[0]


def test_bad_input_of_arms(world, tmp_path):
    store, scorer = world
    with pytest.raises(ConfigError, match="no arm to score"):
        score_captions(scorer, store, {})
    with pytest.raises(ConfigError, match="an arm's expression is empty"):
        score_captions(scorer, store, {"alt": " "})
    with pytest.raises(ConfigError, match="odds above 0"):
        score_captions(scorer, store, {"alt": {"text": 0.0}})
    with pytest.raises(DataError, match="no column 'txt'"):
        score_captions(scorer, store, {"alt": "txt"})
    with pytest.raises(DataError, match="column 'label' holds int64, expected texts"):
        score_captions(scorer, store, {"alt": "label"})
    with pytest.raises(ModelError, match="classifier"):
        score_captions(models.create("cnn-tiny", seed=0), store, {"alt": "text"})
    import pyarrow as pa

    store = scenes.to_store(
        "photo-scenes", tmp_path / "s", train=4, teacher=0, test=0, size=48, num_captions=1
    )
    empty = Card(column="caption.x", writer="x")
    with store.job([empty], {"caption.x": pa.list_(pa.string())}) as job:
        for unit in job.todo():
            values = [["a"], [], ["b"], [""]][unit.start : unit.stop]
            job.write(unit, {"caption.x": pa.array(values, pa.list_(pa.string()))})
    with pytest.raises(DataError, match="row 1: 'caption.x' has no caption"):
        arm_texts(store, "caption.x", np.arange(4))
    with pytest.raises(DataError, match="row 3: 'caption.x' has no caption"):
        arm_texts(store, "caption.x", np.array([0, 3]))


def test_bad_input_a_scorer_that_teaches(world, tmp_path):
    store = scenes.to_store(
        "photo-scenes", tmp_path / "s", train=4, teacher=0, test=0, size=48, num_captions=1
    )
    card = Card(column="t.text", writer="t", fingerprint="abc", config=embedding_config([4]))
    with store.job([card], {"t.text": embedding_type([4])}) as job:
        for unit in job.todo():
            job.write(unit, {"t.text": encode_embeddings(np.zeros((unit.stop - unit.start, 4)))})
    check_held_out({"other"}, store)
    with pytest.raises(ConfigError, match=r"the scorer wrote 't.text', so it is a teacher"):
        check_held_out({"abc", "other"}, store)
