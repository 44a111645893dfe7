"""Encoders of queries: the gallery's space decides which side of a model serves it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import serve_toys as toys
from understudy.core.errors import ConfigError
from understudy.data.spaces import Space, SpaceError
from understudy.reinforce.encoders import TeacherEncoder
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.update import serve_encoders
from understudy.update.embedders import embedder_of
from understudy.update.gallery import Gallery
from understudy.update.queries import Query, QueryError
from understudy.update.serve_encoders import Encoders, open_encoders


def picture(*colour):
    out = io.BytesIO()
    Image.new("RGB", (5, 5), colour).save(out, "PNG")
    return out.getvalue()


def side(modality, **changes):
    return toys.colour_embedder(modality, **changes)


def test_vectors_are_the_embedders_own():
    encoders = Encoders([side("image"), side("text")])
    assert encoders.kinds() == ["image", "text"]
    vector = encoders.encode(Query(kind="image", image=picture(200, 30, 40)))
    np.testing.assert_array_equal(vector, np.resize([201.0, 31.0, 41.0], 16))
    assert vector.dtype == np.float32
    unit = Encoders([side("image", normalised=True)])
    vector = unit.encode(Query(kind="image", image=picture(200, 30, 40)))
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_what_cannot_be_encoded_is_refused():
    encoders = Encoders([side("image")])
    damaged = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(damaged, "PNG")
    with pytest.raises(QueryError, match=r"encodes no texts; ask by image"):
        encoders.encode(Query(kind="text", text="a"))
    with pytest.raises(QueryError, match="image"):
        encoders.encode(Query(kind="image", image=damaged.getvalue()[:900]))
    with pytest.raises(QueryError, match="a zero vector"):
        Encoders([side("text")]).encode(Query(kind="text", text="zzz"))
    with pytest.raises(ConfigError, match="one encoder of images, one of texts"):
        Encoders([])
    with pytest.raises(ConfigError, match="two sides of one model"):
        Encoders([side("image"), side("text", fingerprint="another")])


CLIP = FunctionTeacher(
    "clip",
    {
        "embed_images": lambda images: toys.Colours("image").encode(images)[0],
        "embed_texts": lambda texts: toys.Colours("text").encode(texts)[0],
    },
)


@pytest.fixture
def models(monkeypatch):
    """Models by name: `clip` has two sides, `names` takes texts and breaks on anything else."""

    def opened(model, modality, *, version="", inputs=None):
        if model == "none":
            raise ConfigError(f"model '{model}' cannot embed {modality}s.")
        if model == "names" and modality == "image":
            raise TypeError("these are no texts")
        if model == "clip":
            return embedder_of(TeacherEncoder(CLIP, modality), modality)
        return side(modality, fingerprint=model)

    monkeypatch.setattr(serve_encoders, "open_embedder", opened)


def gallery_of(tmp_path, space):
    store = toys.Store.create(tmp_path / "s", [toys.batch(0, 10)])
    toys.fill(store, "embed.new", space, np.ones((10, 16), np.float32))
    return Gallery.open(store, new="embed.new")


@pytest.mark.parametrize("normalised", [False, True])
def test_both_sides_of_a_model_serve_what_one_wrote(tmp_path, models, normalised):
    written_by = embedder_of(TeacherEncoder(CLIP, "image"), "image", normalise=normalised)
    space = written_by.space
    encoders = open_encoders("clip", gallery_of(tmp_path, space))
    assert encoders.kinds() == ["image", "text"]
    assert encoders.space == space
    length = np.linalg.norm(encoders.encode(Query(kind="text", text="abba")))
    assert (length == pytest.approx(1)) == normalised


def test_a_model_of_one_side(tmp_path, models):
    space = side("text", fingerprint="names").space
    assert open_encoders("names", gallery_of(tmp_path, space)).kinds() == ["text"]


def test_another_model_is_refused_with_both_ids(tmp_path, models):
    space = Space(model="v9", fingerprint="v9", dim=16)
    gallery = gallery_of(tmp_path, space)
    with pytest.raises(SpaceError) as caught:
        open_encoders("clip", gallery)
    assert space.id in str(caught.value)
    assert embedder_of(TeacherEncoder(CLIP, "image"), "image").space.id in str(caught.value)
    with pytest.raises(ConfigError, match="cannot embed images"):
        open_encoders("none", gallery)
