"""RandAugment: each operation against Pillow, or against a slow reference of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from view_images import noise, picture, planar

from understudy.data.view_config import DEFAULTS, ViewConfig
from understudy.data.view_params import NO_OP, empty_params
from understudy.data.view_randaugment import OPS, apply_op, apply_rand_augment, magnitudes
from understudy.data.views import ViewPipeline

SIDES = (1, 2, 3, 17, 40)


def affine(image: Image.Image, matrix: tuple[float, ...], fill: int) -> Image.Image:
    """Warp with an output-to-input matrix, as torchvision's `F.affine` does on Pillow images."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=(fill,) * 3
    )


# What torchvision's RandAugment does with a Pillow image, magnitude given. Shears are about the
# top-left corner; their inverse matrix is the identity with +m beside it.
PILLOW: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "Identity": lambda im, m, fill: im,
    "ShearX": lambda im, m, fill: affine(im, (1, m, 0, 0, 1, 0), fill),
    "ShearY": lambda im, m, fill: affine(im, (1, 0, 0, m, 1, 0), fill),
    "TranslateX": lambda im, m, fill: affine(im, (1, 0, -int(m), 0, 1, 0), fill),
    "TranslateY": lambda im, m, fill: affine(im, (1, 0, 0, 0, 1, -int(m)), fill),
    "Rotate": lambda im, m, fill: im.rotate(m, Image.Resampling.NEAREST, fillcolor=(fill,) * 3),
    "Brightness": lambda im, m, fill: ImageEnhance.Brightness(im).enhance(1 + m),
    "Color": lambda im, m, fill: ImageEnhance.Color(im).enhance(1 + m),
    "Contrast": lambda im, m, fill: ImageEnhance.Contrast(im).enhance(1 + m),
    "Sharpness": lambda im, m, fill: ImageEnhance.Sharpness(im).enhance(1 + m),
    "Posterize": lambda im, m, fill: ImageOps.posterize(im, int(m)),
    "Solarize": lambda im, m, fill: ImageOps.solarize(im, m),
    "AutoContrast": lambda im, m, fill: ImageOps.autocontrast(im),
    "Equalize": lambda im, m, fill: ImageOps.equalize(im),
}


def stored(op: int, index: int, side: int, negative: bool) -> float:
    """Return the magnitude as it is stored (float16)."""
    options = {**DEFAULTS["rand_augment"], "magnitude": index}
    table, signed = magnitudes(options, side)
    return float(np.float16(-table[op] if negative and signed[op] else table[op]))


def ours(op: int, images: list[np.ndarray], m: float, fill: int = 0, ratio: float = 1.0):
    x = planar(images)
    out = apply_op(op, x, np.full(len(x), m), ratio, fill, "nearest")
    return out.transpose(0, 2, 3, 1)


def pictures(side: int) -> list[np.ndarray]:
    flat = np.full((side, side, 3), 77, np.uint8)
    dark = noise(side, side, 5) // 4 + 30
    return [picture(side, side, 1), noise(side, side, 2), flat, dark]


@pytest.mark.parametrize("op", range(len(OPS)), ids=OPS)
def test_every_operation_equals_pillow(op):
    for side in SIDES:
        images = pictures(side)
        for index in (0, 3, 9, 17, 30):
            for negative in (False, True):
                m = stored(op, index, side, negative)
                for fill in (0, 128):
                    found = ours(op, images, m, fill)
                    for image, got in zip(images, found, strict=True):
                        expected = np.asarray(PILLOW[OPS[op]](Image.fromarray(image), m, fill))
                        np.testing.assert_array_equal(got, expected, f"{OPS[op]} {side} {m}")


