"""Built-in scenes: facts agree with pixels, splits share nothing, noise has the rates it says."""

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.data.scenes import digits, pack, pair_words, pairs, render, scans
from understudy.data.scenes.words import (
    COLOUR_RGB,
    COLOURS,
    DIGIT_WORDS,
    JUNK,
    SIZES,
    Noise,
    as_noise,
    corrupt,
)

pytest.importorskip("sklearn")
pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def pair_set():
    return pairs.scenes(600, seed=3, noise=1.0)


# Scans and classification


def test_splits_are_disjoint_and_balanced():
    parts = {name: scans.split_rows(name) for name in scans.SPLITS}
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(scans.NUM_SCANS))
    for rows in parts.values():
        share = np.bincount(scans.load().labels[rows], minlength=10) / len(rows)
        assert np.abs(share - 0.1).max() < 0.02


def test_enlarging_agrees_with_pillow_away_from_the_border():
    image = scans.load().images[7]
    ours = scans.enlarge(image[None], 32)[0]
    theirs = Image.fromarray(image, "F").resize((32, 32), Image.Resampling.BICUBIC)
    inner = slice(8, -8)  # Pillow drops taps beyond the border, we repeat the border
    expected = np.clip(np.asarray(theirs), 0, 1)[inner, inner]
    assert np.abs(ours[inner, inner] - expected).max() < 1e-5
    assert np.array_equal(scans.enlarge(image[None], 8)[0], image)


def test_classification_set_has_the_sizes_of_the_sheet():
    sets = [digits.classification_set(k) for k in range(3)]
    for made in sets:
        sizes = [len(part.labels) for part in made]
        assert sizes == [300, 600, 897]
        rows = np.concatenate([part.rows for part in made])
        assert len(set(rows.tolist())) == scans.NUM_SCANS
        assert np.bincount(made.student.labels).tolist() == [30] * 10
        assert made.student.images.shape == (300, 32, 32, 3)
        assert len(made.teacher_training().labels) == 900
    assert not np.array_equal(sets[0].student.rows, sets[1].student.rows)
    again = digits.classification_set(0)
    assert np.array_equal(again.test.images, sets[0].test.images)


def test_bad_input_division():
    with pytest.raises(ConfigError, match="'division' must be 0, 1 or 2, got 3"):
        digits.classification_set(3)


# Drawing


def test_upright_ink_is_the_enlarged_scan():
    rows = np.array([5, 900])
    still, plain = np.zeros(2), np.ones(2)
    assert np.allclose(
        render.ink(rows, 32, still, still, plain), render.textures()[rows], atol=1e-6
    )


def test_half_a_turn_flips_both_axes():
    rows, zero, one = np.array([11]), np.zeros(1), np.ones(1)
    upright = render.ink(rows, 20, zero, zero, one)
    turned = render.ink(rows, 20, np.array([np.pi]), zero, one)
    assert np.allclose(turned, upright[:, ::-1, ::-1], atol=1e-5)


def test_later_objects_hide_earlier_ones():
    same = np.array([[3, 3]])
    one = np.ones((1, 2))
    objects = render.Objects(
        counts=np.array([2]),
        scans=same,
        top=np.array([[4, 4]]),
        left=np.array([[4, 4]]),
        sides=np.array([[20, 20]]),
        colours=COLOUR_RGB[np.array([[1, 2]])],
        angles=0 * one,
        slants=0 * one,
        weights=one,
    )
    owner = render.draw(np.full((1, 32, 32, 3), 255, np.float32), objects)
    assert set(np.unique(owner)) == {0, 2}
    assert render.boxes(owner, 2)[0, 0].tolist() == [0, 0, 0, 0]


# Pairs


def test_boxes_and_masks_agree(pair_set):
    for i in range(0, 600, 7):
        for j in range(pair_set.counts[i]):
            ys, xs = np.nonzero(pair_set.masks[i] == j + 1)
            top, left, height, width = pair_set.boxes[i, j]
            assert (ys.min(), xs.min()) == (top, left)
            assert (ys.max() - top + 1, xs.max() - left + 1) == (height, width)
            assert not pair_set.boxes[i, pair_set.counts[i] :].any()


