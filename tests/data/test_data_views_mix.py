"""MixUp, CutMix, erasing: exact arithmetic, identities and distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_images import noise, picture, planar, sample

from understudy.core.errors import DataError
from understudy.data.view_config import ViewConfig
from understudy.data.view_mix import erase, flip, label_weights, mix_views
from understudy.data.view_params import CUT, MIXED_UP, empty_params
from understudy.data.views import ViewPipeline

MIX = {"resize": {"mode": "squash"}, "mixup": {}, "cutmix": {}}


def views(size: int, **transforms: dict) -> ViewPipeline:
    return ViewPipeline(ViewConfig(size=size, transforms={**MIX, **transforms}))


def record(pipeline: ViewPipeline, mix: int, lam: float = 0.0, box=(0, 0, 0, 0)) -> np.ndarray:
    params = empty_params(pipeline.config, 1)
    params["mix"], params["id2"], params["mixup_lam"], params["box"] = mix, 1, lam, [box]
    return params


@pytest.mark.parametrize("rounded", [False, True])
def test_mixup_weight_one_is_the_identity_and_zero_the_partner(rounded):
    config = ViewConfig(size=9, transforms=MIX, round_mixed=rounded)
    pipeline = ViewPipeline(config)
    a, b = noise(9, 9, 1), noise(9, 9, 2)
    for lam, expected in ((1.0, a), (0.0, b)):
        view = pipeline.apply([a], record(pipeline, MIXED_UP, lam), partners=[b])[0]
        np.testing.assert_array_equal(view, expected)


@settings(max_examples=30, deadline=None)
@given(lam=st.floats(0, 1, width=16), seed=st.integers(0, 99))
def test_mixup_equals_float64_arithmetic(lam, seed):
    pipeline = views(6)
    a, b = noise(6, 6, seed), noise(6, 6, seed + 1)
    view = pipeline.apply([a], record(pipeline, MIXED_UP, lam), partners=[b])[0]
    expected = lam * a.astype(float) + (1 - lam) * b.astype(float)
    np.testing.assert_allclose(view, expected, atol=1e-4)


def test_cutmix_replaces_the_box_and_nothing_else():
    pipeline = views(10)
    a, b = noise(10, 10, 1), noise(10, 10, 2)
    view = pipeline.apply([a], record(pipeline, CUT, box=(2, 3, 7, 10)), partners=[b])[0]
    expected = a.astype(np.float32)
    expected[2:7, 3:10] = b[2:7, 3:10]
    np.testing.assert_array_equal(view, expected)


def test_both_can_hit_mixup_first():
    pipeline = views(8)
    a, b = noise(8, 8, 1), noise(8, 8, 2)
    params = record(pipeline, MIXED_UP | CUT, 0.25, (0, 0, 4, 8))
    view = pipeline.apply([a], params, partners=[b])[0]
    expected = np.float32(0.25) * a + np.float32(0.75) * b
    expected[:4] = b[:4]
    np.testing.assert_array_equal(view, expected)


def test_unmixed_records_of_a_mixing_set_are_plain_levels():
    pipeline = views(8, mixup={"p": 0.0}, cutmix={"p": 0.0})
    images = [noise(8, 8, i) for i in range(3)]
    params, partners = sample(pipeline, images, [1, 2, 3])
    assert (params["id2"] == -1).all()
    assert partners == [None] * 3
    out = pipeline.apply(images, params)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.stack(images))


def test_the_partner_is_seen_through_its_own_transforms():
    config = ViewConfig(
        size=12,
        transforms={
            "random_resized_crop": {},
            "random_horizontal_flip": {},
            "rand_augment": {},
            "random_erase": {"p": 1.0},
            "mixup": {"p": 1.0},
        },
    )
    pipeline = ViewPipeline(config)
    images = [picture(40, 50, i) for i in range(4)]
    params, partners = sample(pipeline, images, [1, 2, 3, 4])
    mixed = pipeline.apply(images, params, partners=partners)
    alone = ViewPipeline(
        ViewConfig(size=12, transforms={k: v for k, v in config.transforms.items() if k != "mixup"})
    )
    first, second = empty_params(alone.config, 4), empty_params(alone.config, 4)
    for name in alone.dtype.names or ():
        first[name], second[name] = params[name], params[f"{name}2"]
    assert not np.array_equal(first["rrc"], second["rrc"])
    assert partners is not None
    x1 = alone.apply(images, first).astype(np.float64)
    x2 = alone.apply([images[r] for r in params["id2"]], second).astype(np.float64)
    lam = params["mixup_lam"].astype(np.float64)[:, None, None, None]
    np.testing.assert_allclose(mixed, lam * x1 + (1 - lam) * x2, atol=1e-4)


def test_probabilities_and_weights_of_mixing():
    many = 6000
    pipeline = views(224)
    rows = pipeline.draw_partners(range(many), 50, np.zeros(many))
    params = pipeline.sample([(8, 8)] * many, range(many), (rows, [(8, 8)] * many))
    up, cut = (params["mix"] & MIXED_UP) > 0, (params["mix"] & CUT) > 0
    for hit in (up, cut):
        assert abs(hit.mean() - 0.5) < 0.03
    assert abs((up & cut).mean() - 0.25) < 0.03  # independent
    lam = params["mixup_lam"][up].astype(float)
    # Beta(1, 1) / 2: uniform on [0, 0.5]
    assert lam.max() <= 0.5
    assert abs(lam.mean() - 0.25) < 0.01
    assert abs(lam.std() - 0.5 / np.sqrt(12)) < 0.01
    assert abs(params["cutmix_lam"][cut].astype(float).mean() - 0.5) < 0.03
    assert (params["id2"][params["mix"] == 0] == -1).all()
    np.testing.assert_array_equal(params["id2"][up | cut], rows[up | cut])


def test_cutmix_boxes_have_the_stated_side_before_clipping():
    many = 3000
    pipeline = views(100, cutmix={"p": 1.0}, mixup={"p": 0.0})
    partners = (np.ones(many, int), [(8, 8)] * many)
    params = pipeline.sample([(8, 8)] * many, range(many), partners)
    top, left, bottom, right = params["box"].astype(float).T
    inside = (top > 0) & (left > 0) & (bottom < 100) & (right < 100)
    assert inside.sum() > 200
    side = np.floor(100 * np.sqrt(1 - params["cutmix_lam"].astype(float))) // 2 * 2
    np.testing.assert_array_equal((bottom - top)[inside], side[inside])
    np.testing.assert_array_equal((right - left)[inside], side[inside])
    centre = ((top + bottom) / 2)[inside & (side < 20)]
    assert abs(centre.mean() - 50) < 5


def test_beta_weights_of_other_alphas():
    pipeline = views(16, mixup={"p": 1.0, "alpha": 0.2, "div_by": 1.0}, cutmix={"p": 0.0})
    partners = (np.ones(2000, int), [(8, 8)] * 2000)
    lam = pipeline.sample([(8, 8)] * 2000, range(2000), partners)["mixup_lam"].astype(float)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))
    assert abs(lam.mean() - 0.5) < 0.03
    assert abs(lam.var() - 1 / (4 * 1.4)) < 0.01


def test_partners_are_uniform_over_the_other_rows():
    pipeline = views(8)
    own = np.arange(5000) % 10
    rows = pipeline.draw_partners(range(5000), 10, own)
    assert (rows != own).all()
    assert rows.min() == 0
    assert rows.max() == 9
    counts = np.bincount((rows - own) % 10, minlength=10)[1:]
    assert ((counts - 5000 / 9) ** 2 / (5000 / 9)).sum() < 20.1  # chi square, 8 degrees, 1%
    assert (pipeline.draw_partners(range(5), 1, np.zeros(5)) == 0).all()


def test_label_weights_are_the_first_images_share():
    pipeline = views(10)
    parts = [
        record(pipeline, 0),
        record(pipeline, MIXED_UP, 0.25),
        record(pipeline, CUT, 0, (0, 0, 5, 10)),
        record(pipeline, MIXED_UP | CUT, 0.25, (0, 0, 5, 10)),
    ]
    shares = label_weights(np.concatenate(parts), 10)
    np.testing.assert_allclose(shares, [1, 0.25, 0.5, 0.125])
    plain = ViewPipeline(ViewConfig(size=8))
    np.testing.assert_array_equal(label_weights(plain.sample([(9, 9)] * 2, [0, 1]), 8), [1, 1])


def test_flip_and_erase_touch_only_what_they_should():
    x = planar([noise(6, 7, i) for i in range(3)])
    before = x.copy()
    flip(x, np.array([0, 1, 0]))
    np.testing.assert_array_equal(x[1], before[1, :, :, ::-1])
    erase(x, np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]), 0.5)
    assert (x[2, :, 1:4, 2:6] == 128).all()
    before[1], before[2, :, 1:4, 2:6] = before[1, :, :, ::-1], 128
    np.testing.assert_array_equal(x, before)


def test_mix_views_leaves_its_inputs_alone():
    pipeline = views(6)
    x, y = planar([noise(6, 6, 1)]), planar([noise(6, 6, 2)])
    copies = x.copy(), y.copy()
    mix_views(x, y, record(pipeline, MIXED_UP, 0.5), False)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


def test_bad_input_partner_smaller_than_its_crop_box():
    config = ViewConfig(size=8, transforms={"random_resized_crop": {}, "mixup": {"p": 1.0}})
    pipeline = ViewPipeline(config)
    params = pipeline.sample([(50, 50)], [0], ([7], [(50, 50)]))
    params["rrc2"] = [[0, 0, 40, 40]]
    with pytest.raises(DataError, match=r"row 3's partner row 7 is 20x20 pixels .*too small"):
        pipeline.apply([noise(50, 50)], params, partners=[noise(20, 20)], names=["row 3"])
