"""Views: replay is exact, independent of the batch, and drawn from the stated distributions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from view_configs import configs
from view_images import encoded, noise, picture, sample

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.card import Card
from understudy.data.view_config import DEFAULTS, ORDER, ViewConfig
from understudy.data.view_params import NO_OP, empty_params, params_dtype
from understudy.data.view_random import uniforms
from understudy.data.views import ViewPipeline

SIDES = st.lists(st.tuples(st.integers(24, 48), st.integers(24, 48)), min_size=1, max_size=4)
MANY = 4000


def kolmogorov(values: np.ndarray, low: float, high: float) -> float:
    """Return sqrt(n) times the largest distance to the uniform distribution's function."""
    x = np.sort((values - low) / (high - low))
    n = len(x)
    steps = np.arange(n)
    distance = max((x - steps / n).max(), ((steps + 1) / n - x).max())
    return float(np.sqrt(n) * distance)


def many(transforms: dict, size: int = 32, side: tuple[int, int] = (1000, 1000)) -> np.ndarray:
    pipeline = ViewPipeline(ViewConfig(size=size, transforms=transforms))
    return pipeline.sample([side] * MANY, np.arange(MANY))


# --- replay ---------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(config=configs(), sides=SIDES, seed=st.integers(-(2**63), 2**63))
def test_replay_of_stored_bytes_is_bit_exact(config, sides, seed):
    pipeline = ViewPipeline(config)
    images = [picture(h, w, i) for i, (h, w) in enumerate(sides)]
    seeds = [seed + i for i in range(len(images))]
    params, partners = sample(pipeline, images, seeds)
    views = pipeline.apply(images, params, partners=partners)
    stored = pipeline.pack(params)
    assert stored.shape == (len(images), pipeline.stride)

    other = ViewPipeline(ViewConfig.from_dict(config.to_dict()))
    again = other.unpack(np.frombuffer(stored.tobytes(), np.uint8).reshape(stored.shape))
    np.testing.assert_array_equal(other.pack(again), stored)
    replayed = other.apply(images, again, partners=partners)
    assert replayed.dtype == (np.float32 if config.mixes and not config.round_mixed else np.uint8)
    np.testing.assert_array_equal(replayed, views)
    np.testing.assert_array_equal(other.checksum(replayed), pipeline.checksum(views))


@settings(max_examples=40, deadline=None)
@given(config=configs(), sides=SIDES, seed=st.integers(0, 2**31))
def test_an_item_alone_is_the_item_in_a_batch(config, sides, seed):
    pipeline = ViewPipeline(config)
    images = [picture(h, w, i) for i, (h, w) in enumerate(sides)]
    seeds = [seed + i for i in range(len(images))]
    params, partners = sample(pipeline, images, seeds)
    views = pipeline.apply(images, params, partners=partners)
    for i, image in enumerate(images):
        given_partner = None
        if config.mixes:
            row = pipeline.draw_partners(seeds, len(images), np.arange(len(images)))[i : i + 1]
            given_partner = (row, [images[int(row[0])].shape[:2]])
        alone = pipeline.sample([image.shape[:2]], seeds[i : i + 1], given_partner)
        assert pipeline.pack(alone).tobytes() == pipeline.pack(params[i : i + 1]).tobytes()
        view = pipeline.apply([image], alone, partners=partners and partners[i : i + 1])
        np.testing.assert_array_equal(view[0], views[i])


def test_large_batches_that_span_chunks_give_the_same_views():
    config = ViewConfig(size=96)
    pipeline = ViewPipeline(config)
    images = [noise(100, 110, i) for i in range(40)]  # a chunk holds 18 views of this size
    params = pipeline.sample([(100, 110)] * 40, range(40))
    views = pipeline.apply(images, params)
    for i in (0, 17, 18, 39):
        np.testing.assert_array_equal(
            pipeline.apply(images[i : i + 1], params[i : i + 1])[0], views[i]
        )


def test_same_seed_same_bytes_and_another_seed_other_bytes():
    pipeline = ViewPipeline(ViewConfig(size=16))
    sizes = [(40, 30)] * 8
    first = pipeline.pack(pipeline.sample(sizes, range(8))).tobytes()
    assert pipeline.pack(pipeline.sample(sizes, range(8))).tobytes() == first
    assert pipeline.pack(pipeline.sample(sizes, range(8, 16))).tobytes() != first