def test_captions_say_what_the_picture_shows(pair_set):
    centre = pair_set.boxes[..., :2] + pair_set.boxes[..., 2:] / 2
    for i in range(600):
        axis = 1 if pair_set.relation[i] == 0 else 0
        a, b = centre[i, 0, axis], centre[i, 1, axis]
        assert a < b, pair_set.captions[i][0]
        words = pair_set.captions[i][0].split()
        assert words[2] == str(pair_set.digits[i, 0])
        assert words[1] == SIZES[pair_set.sizes[i, 0]]
        assert f"{pair_words.RELATIONS[pair_set.relation[i]]} a" in pair_set.captions[i][0]
        if pair_set.counts[i] == 3:
            across, c = 1 - axis, centre[i, 2, 1 - axis]
            before = pair_set.third[i] == 0
            assert all((c < centre[i, j, across]) == before for j in (0, 1))
            side = pair_words.third_word(int(pair_set.relation[i]), int(pair_set.third[i]))
            assert pair_set.captions[i][0].endswith(f"{side} them")
    heights = [pair_set.boxes[:, 0, 2][pair_set.sizes[:, 0] == s] for s in (0, 2)]
    assert heights[0].max() < 16 < heights[1].mean()


def test_paraphrases_are_true_and_differ(pair_set):
    for i in range(200):
        shown = {int(d) for d in pair_set.digits[i, : pair_set.counts[i]]}
        colours = {COLOURS[c] for c in pair_set.colours[i, : pair_set.counts[i]]}
        for caption in pair_set.captions[i]:
            words = caption.replace(",", "").replace(":", "").split()
            named = {int(w) for w in words if w.isdigit()}
            named |= {DIGIT_WORDS.index(w) for w in words if w in DIGIT_WORDS}
            assert named == shown, caption
            assert {w for w in words if w in COLOURS} <= colours, caption
    assert np.mean([len(set(c)) for c in pair_set.captions]) > 4


