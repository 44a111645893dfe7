"""Encoding a store's items into index columns that name their space."""

from __future__ import annotations

import io

import embed_functions
import numpy as np
import pytest
from PIL import Image

from understudy import models
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.spaces import space_of
from understudy.data.store import Store
from understudy.reinforce.encoders import FunctionEncoder
from understudy.update.embedders import embedder_of, open_embedder, sample_inputs
from understudy.update.encode import encode_card, encode_column, encode_rows, index_column

TEXTS = ["apple", "a pear", "", "an orange tree", None, "sea", "eel", "tea"]
GOOD = [0, 1, 3, 5, 6, 7]


def picture(i: int) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (9, 11, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def store(tmp_path):
    rows = {
        "id": [f"i{k}" for k in range(8)],
        "text": TEXTS,
        "image": [picture(k) for k in range(8)],
        "split": ["a"] * 4 + ["b"] * 4,
    }
    return Store.create(tmp_path / "s", [rows])


def counting(dim=4, hash="h1", calls=None):
    def function(texts):
        if calls is not None:
            calls.extend(texts)
        return embed_functions.embed_texts(texts)

    return FunctionEncoder("letters", function, dim, hash)


def test_texts_to_a_column_with_its_space(store):
    embedder = embedder_of(counting(), "text")
    report = encode_column(store, embedder, "new")
    assert (report.column, report.rows, report.written, report.empty) == ("embed.new", 6, 6, 2)
    assert np.flatnonzero(store.filled("embed.new")).tolist() == GOOD
    expected = embed_functions.embed_texts([TEXTS[i] for i in GOOD])
    np.testing.assert_array_equal(store.array("embed.new", np.array(GOOD)), expected)
    assert space_of(store, "embed.new") == embedder.space
    assert (embedder.space.kind, embedder.space.dim, embedder.space.normalised) == (
        "encoded",
        4,
        False,
    )
    assert store.card("embed.new").fingerprint == "h1"


def test_only_what_is_missing_is_encoded(store):
    calls: list[str] = []
    embedder = embedder_of(counting(calls=calls), "text")
    encode_column(store, embedder, "new", where="split = 'a'")
    assert sorted(calls) == sorted(TEXTS[i] for i in GOOD[:3])
    calls.clear()
    report = encode_column(store, embedder, "new", batch_size=2)
    assert report.written == 3
    assert sorted(calls) == sorted(TEXTS[i] for i in GOOD[3:])
    store.append([{"id": ["n"], "text": ["late"], "image": [picture(9)], "split": ["b"]}])
    assert encode_column(store, embedder, "new").written == 1
    assert encode_column(store, embedder, "new").written == 0


def test_rows_by_number(store):
    embedder = embedder_of(counting(), "text")
    encode_column(store, embedder, "new", rows=np.array([7, 1]))
    assert np.flatnonzero(store.filled("embed.new")).tolist() == [1, 7]
    found = encode_rows(store, embedder, "text", np.array([7, 1]))
    np.testing.assert_array_equal(found, store.array("embed.new", np.array([7, 1])))


def test_normalised_vectors_are_another_space(store):
    plain, unit = (embedder_of(counting(), "text", normalise=n) for n in (False, True))
    assert plain.space.id != unit.space.id
    encode_column(store, unit, "unit")
    lengths = np.linalg.norm(store.array("embed.unit", np.array(GOOD)), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    with pytest.raises(CardError, match="already holds"):
        encode_column(store, plain, "unit")


def test_half_the_bytes(store):
    embedder = embedder_of(counting(), "text")
    encode_column(store, embedder, "half", dtype="float16")
    assert store.array("embed.half", np.array(GOOD)).dtype == np.float16
    assert space_of(store, "embed.half") == embedder.space
    with pytest.raises(ConfigError, match="not one of"):
        encode_card(store, embedder, "x", dtype="float64")


def test_another_model_does_not_write_over_it(store):
    encode_column(store, embedder_of(counting(), "text"), "new")
    other = embedder_of(counting(hash="h2"), "text")
    with pytest.raises(CardError, match="already holds"):
        encode_column(store, other, "new")
    encode_column(store, other, "new", overwrite=True)
    assert space_of(store, "embed.new").fingerprint == "h2"


def test_a_function_by_name(store):
    embedder = open_embedder("embed_functions:embed_texts", "text")
    encode_column(store, embedder, "mine")
    expected = embed_functions.embed_texts([TEXTS[i] for i in GOOD])
    np.testing.assert_array_equal(store.array("embed.mine", np.array(GOOD)), expected)
    other = open_embedder("embed_functions:embed_texts", "text", version="2")
    assert other.space.id != embedder.space.id
    images = open_embedder("embed_functions:embed_images", "image")
    encode_column(store, images, "colour")
    assert store.filled("embed.colour").all()
    assert store.card("embed.mine").facts["model"] == "embed_functions:embed_texts"


def test_a_model_of_this_package(store, tmp_path):
    model = models.create("cnn-tiny", seed=0).eval()
    path = models.save(model, tmp_path / "tiny.safetensors")
    embedder = open_embedder(str(path), "image")
    assert embedder.dim == 10
    report = encode_column(store, embedder, "tiny", batch_size=3)
    assert report.rows == 8
    alone = encode_rows(store, embedder, "image", np.array([5]), batch_size=1)
    np.testing.assert_allclose(alone[0], store.array("embed.tiny", np.array([5]))[0], atol=1e-5)
    again = open_embedder(str(path), "image")
    assert again.space == embedder.space
    other = models.save(models.create("cnn-tiny", seed=1).eval(), tmp_path / "o.safetensors")
    assert open_embedder(str(other), "image").space.id != embedder.space.id
    run = tmp_path / "run"
    models.save(model, run / "model.safetensors")  # a run's folder stands for its weights
    assert open_embedder(str(run), "image").space.id == embedder.space.id


def test_an_encoder_that_is_fitted_to_the_rows(store):
    rows = np.arange(8)
    line = "hashed=char-ngrams?dim=8"
    embedder = open_embedder(line, "text", inputs=sample_inputs(store, "text", "text", rows))
    assert (embedder.space.model, embedder.dim) == ("hashed", 8)
    encode_column(store, embedder, "hashed")
    with pytest.raises(ConfigError, match="fitted to a store's rows"):
        open_embedder("words=tfidf-svd?dim=2", "text")


def test_names_that_stand_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="understudy data fetch minilm"):
        open_embedder("minilm", "text")
    with pytest.raises(ConfigError, match="no such file, fetched model or kind"):
        open_embedder("nothing", "text")
    with pytest.raises(ConfigError, match="module 'nowhere' cannot be imported"):
        open_embedder("nowhere:embed", "text")
    with pytest.raises(ConfigError, match="cannot be imported"):
        open_embedder("embed_functions:nothing", "text")


def test_bad_items_are_named(store):
    embedder = open_embedder("embed_functions:embed_badly", "text")
    with pytest.raises(DataError, match="row 0"):
        encode_column(store, embedder, "bad")
    assert not store.has("embed.bad")
    with pytest.raises(DataError, match=r"no column 'words' of texts"):
        encode_column(store, embedder, "bad", column="words")
    with pytest.raises(DataError, match="no rows to encode where"):
        encode_column(store, embedder, "bad", where="split = 'z'")
    with pytest.raises(DataError, match="none of 2 rows has a value"):
        encode_column(store, embedder, "bad", rows=np.array([2, 4]))


def test_broken_images_are_named(tmp_path):
    rows = {"id": ["good", "broken"], "image": [picture(0), b"no image"]}
    store = Store.create(tmp_path / "s", [rows])
    embedder = open_embedder("embed_functions:embed_images", "image")
    with pytest.raises(DataError, match="broken"):
        encode_column(store, embedder, "x")


def test_column_names():
    assert index_column("new") == index_column("embed.new") == "embed.new"
    with pytest.raises(DataError, match="cannot be a column name"):
        index_column("a:b")


@pytest.mark.asset("minilm")
def test_a_fetched_sentence_encoder(store):
    pytest.importorskip("transformers")
    embedder = open_embedder("minilm", "text")
    assert embedder.dim == 384
    assert embedder.space.model == "minilm"
    assert encode_column(store, embedder, "minilm").rows == 6


@pytest.mark.asset("efficientnet-lite0")
def test_a_fetched_image_encoder(store):
    embedder = open_embedder("efficientnet-lite0?size=96", "image")
    assert embedder.dim == 1280
    assert encode_column(store, embedder, "lite0", rows=np.arange(2)).rows == 2