def test_records_and_pixels_of_a_fixed_seed_never_change():
    # A change here means that stored views no longer replay: raise VIEW_VERSION.
    config = ViewConfig(
        size=16,
        transforms={
            "random_crop": {"padding": 4, "resize": False},
            "random_horizontal_flip": {},
            "rand_augment": {},
            "random_erase": {"p": 1.0},
        },
    )
    pipeline = ViewPipeline(config)
    image = (np.arange(16 * 16 * 3).reshape(16, 16, 3) * 7 % 256).astype(np.uint8)
    params = pipeline.sample([(16, 16)] * 3, [1, 2, 3])
    views = pipeline.apply([image] * 3, params)
    assert pipeline.pack(params).tobytes().hex() == GOLDEN_RECORDS
    assert pipeline.checksum(views).tolist() == GOLDEN_PIXELS


GOLDEN_RECORDS = (
    "0800060000050c80c800000100070007000300"
    "0700000001050580c880c802000c000a000400"
    "0500050001030a5ac00047020009000c000500"
)
GOLDEN_PIXELS = [3832217773, 192143069, 3512662500]


def test_adding_a_transform_leaves_the_other_draws_as_they_were():
    crop = {"random_resized_crop": {}}
    a = many(crop)
    b = many({**crop, "rand_augment": {}, "random_horizontal_flip": {}, "random_erase": {}})
    np.testing.assert_array_equal(a["rrc"], b["rrc"])


def test_order_in_the_configuration_does_not_matter():
    names = ["random_resized_crop", "random_horizontal_flip", "rand_augment", "random_erase"]
    a = ViewConfig(size=16, transforms={n: {} for n in names})
    b = ViewConfig(size=16, transforms={n: {} for n in reversed(names)})
    assert a.hash == b.hash
    assert list(b.transforms) == names
    assert ORDER.index("random_erase") < ORDER.index("normalize") < ORDER.index("mixup")


def test_encoded_files_and_arrays_give_the_same_view():
    pipeline = ViewPipeline(ViewConfig(size=24))
    image = picture(50, 40)
    params = pipeline.sample([(50, 40)], [5])
    expected = pipeline.apply([image], params)
    np.testing.assert_array_equal(pipeline.apply([encoded(image)], params), expected)


def test_views_are_planar_in_memory():
    pipeline = ViewPipeline(ViewConfig(size=8))
    views = pipeline.apply([picture(20, 20)], pipeline.sample([(20, 20)], [0]))
    assert views.shape == (1, 8, 8, 3)
    assert views.transpose(0, 3, 1, 2).flags.c_contiguous


def test_the_crop_is_the_crop():
    config = ViewConfig(size=12, transforms={"random_resized_crop": {"interpolation": "bicubic"}})
    pipeline = ViewPipeline(config)
    image = picture(60, 50)
    params = pipeline.sample([(60, 50)], [11])
    top, left, height, width = params["rrc"][0].tolist()
    expected = Image.fromarray(image[top : top + height, left : left + width]).resize(
        (12, 12), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(pipeline.apply([image], params)[0], np.asarray(expected))


def test_padded_crop_equals_padding_by_hand():
    config = ViewConfig(
        size=20, transforms={"random_crop": {"padding": 3, "fill": 9, "resize": False}}
    )
    pipeline = ViewPipeline(config)
    image = noise(20, 20)
    params = pipeline.sample([(20, 20)] * 30, range(30))
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), constant_values=9)
    for view, (top, left) in zip(
        pipeline.apply([image] * 30, params), params["rc"].tolist(), strict=True
    ):
        np.testing.assert_array_equal(view, padded[top : top + 20, left : left + 20])
    assert set(params["rc"].reshape(-1).tolist()) == set(range(7))


def test_erasing_comes_last_and_is_black_before_normalisation():
    config = ViewConfig(
        size=16,
        transforms={"resize": {"mode": "squash"}, "rand_augment": {}, "random_erase": {"p": 1.0}},
    )
    pipeline = ViewPipeline(config)
    params = pipeline.sample([(16, 16)], [3])
    top, left, height, width = params["re"][0].tolist()
    view = pipeline.apply([np.full((16, 16, 3), 200, np.uint8)], params)[0]
    assert height > 0
    assert (view[top : top + height, left : left + width] == 0).all()


