"""Scene sets written as stores, from Python and from a source string."""

import numpy as np
import pytest

from understudy.core.errors import ConfigError
from understudy.data import scenes
from understudy.data.decode import decode
from understudy.data.scenes import pack, pairs, photo_scenes
from understudy.data.store import Store

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

SMALL = {"train": 30, "teacher": 10, "test": 12}


def test_pairs_store_holds_pictures_texts_facts_and_captions(tmp_path):
    store = scenes.to_store("pairs", tmp_path / "s", seed=4, **SMALL)
    made = pairs.scenes(30, "train", seed=4, noise=1.0)
    rows = store.where("split = 'train'")
    assert rows.tolist() == list(range(30))
    table = store.take(rows, store.columns).to_pylist()
    for i, row in enumerate(table):
        assert np.array_equal(decode(row["image"]), made.images[i])
        assert row["text"] == made.texts[i]
        assert row["caption.template"] == made.captions[i]
        assert row["digits"] == made.digits[i, : made.counts[i]].tolist()
        assert row["boxes"] == made.boxes[i, : made.counts[i]].tolist()
        assert row["label"] == made.labels[i]
    masks = pack.unpack_masks([row["mask"] for row in table])
    assert np.array_equal(masks, made.masks)
    card = store.card("caption.template")
    assert (card.writer, card.seed, card.rows_done) == ("template", 4, 52)
    assert len(store.meta["prompts"]) == len(store.meta["classes"]) == 55
    test = store.take(store.where("split = 'test'"), ["text", "caption.template"]).to_pylist()
    assert all(row["text"] == row["caption.template"][0] for row in test)
    assert store.verify() == []


@pytest.mark.parametrize(
    ("name", "options", "columns"),
    [
        ("digits", {"division": 1}, {"scan"}),
        ("scans", {"train": 30}, {"label"}),
        ("photos", {"train": 8, "test": 3}, {"caption.template"}),
        ("photo-scenes", SMALL, {"mask", "depth", "places", "background", "caption.template"}),
        ("ape-pairs", {"train": 8, "pool": 20, "test": 4}, {"relevant", "template"}),
    ],
)
def test_every_set_becomes_a_store(tmp_path, name, options, columns):
    store = scenes.to_store(name, tmp_path / "s", **options)
    base = {"id", "image", "text", "label", "split", "source"}
    assert base | columns <= set(store.columns)
    assert store.meta["scenes"]["name"] == name
    first = store.take([0, store.num_rows - 1], ["image", "source"]).to_pylist()
    assert decode(first[0]["image"]).ndim == 3
    assert first[1]["source"] == f"scenes:{name}"


def test_photo_scene_depth_is_kept(tmp_path):
    store = scenes.to_store("photo-scenes", tmp_path / "s", train=5, teacher=0, test=0)
    made = photo_scenes.scenes(5)
    files = [row["depth"] for row in store.take(range(5), ["depth"]).to_pylist()]
    assert np.abs(pack.unpack_depth(files) - made.depth).max() < 1e-5


def test_same_call_again_returns_the_store(tmp_path, monkeypatch):
    first = scenes.to_store("pairs", tmp_path / "s", **SMALL)
    monkeypatch.setattr(Store, "create", None)  # would fail if it were called
    again = scenes.to_store("pairs", tmp_path / "s", **SMALL)
    assert again.version == first.version


def test_interrupted_call_is_finished(tmp_path, monkeypatch):
    whole = scenes.to_store("pairs", tmp_path / "whole", **SMALL)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "_write_captions", die)
        with pytest.raises(KeyboardInterrupt):
            scenes.to_store("pairs", tmp_path / "s", **SMALL)
    assert not Store.open(tmp_path / "s").has("caption.template")
    again = scenes.to_store("pairs", tmp_path / "s", **SMALL)
    assert again.content_hash() == whole.content_hash()


def test_source_string(tmp_path):
    source = "scenes:photo-scenes?train=6&teacher=0&test=2&objects=1,2&names=cat,brick&dense=no"
    store = scenes.from_source(source, tmp_path / "s")
    assert store.num_rows == 8
    assert "mask" not in store.columns
    backgrounds = store.take(range(8), ["background"])["background"].to_pylist()
    assert set(backgrounds) <= {"cat", "brick"}
    assert scenes.parse_source("scenes:pairs?noise=0.5&seed=2")[1] == {"noise": 0.5, "seed": 2}
    assert scenes.is_scene("scenes:pairs")
    assert not scenes.is_scene("pairs")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("scenes:pears", "there is no scene set 'pears'. Did you mean pairs"),
        ("scenes:pairs?trian=3", "unknown key 'trian'. Did you mean 'train'"),
        ("scenes:pairs?train=many", "train=many: expected a value like 4000"),
        ("scenes:pairs?masks=maybe", "masks=maybe: expected a value like True"),
        ("folder", "'folder' is not a scene source"),
    ],
)
def test_bad_input_source(source, message):
    with pytest.raises(ConfigError, match=message):
        scenes.parse_source(source)


def test_bad_input_option(tmp_path):
    with pytest.raises(ConfigError, match="scenes:pairs: unknown key 'colour'"):
        scenes.to_store("pairs", tmp_path / "s", colour=1)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("train", [0, 1797])
def test_scans_need_both_parts(tmp_path, train):
    with pytest.raises(ConfigError, match=f"'train' must lie in 1 to 1796, got {train}"):
        scenes.to_store("scans", tmp_path / "s", train=train)