def test_ink_has_the_colour_that_is_named(pair_set):
    wrong = 0
    for i in range(200):
        pixels = pair_set.images[i][pair_set.masks[i] == 1].astype(float)
        darkest = pixels[np.argsort(pixels.sum(1))[: max(len(pixels) // 4, 1)]].mean(0)
        nearest = np.abs(COLOUR_RGB - darkest).sum(1).argmin()
        wrong += nearest != pair_set.colours[i, 0]
    assert wrong < 20


def test_labels_are_the_pair_of_digits(pair_set):
    for i in range(600):
        if pair_set.counts[i] == 3:
            assert pair_set.labels[i] == -1
        else:
            assert pair_words.CLASSES[pair_set.labels[i]] == tuple(sorted(pair_set.digits[i, :2]))
    assert len(pair_words.class_prompts()) == len(pair_words.CLASSES) == 55


def test_class_masks(pair_set):
    i = int(np.argmax(pair_set.counts == 3))
    expected = np.zeros((48, 48), np.uint8)
    for j in range(3):
        expected[pair_set.masks[i] == j + 1] = pair_set.digits[i, j] + 1
    assert np.array_equal(pair_set.class_masks()[i], expected)


def test_splits_share_no_scan():
    used = [set(pairs.scenes(300, split).scan_rows.ravel().tolist()) for split in scans.SPLITS]
    assert sum(map(len, used)) == len(set.union(*used))


def test_longer_sets_begin_with_shorter_ones():
    short, long = pairs.scenes(20, "test", seed=1), pairs.scenes(1010, "test", seed=1)
    assert np.array_equal(short.images, long.images[:20])
    assert short.captions == long.captions[:20]
    assert len(long) == 1010
    assert len({image.tobytes() for image in long.images}) == 1010
    assert not np.array_equal(short.images, pairs.scenes(20, "test", seed=2).images)


def test_noise_changes_texts_only():
    clean, noisy = pairs.scenes(50), pairs.scenes(50, noise=1.0)
    assert np.array_equal(clean.images, noisy.images)
    assert clean.captions == noisy.captions
    assert clean.texts == [c[0] for c in clean.captions]
    assert noisy.texts != clean.texts


def test_without_variation_every_scan_looks_the_same_everywhere():
    made = pairs.scenes(250, variation=0.0, num_colours=1)
    assert (made.colours == 0).all()
    assert (made.images[made.masks == 0].max(-1) == 255).any()
    crops = {}
    for i in range(250):
        for j in range(made.counts[i]):
            top, left, height, width = made.boxes[i, j]
            crop = made.masks[i, top : top + height, left : left + width] == j + 1
            crops.setdefault((made.scan_rows[i, j], height, width), set()).add(crop.tobytes())
    repeated = [len(found) for found in crops.values()]
    assert max(repeated) == 1


@pytest.mark.parametrize("size", [32, 96])
def test_other_canvas_sizes(size):
    made = pairs.scenes(30, size=size, three=1.0, num_captions=1)
    assert made.images.shape == (30, size, size, 3)
    assert (made.counts == 3).all()
    assert (made.boxes[..., 2:] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "'valid' is not one of train, teacher, test"),
        ({"size": 20}, "'size' must be at least 32 pixels, got 20"),
        ({"three": 1.5}, r"'three' must lie in \[0, 1\], got 1.5"),
        ({"num_captions": 0}, "'num_captions' must be >= 1, got 0"),
        ({"num_colours": 7}, "'num_colours' must be 1 to 6, got 7"),
        ({"variation": 3.0}, r"'variation' must lie in \[0, 2\], got 3.0"),
        ({"threee": 0.0}, "unknown key 'threee'. Did you mean 'three'"),
        ({"noise": {"drop": 2.0}}, r"'drop' must lie in \[0, 1\], got 2.0"),
        ({"noise": {"dorp": 0.2}}, "unknown rate 'dorp'"),
        ({"noise": {"drop": 0.7, "swap": 0.5}}, "drop \\+ swap must be at most 1"),
        ({"noise": {"junk": -1}}, "'junk' must be >= 0"),
    ],
)
def test_bad_input_pair_options(options, message):
    with pytest.raises(ConfigError, match=message):
        pairs.scenes(5, **options)


# Noise


def _letters(count=4000, words=10):
    return [" ".join(f"s{i}w{j}" for j in range(words)) for i in range(count)]


def test_noise_has_the_rates_it_says():
    clean = _letters()
    noisy = corrupt(clean, Noise(drop=0.4, swap=0.2, junk=1.5), rng("t"))
    kept = foreign = junk = 0
    for i, text in enumerate(noisy):
        for word in text.split():
            junk += word in JUNK
            kept += word.startswith(f"s{i}w")
            foreign += word not in JUNK and not word.startswith(f"s{i}w")
    total = len(clean) * 10
    assert abs(kept / total - 0.4) < 0.01
    assert abs(foreign / total - 0.2) < 0.01
    assert abs(junk / len(clean) - 1.5) < 0.08


def test_mismatch_takes_another_caption():
    clean = _letters(500)
    whole = Noise(drop=0, swap=0, junk=0, mismatch=0.3)
    noisy = corrupt(clean, whole, rng("t"))
    assert set(noisy) <= set(clean)
    assert abs(np.mean([a != b for a, b in zip(clean, noisy, strict=True)]) - 0.3) < 0.06


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_more_noise_keeps_fewer_right_words(a, b):
    clean = _letters(40, 6)

    def right(level):
        noisy = corrupt(clean, Noise().scaled(level), rng("t"))
        return sum(w.startswith(f"s{i}w") for i, t in enumerate(noisy) for w in t.split())

    low, high = sorted((a, b))
    assert right(low) >= right(high) - 6  # a swapped word may come from its own caption
    assert corrupt(clean, as_noise(0.0), rng("t")) == clean


# At rest


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31), st.booleans())
def test_png_round_trip(height, width, seed, colour):
    shape = (height, width, 3) if colour else (height, width)
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(pack.png(image))) as opened:
        assert np.array_equal(np.asarray(opened), image)


def test_depth_round_trip():
    depth = np.random.default_rng(0).random((2, 9, 7)).astype(np.float32)
    again = pack.unpack_depth(pack.pack_depth(depth).to_pylist())
    assert np.abs(again - depth).max() <= 0.5 / pack.DEPTH_STEPS + 1e-7


def test_bad_input_packing():
    with pytest.raises(DataError, match="cannot write float64"):
        pack.png(np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"depth must lie in \[0, 1\]"):
        pack.pack_depth(np.full((1, 2, 2), 2.0))
    with pytest.raises(DataError, match="not a packed mask"):
        pack.unpack_masks([b"nothing"])


def test_labels_are_spread(pair_set):
    counted = Counter(pair_set.labels[pair_set.labels >= 0].tolist())
    assert len(counted) > 45
    assert 0.33 < (pair_set.counts == 3).mean() < 0.47