def test_flip_mirrors_left_to_right():
    config = ViewConfig(
        size=9, transforms={"resize": {"mode": "squash"}, "random_horizontal_flip": {"p": 1.0}}
    )
    pipeline = ViewPipeline(config)
    image = noise(9, 9)
    view = pipeline.apply([image], pipeline.sample([(9, 9)], [0]))[0]
    np.testing.assert_array_equal(view, image[:, ::-1])


def test_deterministic_views_have_a_record_too():
    config = ViewConfig(size=8, transforms={"resize": {}, "center_crop": {}})
    pipeline = ViewPipeline(config)
    assert not config.random
    assert pipeline.stride == 1
    params = pipeline.unpack(pipeline.pack(pipeline.sample([(8, 20)], [0])))
    image = noise(8, 20)
    np.testing.assert_array_equal(pipeline.apply([image], params)[0], image[:, 6:14])


def test_reduced_decode_replays_exactly_and_stays_close_to_full_decode():
    image = picture(256, 200)
    data = encoded(image, "jpeg", quality=95)
    full = ViewPipeline(ViewConfig(size=32, transforms={"random_resized_crop": {}}))
    config = ViewConfig(size=32, transforms={"random_resized_crop": {}}, reduced_decode=True)
    reduced = ViewPipeline(config)
    params = reduced.sample([(256, 200)] * 6, range(6))
    views = reduced.apply([data] * 6, params)
    np.testing.assert_array_equal(
        reduced.apply([data] * 6, reduced.unpack(reduced.pack(params))), views
    )
    exact = full.apply([data] * 6, params).astype(float)
    assert np.abs(views - exact).mean() < 6
    assert np.abs(views - exact).max() > 0  # it did decode at another scale
    with pytest.raises(ConfigError, match="reduced_decode: pass the encoded files"):
        reduced.apply([image] * 6, params)


# --- another size ---------------------------------------------------------------------------------


def test_replay_at_another_size_scales_what_is_in_view_pixels():
    config = ViewConfig(
        size=40,
        transforms={"resize": {"mode": "squash"}, "rand_augment": {}, "random_erase": {}},
    )
    pipeline = ViewPipeline(config)
    image = picture(40, 40)
    params = empty_params(config, 1)
    params["ra_op"], params["ra_mag"] = [[3, 0]], [[9, 0]]
    params["re"] = [[10, 5, 21, 7]]
    small = pipeline.apply([image], params, size=20, rescale=True)[0]
    expected = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR)).copy()
    shifted = np.zeros_like(expected)
    shifted[:, 4:] = expected[:, :-4]  # 9 * 0.5, truncated
    # rows 10..31 -> 5..16 (15.5 to even), columns 5..12 -> 2..6 (2.5 to even)
    shifted[5:16, 2:6] = 0
    np.testing.assert_array_equal(small, shifted)


@settings(max_examples=40, deadline=None)
@given(config=configs(), seed=st.integers(0, 999), size=st.integers(1, 40))
def test_any_view_replays_at_any_size(config, seed, size):
    pipeline = ViewPipeline(config)
    images = [picture(40, 44, i) for i in range(2)]
    params, partners = sample(pipeline, images, [seed, seed + 1])
    stored = pipeline.pack(params).tobytes()
    views = pipeline.apply(images, params, size=size, rescale=True, partners=partners)
    assert views.shape == (2, size, size, 3)
    assert pipeline.pack(params).tobytes() == stored  # the records are left alone
    if size == config.size:
        plain = pipeline.apply(images, params, partners=partners)
        np.testing.assert_array_equal(views, plain)


# --- distributions --------------------------------------------------------------------------------


def test_crop_area_ratio_and_place_are_uniform():
    params = many({"random_resized_crop": {"scale": [0.2, 0.5]}})
    top, left, height, width = params["rrc"].astype(float).T
    # nothing is rejected at these scales; 1.63 is the 1% point of the statistic
    assert kolmogorov(height * width / 1e6, 0.2, 0.5) < 1.63
    assert kolmogorov(np.log(width / height), np.log(3 / 4), np.log(4 / 3)) < 1.63
    assert kolmogorov(top / (1000 - height), 0, 1) < 1.63
    assert kolmogorov(left / (1000 - width), 0, 1) < 1.63
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.05