@settings(max_examples=40, deadline=None)
@given(
    op=st.integers(0, 13),
    m=st.floats(-1, 1, width=16),
    side=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_any_stored_magnitude_equals_pillow(op, m, side, seed):
    scale = {3: side, 4: side, 5: 180.0}.get(op, 1.0)
    if op == 10:
        m, scale = (1 + 7 * abs(m)), 1.0  # Pillow keeps at least one bit
    if op == 11:
        m, scale = abs(m), 255.0
    m = float(np.float16(m * scale))
    if op == 5 and m % 90 == 0:
        return  # Pillow transposes then instead of sampling
    image = noise(side, side, seed)
    expected = np.asarray(PILLOW[OPS[op]](Image.fromarray(image), m, 0))
    np.testing.assert_array_equal(ours(op, [image], m)[0], expected)


def test_magnitudes_at_index_nine_are_the_published_ones():
    table, signed = magnitudes(DEFAULTS["rand_augment"], 224)
    expected = [0, 0.09, 0.09, 0.3 * 150 / 331 * 224, 0.3 * 150 / 331 * 224, 9.0]
    np.testing.assert_allclose(table[:6], expected)
    assert table[3] == pytest.approx(30.45, abs=0.01)
    np.testing.assert_allclose(table[6:10], 0.27)
    assert table[10] == 7
    assert table[11] == pytest.approx(178.5)
    assert table[12:].tolist() == [0, 0]
    assert signed.tolist() == [False] + [True] * 9 + [False] * 4


def test_a_group_of_images_gives_what_each_gives_alone():
    images = [noise(13, 13, i) for i in range(5)]
    values = np.array([0.25, -0.5, 0.125, 1.0, 0.0])
    for op in range(14):
        scale = {3: 9.0, 4: 9.0, 5: 40.0, 10: 4.0, 11: 200.0}.get(op, 1.0)
        m = np.abs(values * scale) if op in (10, 11) else values * scale
        together = apply_op(op, planar(images), m, 1.0, 0, "nearest")
        for i, image in enumerate(images):
            alone = apply_op(op, planar([image]), m[i : i + 1], 1.0, 0, "nearest")
            np.testing.assert_array_equal(together[i], alone[0])


def test_operations_run_in_order_and_skipped_views_stay():
    images = [noise(12, 12, i) for i in range(3)]
    ops = np.array([[11, 8], [NO_OP, NO_OP], [8, 11]], np.uint8)
    mags = np.array([[100, 0.5], [0, 0], [0.5, 100]], np.float16)
    x = planar(images)
    apply_rand_augment(x, ops, mags, 1.0, DEFAULTS["rand_augment"])
    pil = [Image.fromarray(image) for image in images]
    first = ImageEnhance.Contrast(ImageOps.solarize(pil[0], 100)).enhance(1.5)
    last = ImageOps.solarize(ImageEnhance.Contrast(pil[2]).enhance(1.5), 100)
    np.testing.assert_array_equal(x[0].transpose(1, 2, 0), np.asarray(first))
    np.testing.assert_array_equal(x[1].transpose(1, 2, 0), images[1])
    np.testing.assert_array_equal(x[2].transpose(1, 2, 0), np.asarray(last))


def test_translations_scale_with_the_view_and_shears_do_not():
    image = noise(20, 20)
    for op in (3, 4):
        np.testing.assert_array_equal(ours(op, [image], 8.0, ratio=0.5), ours(op, [image], 4.0))
    for op in (1, 2, 5):
        np.testing.assert_array_equal(ours(op, [image], 0.25, ratio=0.5), ours(op, [image], 0.25))


def bilinear_point(image: np.ndarray, x: float, y: float, fill: int) -> np.ndarray:
    """Sample one point the slow way: pixel centres at 0.5, edges repeated, outside filled."""
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        return np.full(3, fill, float)
    x, y = x - 0.5, y - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    out = np.zeros(3)
    for yy, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for xx, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            at = image[min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)]
            out += wy * wx * at.astype(float)
    return out


@pytest.mark.parametrize(("op", "m"), [(1, 0.3), (1, -0.25), (2, 0.3), (5, 23.0), (5, -9.0)])
def test_bilinear_warps_equal_a_slow_reference(op, m):
    image = picture(15, 15, 3)
    got = apply_op(op, planar([image]), np.array([m]), 1.0, 99, "bilinear")[0].transpose(1, 2, 0)
    angle = math.radians(m)
    for y in range(15):
        for x in range(15):
            cx, cy = x + 0.5, y + 0.5
            if op == 1:
                sx, sy = cx + m * cy, cy
            elif op == 2:
                sx, sy = cx, cy + m * cx
            else:
                # a counter-clockwise turn of the picture, y pointing down
                dx, dy = cx - 7.5, cy - 7.5
                sx = math.cos(angle) * dx - math.sin(angle) * dy + 7.5
                sy = math.sin(angle) * dx + math.cos(angle) * dy + 7.5
            near_edge = min(abs(sx), abs(sy), abs(sx - 15), abs(sy - 15)) < 1e-3
            if near_edge:
                continue
            expected = bilinear_point(image, sx, sy, 99)
            # weights have 8 bits: two of them err by at most 1/256 of 255 levels each
            assert np.abs(got[y, x] - expected).max() <= 2.5


def test_bilinear_translations_are_whole_pixels():
    image = noise(9, 9)
    a = apply_op(3, planar([image]), np.array([2.7]), 1.0, 0, "bilinear")
    b = apply_op(3, planar([image]), np.array([2.0]), 1.0, 0, "nearest")
    np.testing.assert_array_equal(a, b)


def test_fill_reaches_the_pipeline():
    config = ViewConfig(
        size=8, transforms={"resize": {"mode": "squash"}, "rand_augment": {"fill": 200}}
    )
    pipeline = ViewPipeline(config)
    params = empty_params(config, 1)
    params["ra_op"], params["ra_mag"] = [[3, 0]], [[3, 0]]
    view = pipeline.apply([noise(8, 8)], params)[0]
    assert (view[:, :3] == 200).all()
    np.testing.assert_array_equal(view[:, 3:], noise(8, 8)[:, :5])
