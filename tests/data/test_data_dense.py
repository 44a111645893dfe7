"""Masks and depth maps as they are stored, and every way in which they can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from dense_world import CLASSES, classes, dense_store, depth_m, encoded, npy, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.data.dense import (
    DepthSpec,
    MaskSpec,
    check_same_classes,
    check_unit,
    decode_depth,
    decode_mask,
    present_classes,
    semantic,
)
from understudy.data.dense_augment import DenseAugment, Placed, draws, recolour
from understudy.data.loader import Loader
from understudy.data.loader_dense import DenseSamples, instances_of
from understudy.data.sampler_stream import StreamSampler
from understudy.data.samplers import SequentialSampler
from understudy.data.scenes.pack import png

SPEC = MaskSpec(classes=CLASSES)
STILL = DenseAugment(flip=0.0)
quick = settings(max_examples=40, deadline=None)


def test_masks_of_all_index_modes():
    mask = classes(0)
    palette = Image.fromarray(mask)
    palette.putpalette([i for c in range(256) for i in (c, 255 - c, 7)])
    wide = png(mask.astype(np.uint16) * 3)
    assert np.array_equal(decode_mask(png(mask)), mask)
    assert np.array_equal(decode_mask(encoded(palette)), mask)
    assert np.array_equal(decode_mask(wide), mask.astype(np.int64) * 3)


def test_objects_become_the_classes_of_their_row():
    spec = MaskSpec(objects="digits", classes=("background", "a", "b", "c"))
    mask = np.array([[0, 1, 2], [2, 255, 0]])
    assert semantic(mask, spec, [2, 0]).tolist() == [[0, 3, 1], [1, 255, 0]]
    with pytest.raises(DataError, match=r"value 2 is neither below 2 \(objects in the row\)"):
        semantic(mask, spec, [2])
    with pytest.raises(DataError, match=r"value 8 is neither below 4 \(classes\)"):
        semantic(mask, spec, [7, 0])


def test_bad_input_values_and_colours():
    with pytest.raises(DataError, match=r"row 5: value 3 is neither below 3 .* nor 255"):
        semantic(np.array([[0, 3]]), SPEC, None, "row 5")
    with pytest.raises(DataError, match=r"picture of colours \(mode RGB\).*convert its palette"):
        decode_mask(png(picture(0)), "row 1")
    with pytest.raises(DataError, match="JPEG, which blurs indices"):
        decode_mask(encoded(Image.fromarray(classes(0)), "JPEG"))
    with pytest.raises(DataError, match="not a mask that can be decoded"):
        decode_mask(b"nothing")
    with pytest.raises(ConfigError, match="name at least two"):
        MaskSpec(classes=("one",))
    with pytest.raises(ConfigError, match="there twice"):
        MaskSpec(classes=("one", "one"))
    with pytest.raises(ConfigError, match="ignored label 1 is also class 'b'"):
        MaskSpec(classes=("a", "b"), ignore=1)


def test_bad_input_order_of_classes():
    check_same_classes(("a", "b"), ("a", "b"))
    with pytest.raises(DataError, match="class 0 is 'a' for the head and 'b' for the data"):
        check_same_classes(("a", "b"), ("b", "a"))
    with pytest.raises(DataError, match="class 1 is 'b' for the head and None for the data"):
        check_same_classes(("a", "b"), ("a",))


def test_depth_of_both_forms_and_what_counts():
    metres = depth_m(1)
    millimetres = (metres * 1000).astype(np.uint16)
    for data in (png(millimetres), npy(metres)):
        depth, valid = decode_depth(data, DepthSpec())
        assert depth.dtype == np.float32
        assert np.array_equal(valid, metres > 0)
        assert np.abs(depth - metres).max() < 1.1e-3
    holes = metres.copy()
    holes[0, :4] = [np.nan, np.inf, 11.0, 5e-4]
    assert not decode_depth(npy(holes), DepthSpec())[1][0, :4].any()
    scaled, _ = decode_depth(png(millimetres), DepthSpec(scale=1 / 65535))
    assert scaled.max() < 0.1
    for bad in (b"x", png(picture(0)), npy(np.zeros((2, 2), complex))):
        with pytest.raises(DataError, match="depth"):
            decode_depth(bad, DepthSpec())
    with pytest.raises(ConfigError, match="0 < low < high"):
        DepthSpec(low=2.0, high=1.0)


def test_bad_input_unit_of_depth(tmp_path):
    store = dense_store(tmp_path / "s")
    rows = np.arange(6)
    assert 0.5 < check_unit(store, DepthSpec(), rows) < 4
    with pytest.raises(DataError, match=r"would be \d+ m; give the unit"):
        check_unit(store, DepthSpec(scale=1.0), rows)
    with pytest.raises(DataError, match="give the unit"):
        check_unit(store, DepthSpec(scale=1e-6), rows)
    empty = dense_store(tmp_path / "e", depth=[png(np.zeros((12, 16), np.uint16))] * 12)
    with pytest.raises(DataError, match="no depth at all"):
        check_unit(empty, DepthSpec(), rows)


def batch(store, field, step=0, size=4, rows=None):
    sampler = SequentialSampler(store.num_rows if rows is None else rows, size)
    return Loader(store, sampler, [field], workers=0).load(step)


def test_picture_and_mask_move_together(tmp_path):
    """The red channel holds the class, so a crop must keep red and mask in step."""
    store = dense_store(tmp_path / "s")
    field = DenseSamples(
        task="seg", size=20, masks=SPEC, augment=DenseAugment(flip=0.5, scale=(1.0, 1.0))
    )
    mirrored = 0
    for step in range(3):
        found = batch(store, field, step)
        red = (found["images"][:, 0] * 255).round().long()
        mask = found["masks"]
        inside = red != 0
        assert ((red == 200) == (mask == 255))[inside].all()
        assert (red[mask != 255] == 10 * mask[mask != 255]).all()
        assert (mask[:, 12:] == 255).all()  # padded below and right
        assert (mask[:, :, 16:] == 255).all()
        assert (found["images"][:, :, 12:] == 0).all()
        blue = (found["images"][:, 2, 0, :16] * 255).round()
        mirrored += int((blue[:, 0] > blue[:, 15]).sum())
    assert 0 < mirrored < 12


def test_padding_is_the_mean_colour_whatever_the_colours_did(tmp_path):
    store = dense_store(tmp_path / "s")
    field = DenseSamples(
        task="seg",
        size=20,
        masks=SPEC,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
        augment=DenseAugment(flip=0.0, jitter=0.4),
    )
    assert (batch(store, field)["images"][:, :, 12:] == 0).all()


@quick
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    size=st.integers(1, 24),
    seed=st.integers(0, 500),
    zoom=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (2.0, 2.0)]),
)
def test_placing_keeps_labels_and_size(height, width, size, seed, zoom):
    numbers = draws(np.array([seed], np.uint64))[0]
    placed = Placed((height, width), size, DenseAugment(scale=zoom, flip=0.5), numbers)
    labels = np.arange(height * width).reshape(height, width) % 7
    out = placed.apply(labels, 255, False)
    assert out.shape == (size, size)
    assert set(np.unique(out)) <= {*labels.ravel().tolist(), 255}
    pixels = placed.apply(np.zeros((height, width, 3), np.uint8), 0, True)
    assert pixels.shape == (size, size, 3)
    inside = placed.apply(np.ones((height, width), bool), False, False)
    assert ((out != 255) == inside).all()


def test_recolouring_is_off_by_default_and_stays_in_range():
    image = picture(3)
    numbers = draws(np.array([4], np.uint64))[0]
    assert np.array_equal(recolour(image, DenseAugment(), numbers), image.astype(np.float32))
    other = recolour(image, DenseAugment(jitter=0.5), numbers)
    assert 0 <= other.min()
    assert other.max() <= 255
    assert not np.array_equal(other, image)


def test_depth_batches(tmp_path):
    store = dense_store(tmp_path / "s")
    field = DenseSamples(task="depth", size=16, depth=DepthSpec(), augment=STILL)
    found = batch(store, field)
    truth = np.stack([depth_m(i) for i in range(4)])
    assert np.array_equal(found["valid"][:, :12].numpy(), truth > 0)
    assert not found["valid"][:, 12:].any()
    kept = found["valid"]
    assert np.abs(found["depth"][kept].numpy() - truth[truth > 0]).max() < 1.1e-3
    assert bool((found["depth"] > 0).all())


def test_objects_of_a_crop(tmp_path):
    mask = np.zeros((12, 16), np.uint8)
    mask[2:5, 3:9], mask[7:, 10:] = 1, 3
    files = {"mask": [png(mask)] * 12, "objects": [[5, 0, 2]] * 12}
    store = dense_store(tmp_path / "s", **files)
    names = ("background", "a", "b", "c", "d", "e", "f")
    spec = MaskSpec(objects="objects", classes=names)
    field = DenseSamples(task="det", size=16, masks=spec, augment=STILL)
    found = batch(store, field)
    assert found["labels"][0].tolist() == [5, 2]  # object 2 has no pixel
    assert found["boxes"][0].tolist() == [[3, 2, 9, 5], [10, 7, 16, 12]]
    assert found["instances"][0].sum((1, 2)).tolist() == [18, 30]
    empty = instances_of(np.zeros((3, 3), np.int64), [1, 2])
    assert [empty[k].shape for k in ("boxes", "labels", "instances")] == [(0, 4), (0,), (0, 3, 3)]


def test_resuming_gives_the_same_batches(tmp_path):
    store = dense_store(tmp_path / "s")
    field = DenseSamples(task="seg", size=8, masks=SPEC, augment=DenseAugment(scale=(0.5, 2)))
    loader = Loader(store, StreamSampler(12, 5, 3), [field], seed=3, workers=0)
    whole = list(loader(0, 6))
    for a, b in zip(whole[4:], loader(4, 2), strict=True):
        assert bool((a["images"] == b["images"]).all())
        assert bool((a["masks"] == b["masks"]).all())


def test_bad_input_of_the_loader(tmp_path):
    sizes = dense_store(tmp_path / "a", mask=[png(classes(0, 12, 15))] * 12)
    field = DenseSamples(task="seg", size=8, masks=SPEC)
    with pytest.raises(
        DataError, match=r"row 0 \(id 'd0'\): the image is 12x16 and its mask 12x15 pixels"
    ):
        batch(sizes, field)
    store = dense_store(tmp_path / "b")
    short = MaskSpec(classes=CLASSES[:2])
    with pytest.raises(DataError, match=r"row 0 \(id 'd0'\), mask: value 2 is neither below 2"):
        batch(store, DenseSamples(task="seg", size=8, masks=short))
    elsewhere = MaskSpec(column="labels", classes=CLASSES)
    with pytest.raises(DataError, match="no column 'labels'"):
        batch(store, DenseSamples(task="seg", size=8, masks=elsewhere))
    with pytest.raises(ConfigError, match="the task depth needs depth"):
        DenseSamples(task="depth", size=8, masks=SPEC)
    with pytest.raises(ConfigError, match="changes the depths"):
        DenseSamples(task="depth", size=8, depth=DepthSpec(), augment=DenseAugment(scale=(1, 2)))
    with pytest.raises(ConfigError, match="masks of objects"):
        DenseSamples(task="det", size=8, masks=SPEC)
    with pytest.raises(ConfigError, match="augment.scale"):
        DenseAugment(scale=(2, 1))
    with pytest.raises(ConfigError, match="flip in"):
        DenseAugment(flip=2)


def test_pixels_of_each_class(tmp_path):
    store = dense_store(tmp_path / "s")
    rows = np.array([1, 5])
    expected = sum(np.bincount(classes(i)[classes(i) != 255], minlength=3) for i in (1, 5))
    assert present_classes(store, SPEC, rows).tolist() == expected.tolist()
