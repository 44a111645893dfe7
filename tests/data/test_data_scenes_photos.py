"""Scenes on photographs and pairs for aligners: places, depth, bands, wordings."""

import itertools

import numpy as np
import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data.scenes import ape_pairs, photo_scenes, photo_words, photos, scans
from understudy.data.scenes.words import COLOURS, DIGIT_WORDS, JUNK, SIZES

pytest.importorskip("sklearn")
pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def photo_set():
    return photo_scenes.scenes(250, seed=3)


# Photos


def test_patches_stay_in_their_band(monkeypatch):
    across = np.arange(400)
    marked = np.repeat(np.stack([across // 256, across % 256, across * 0], -1)[None], 300, axis=0)
    monkeypatch.setattr(photos, "picture", lambda name: marked.astype(np.uint8))
    photos._band.cache_clear()
    try:
        for split, (first, last) in photos._BANDS.items():
            cut = photos.patches(50, 64, split, names=("flower",)).images.astype(int)
            x = cut[..., 0] * 256 + cut[..., 1]
            exact = (cut[..., 0] % 1 == 0) & (np.abs(np.diff(x, axis=2, prepend=x[:, :, :1])) <= 2)
            assert exact.mean() > 0.9
            assert x[exact].min() >= first * 400 - 1
            assert x[exact].max() <= last * 400
    finally:
        photos._band.cache_clear()


@pytest.mark.parametrize("name", sorted(photos.PICTURES))
def test_every_picture_is_there(name):
    image = photos.picture(name)
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert min(image.shape[:2]) >= 300
    assert image.std() > 10


def test_bad_input_photos():
    with pytest.raises(ConfigError, match="'cta' is not one of"):
        photos.patches(2, names=("cta",))
    with pytest.raises(ConfigError, match="patches of 300 pixels don't fit the test band of 'cat'"):
        photos.patches(2, 300, "test", names=("cat",))
    with pytest.raises(ConfigError, match="at least one picture"):
        photos.patches(2, names=())


def test_bad_input_missing_photograph(monkeypatch):
    monkeypatch.setitem(photos.PICTURES, "cat", (("skimage", "data"), "none.png", ("a",)))
    photos.picture.cache_clear()
    with pytest.raises(DataError, match=r"none.png: the installed skimage doesn't carry"):
        photos.picture("cat")
    photos.picture.cache_clear()


# Photo scenes


def test_objects_stand_where_the_caption_says(photo_set):
    for i in range(250):
        n = photo_set.counts[i]
        assert len(set(photo_set.places[i].tolist())) == 4
        for j in range(n):
            top, left, height, width = photo_set.boxes[i, j].astype(float)
            if photo_set.boxes[i, j, 2] and (photo_set.masks[i] == j + 1).sum() > 40:
                place = photo_words.PLACES[photo_set.places[i, j]]
                y, x = top + height / 2, left + width / 2
                assert ("top" in place) == (y < 36), (place, y)
                assert ("left" in place) == (x < 36) or abs(x - 32) < 6
            words = (
                f"{SIZES[photo_set.sizes[i, j]]} {COLOURS[photo_set.colours[i, j]]} "
                f"{DIGIT_WORDS[photo_set.digits[i, j]]} in the "
                f"{photo_words.PLACES[photo_set.places[i, j]]}"
            )
            assert words in photo_set.captions[i][0]
        ground = photos.BACKGROUNDS[photo_set.background[i]]
        assert photo_set.captions[i][0].endswith(f"on {photos.caption(ground)}")


def test_depth_orders_the_objects(photo_set):
    for i in range(250):
        levels = [photo_set.depth[i][photo_set.masks[i] == j] for j in range(5)]
        seen = [(level.min(), level.max()) for level in levels if level.size]
        assert all(near[1] < far[0] for far, near in itertools.pairwise(seen))
        assert seen[0][0] > 0.55
    assert photo_set.depth.min() > 0


def test_far_is_hazier():
    made = photo_scenes.scenes(400, seed=5, objects=(1, 1), names=("brick",))
    ground = np.where(made.masks == 0, made.depth, np.nan)
    mean = np.nanmean(made.images.mean(-1) * np.where(made.masks == 0, 1, np.nan), axis=(1, 2))
    left, right = ground[:, :, :8], ground[:, :, -8:]
    tilt = np.nanmean(right, (1, 2)) - np.nanmean(left, (1, 2))
    light = made.images[:, :, -8:].mean((1, 2, 3)) - made.images[:, :, :8].mean((1, 2, 3))
    assert np.isfinite(mean).all()
    assert np.corrcoef(tilt, light)[0, 1] > 0.5


def test_normals_of_a_plane_are_constant_and_unit():
    y, x = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    depth = (0.2 + 0.01 * x + 0.02 * y)[None]
    found = photo_scenes.normals(depth, relief=2.0)
    raw = np.array([0.01 * 32, 0.02 * 32, 1.0])
    assert np.allclose(found, raw / np.linalg.norm(raw), atol=1e-5)
    flipped = photo_scenes.normals(depth[:, :, ::-1], relief=2.0)[:, :, ::-1]
    assert np.allclose(flipped * [-1, 1, 1], found, atol=1e-5)


def test_one_object_scenes_serve_conditioned_encoders():
    made = photo_scenes.scenes(40, objects=(1, 1), size=40, noise=0.5)
    assert (made.counts == 1).all()
    assert len({tuple(r) for r in np.stack([made.digits[:, 0], made.colours[:, 0]], 1)}) > 20


def test_bad_input_photo_scenes():
    with pytest.raises(ConfigError, match=r"'objects' must be \(low, high\) within 1 to 4"):
        photo_scenes.scenes(2, objects=(0, 5))
    with pytest.raises(ConfigError, match="'size' must be >= 32"):
        photo_scenes.scenes(2, size=8)


# Pairs for aligning frozen encoders


def test_templates_are_many_and_prompts_are_held_out():
    assert len(set(ape_pairs.TEMPLATES)) >= 30
    assert not set(ape_pairs.TEMPLATES) & set(ape_pairs.HELD_OUT_TEMPLATES)
    made = ape_pairs.pairs(500, noise=0.0)
    prompts = {prompt for each in ape_pairs.class_prompts() for prompt in each}
    assert not prompts & set(made.texts)
    assert len(ape_pairs.class_prompts()) == 10
    assert len(set(made.templates.tolist())) == len(ape_pairs.TEMPLATES)
    assert any("the number after six" in t for t in made.texts)
    assert any(t.split()[-1] == "VII" for t in made.texts)


def test_pool_holds_the_share_of_relevant_pairs():
    pool = ape_pairs.pairs(3000, "teacher", relevant=0.1)
    assert abs((pool.labels >= 0).mean() - 0.1) < 0.02
    relevant, rest = pool.select(pool.labels >= 0), pool.select(pool.labels < 0)
    assert np.array_equal(scans.load().labels[relevant.scan_rows], relevant.labels)
    assert (rest.templates == -1).all()
    captions = {c for _, _, each in photos.PICTURES.values() for c in each}
    cleaned = [" ".join(w for w in t.split() if w not in JUNK) for t in rest.texts]
    assert np.mean([t in captions for t in cleaned]) > 0.85  # "stock" and "image" may be both


def test_noise_words_have_their_rate():
    made, clean = ape_pairs.pairs(1000, noise=0.2), ape_pairs.pairs(1000, noise=0.0)
    words = sum(len(t.split()) for t in clean.texts)
    assert abs((sum(len(t.split()) for t in made.texts) - words) / words - 0.2) < 0.02
    assert np.array_equal(made.images, clean.images)


def test_bad_input_ape_options():
    with pytest.raises(ConfigError, match="'relevant' and 'noise' must lie in"):
        ape_pairs.pairs(5, relevant=2)