def slow_crop(height: int, width: int, scale, ratio, draw) -> tuple[int, int, int, int]:
    """Draw torchvision's random resized crop, as its documentation has it."""
    for _ in range(10):
        area = height * width * draw.uniform(*scale)
        aspect = np.exp(draw.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return draw.integers(height - h + 1), draw.integers(width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("side", [(300, 300), (100, 400), (500, 60)])
def test_rejected_crops_and_the_fallback_follow_torchvision(side):
    options = DEFAULTS["random_resized_crop"]
    mine = many({"random_resized_crop": {}}, side=side)["rrc"].astype(float)
    draw = np.random.default_rng(0)
    theirs = np.array(
        [slow_crop(*side, options["scale"], options["ratio"], draw) for _ in mine], float
    )
    for column in range(4):
        for q in (0.1, 0.5, 0.9):
            a, b = np.quantile(mine[:, column], q), np.quantile(theirs[:, column], q)
            assert abs(a - b) <= 0.04 * max(side) + 1
    assert (mine[:, :2] + mine[:, 2:] <= side).all()


def test_a_crop_that_never_fits_falls_back_to_the_centre():
    options = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    rrc = many({"random_resized_crop": options}, side=(100, 300))["rrc"]
    assert (rrc == [0, 100, 100, 100]).all()


def test_flip_and_erase_probabilities_and_operations():
    params = many(
        {
            "resize": {"mode": "squash"},
            "random_horizontal_flip": {"p": 0.3},
            "rand_augment": {"p": 0.8},
            "random_erase": {},
        },
        size=224,
        side=(224, 224),
    )
    assert abs(params["flip"].mean() - 0.3) < 0.03
    erased = params["re"][:, 2] > 0
    assert abs(erased.mean() - 0.25) < 0.03
    _, _, height, width = params["re"][erased].astype(float).T
    assert kolmogorov(height * width / 224**2, 0.02, 0.33) < 1.9  # a few long boxes are rejected
    assert height.max() < 224
    assert width.max() < 224
    assert abs(np.median(np.log(height / width))) < 0.15
    skipped = (params["ra_op"] == NO_OP).all(1)
    assert abs(skipped.mean() - 0.2) < 0.03
    assert ((params["ra_op"] == NO_OP).any(1) == skipped).all()
    counts = np.bincount(params["ra_op"][~skipped].reshape(-1), minlength=14)
    expected = 2 * (~skipped).sum() / 14
    assert ((counts - expected) ** 2 / expected).sum() < 27.7  # chi square, 13 degrees, 1%
    signed = params["ra_mag"][params["ra_op"] == 6].astype(float)
    assert set(np.round(np.abs(signed), 3)) == {0.27}
    assert abs((signed < 0).mean() - 0.5) < 0.06


def test_uniforms_are_uniform_and_streams_are_independent():
    seeds = np.arange(MANY, dtype=np.uint64)
    a, b = uniforms(seeds, 3, 2), uniforms(seeds, 4, 2)
    for column in (a[:, 0], a[:, 1], b[:, 0]):
        assert kolmogorov(column, 0, 1) < 1.63
    for x, y in ((a[:, 0], a[:, 1]), (a[:, 0], b[:, 0]), (a[1:, 0], a[:-1, 0])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


# --- cards ----------------------------------------------------------------------------------------


def card_of(pipeline: ViewPipeline, **changes) -> Card:
    config = {**pipeline.config.to_dict(), "set": "main", "k": 0}
    return Card(
        **{
            "column": "view.main.0",
            "writer": "views",
            "config": config,
            "backend": pipeline.backend,
            **changes,
        }
    )


def test_a_card_gives_the_pipeline_back():
    pipeline = ViewPipeline(
        ViewConfig(size=17, transforms={"random_resized_crop": {}, "cutmix": {}})
    )
    card = Card.from_json(card_of(pipeline).to_json())
    assert ViewPipeline.from_card(card).config == pipeline.config
    assert ViewPipeline.from_card(card.config, card.backend).config == pipeline.config
    pipeline.check_card(card)
    assert {"pillow", "simplejpeg", "order", "resize"} <= set(pipeline.backend)


def test_bad_input_card_of_other_views():
    pipeline = ViewPipeline(ViewConfig(size=16))
    other = ViewPipeline(ViewConfig(size=16, transforms={"random_resized_crop": {}}))
    with pytest.raises(CardError, match=r"view.main.0.*differ.*transforms.rand_augment"):
        pipeline.check_card(card_of(other))
    with pytest.raises(
        CardError, match=r"differ from the ones asked for in size \(stored 20, asked 16"
    ):
        pipeline.check_card(card_of(ViewPipeline(ViewConfig(size=20))))
    with pytest.raises(CardError, match="does not belong to a view column"):
        ViewPipeline.from_card(Card(column="t.text", writer="t"))


# --- bad input ------------------------------------------------------------------------------------


def test_bad_input_unknown_transform_key_lists_valid_keys():
    with pytest.raises(ConfigError) as error:
        ViewConfig(transforms={"random_resize_crop": {}})
    text = str(error.value)
    assert "unknown key 'random_resize_crop'" in text
    assert "Did you mean 'random_resized_crop'?" in text
    for name in ORDER:
        assert name in text
    with pytest.raises(
        ConfigError, match=r"rand_augment: unknown key 'magnitud'.*Valid keys: num_ops"
    ):
        ViewConfig(transforms={"rand_augment": {"magnitud": 3}})


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ({"random_erase": {"p": 1.5}}, r"random_erase.p: expected a number from 0 to 1, got 1.5"),
        ({"random_resized_crop": {"scale": [0.9, 0.1]}}, r"scale: low 0.9 is above high 0.1"),
        ({"random_resized_crop": {"scale": 0.5}}, r"scale: expected \[low, high\]"),
        ({"rand_augment": {"magnitude": 31}}, r"magnitude: expected an integer from 0 to 30"),
        ({"rand_augment": {"interpolation": "lanczos"}}, r"'lanczos' is not one of nearest, bil"),
        ({"normalize": {"std": [1, 0, 1]}}, r"std: every value must be above 0"),
        ({"normalize": {"mean": [1, 2]}}, r"mean: expected three numbers"),
        ({"mixup": {"div_by": 0.5}}, r"mixup.div_by: expected a number from 1 to 1000"),
        ({"center_crop": {"size": 0}}, r"center_crop.size: expected an integer from 1"),
        ({"rand_augment": 3}, r"rand_augment: expected a mapping, got 3"),
    ],
)
def test_bad_input_options(transforms, message):
    with pytest.raises(ConfigError, match=message):
        ViewConfig(transforms=transforms)


def test_bad_input_record_of_another_order_or_version():
    pipeline = ViewPipeline(ViewConfig(size=16))
    config = pipeline.config.to_dict()
    with pytest.raises(CardError, match="records of version 2, this code replays version 1"):
        ViewPipeline.from_card({**config, "version": 2})
    order = [*ORDER[:4], ORDER[5], ORDER[4], *ORDER[6:]]
    with pytest.raises(CardError, match=r"written with the order .*reinforce again"):
        ViewPipeline.from_card(config, {"order": order})
    flipped = ViewPipeline(
        ViewConfig(size=16, transforms={"random_horizontal_flip": {}, "resize": {}})
    )
    stored = flipped.pack(flipped.sample([(16, 16)], [0]))
    with pytest.raises(CardError, match="view records of 1 bytes, the configuration's have"):
        pipeline.unpack(stored)
    with pytest.raises(CardError, match=r"records have the fields \['flip'\]"):
        pipeline.apply([noise(16, 16)], flipped.sample([(16, 16)], [0]))


def test_bad_input_damaged_record():
    pipeline = ViewPipeline(ViewConfig(size=16))
    stored = pipeline.pack(pipeline.sample([(16, 16)] * 3, range(3))).copy()
    stored[1] = 0xEE
    with pytest.raises(DataError, match="view record 1 holds values that no transform draws"):
        pipeline.unpack(stored)


def test_bad_input_replay_size_differs_without_rescale():
    pipeline = ViewPipeline(ViewConfig(size=16))
    params = pipeline.sample([(30, 30)], [0])
    with pytest.raises(ConfigError, match=r"stored at 16 pixels and asked for at 24.*rescale=True"):
        pipeline.apply([noise(30, 30)], params, size=24)


def test_bad_input_partner_missing():
    config = ViewConfig(size=8, transforms={"random_resized_crop": {}, "mixup": {"p": 1.0}})
    pipeline = ViewPipeline(config)
    with pytest.raises(ConfigError, match="need partners="):
        pipeline.sample([(9, 9)], [0])
    params = pipeline.sample([(9, 9)], [0], ([41], [(9, 9)]))
    for partners in (None, [], [None]):
        with pytest.raises(DataError, match=r"row 7: .*needs the image of row 41 \(id2\).*missing"):
            pipeline.apply([noise(9, 9)], params, partners=partners, names=["row 7"])


def test_bad_input_image_smaller_than_its_crop_box():
    pipeline = ViewPipeline(ViewConfig(size=16, transforms={"random_resized_crop": {}}))
    params = pipeline.sample([(64, 48)] * 2, range(2))
    images = [noise(64, 48), noise(32, 24)]
    params["rrc"][1] = [0, 0, 60, 40]
    with pytest.raises(DataError, match=r"row 5 is 32x24 pixels.*resized after reinforcement"):
        pipeline.apply(images, params, names=["row 4", "row 5"])
    params["rrc"][1] = 0
    message = r"row 5: the stored crop box \[0, 0, 0, 0\] is empty; reinforce that row again"
    with pytest.raises(DataError, match=message):
        pipeline.apply(images, params, names=["row 4", "row 5"])


def test_bad_input_image_smaller_than_a_fixed_crop():
    pipeline = ViewPipeline(ViewConfig(size=20, transforms={"center_crop": {}}))
    with pytest.raises(DataError, match="image 1 is 19x30 pixels before center_crop, smaller than"):
        pipeline.sample([(30, 30), (19, 30)], [0, 1])
    params = pipeline.sample([(30, 30)], [0])
    with pytest.raises(DataError, match="row 3 is 19x30 pixels before center_crop"):
        pipeline.apply([noise(19, 30)], params, names=["row 3"])
    crop = ViewPipeline(
        ViewConfig(size=20, transforms={"random_crop": {"padding": 0, "resize": False}})
    )
    with pytest.raises(DataError, match="before random_crop"):
        crop.sample([(30, 19)], [0])
    with pytest.raises(DataError, match="row 3 is 30x19 pixels before random_crop"):
        crop.apply([noise(30, 19)], crop.sample([(30, 30)], [0]), names=["row 3"])


def test_bad_input_views_that_are_not_square():
    pipeline = ViewPipeline(ViewConfig(size=16, transforms={"random_horizontal_flip": {}}))
    with pytest.raises(DataError, match=r"image 0 is 16x20 pixels after the configured transforms"):
        pipeline.apply([noise(16, 20)], pipeline.sample([(16, 20)], [0]))


def test_bad_input_images():
    pipeline = ViewPipeline(ViewConfig(size=16))
    params = pipeline.sample([(16, 16)], [0])
    with pytest.raises(DataError, match="2 images for 1 view records"):
        pipeline.apply([noise(16, 16)] * 2, params)
    with pytest.raises(DataError, match=r"row 2: expected uint8 \[h, w, 3\], got float64"):
        pipeline.apply([noise(16, 16) / 255], params, names=["row 2"])
    with pytest.raises(DataError, match="row 2: there is no image"):
        pipeline.apply([None], params, names=["row 2"])
    with pytest.raises(DataError, match="row 2: not an image"):
        pipeline.apply([b"hello"], params, names=["row 2"])
    with pytest.raises(DataError, match="image 0 is 0x4 pixels: sides must be 1 to 32767"):
        pipeline.sample([(0, 4)], [0])
    with pytest.raises(DataError, match=r"sizes: expected \[2, 2\]"):
        pipeline.sample([(4, 4)], [0, 1])


def test_every_field_of_a_record_is_documented_by_its_transform():
    full = ViewConfig(transforms={name: {} for name in ORDER})
    names = set(params_dtype(full).names or ())
    assert names == {
        *("rc", "rrc", "flip", "ra_op", "ra_mag", "re"),
        *("rc2", "rrc2", "flip2", "ra_op2", "ra_mag2", "re2"),
        *("mix", "id2", "mixup_lam", "cutmix_lam", "box"),
    }
    assert params_dtype(ViewConfig()).itemsize == 8 + 2 + 4  # crop, operations, magnitudes
    assert dataclasses.is_dataclass(full)
